"""invad drift"""

import csv as csv_module
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invad.cli.options import JsonOption, written_file
from invad.cli.voice import Voice
from invad.detector.opening import AUTO, open_detector
from invad.system.files import write_atomically

if TYPE_CHECKING:
    from invad.evaluation.drift import DriftReport


def drift(
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help="CSV of 'invad predict --csv', in the order of the line."),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Model or bundle that judged them, whose held-out normals are the reference. Default: the "
            "first rows are.",
        ),
    ] = None,
    category: Annotated[str | None, typer.Option(help="Category of the model they were judged by.")] = None,
    reference: Annotated[
        int, typer.Option(min=30, help="Rows at the start that are the reference, without --model.")
    ] = 500,
    evidence: Annotated[
        float, typer.Option(min=10, help="Parts accepted between two notices without a cause.")
    ] = 1e6,
    floor: Annotated[
        float,
        typer.Option(min=0, max=0.49, help="Effect that an alarm needs; 0.1 is 0.36 sd."),
    ] = 0.1,
    every: Annotated[
        int | None,
        typer.Option(min=1, help="Use each so-manieth part alone. Default: as their likeness asks for."),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=written_file, help="Write the series, a row for each part."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Say whether the scores of a line are still those of the images that its limits were made from.

    An alarm says that parts look different, and since when; whether the camera or the product has changed is
    for a person to find.
    """
    voice = Voice(json, csv)
    from invad.evaluation.drift import read_scores, watch
    from invad.scoring.calibration import for_category
    from invad.scoring.drift import DriftSettings

    rows = read_scores(results)
    detector = None if model is None else open_detector(model, AUTO, None, None)
    calibration = None if detector is None else for_category(detector.calibrations, category)
    settings = DriftSettings(evidence=evidence, floor=floor)
    found = watch(rows, calibration, settings, reference=reference, every=every)
    _say(voice, found)
    if csv is not None:
        voice.attempt(lambda: write_atomically(csv, _series(found)))
    last = found.readings[-1]
    voice.hand_over(
        {
            "parts": len(found.readings),
            "reference": found.reference,
            "used": sum(reading.used for reading in found.readings),
            "limit": found.limit,
            "autocorrelation": found.autocorrelation,
            "every": found.every,
            "log10_evidence": max(last.log10_evidence, 0.0),
            "effect": last.effect,
            "notice": last.notice,
            "alarm": found.alarm,
            "since": last.since if last.notice else None,
            "window": found.window,
            "flagged": found.flagged,
            "flagged_limit": found.flagged_limit,
        }
    )


def _say(voice: Voice, found: "DriftReport") -> None:
    last = found.readings[-1]
    used = sum(reading.used for reading in found.readings)
    thinned = "" if found.every == 1 else f", each {found.every}th part"
    voice.facts(
        {
            "parts": f"{len(found.readings)}, of which {used} are watched{thinned}",
            "reference": f"{found.reference} normal images",
            "evidence": f"10^{max(last.log10_evidence, 0):.1f}",
            "effect": f"{last.effect:.3f} (0.5 without drift; below, scores rise)",
            "flagged": f"{found.flagged} of the last {found.window}; chance brings {found.flagged_limit}",
        }
    )
    began = found.names[min(last.since, len(found.names) - 1)]
    if found.alarm is not None:
        voice.say(f"ALARM: parts look different, probably since {began}; seen at {found.names[found.alarm]}")
    elif last.notice:
        voice.say(f"notice: scores have changed a little, probably since {began}")
    else:
        voice.say("no drift is seen")
    if found.flagged > found.flagged_limit:
        voice.say("more parts are flagged than chance explains: defects, or a drift upwards; review tells")


def _series(found: "DriftReport") -> bytes:
    text = io.StringIO(newline="")
    writer = csv_module.writer(text, lineterminator="\n")
    writer.writerow(("path", "used", "p", "log10_evidence", "effect", "notice", "alarm"))
    for name, reading in zip(found.names, found.readings, strict=True):
        p = "" if reading.p is None else reading.p
        log = max(reading.log10_evidence, 0.0)
        writer.writerow(
            (name, int(reading.used), p, log, reading.effect, int(reading.notice), int(reading.alarm))
        )
    return text.getvalue().encode("utf-8", "surrogateescape")
