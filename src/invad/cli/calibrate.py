"""invad calibrate"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from invad.cli.bundled import calibrate_bundle, limits_as_json, limits_line, require_no_pictures
from invad.cli.options import (
    BAD_HELP,
    REVIEW_HELP,
    DeviceOption,
    GroupByOption,
    JsonOption,
    LayoutOption,
    ModelArgument,
    RuleOption,
    SplitOption,
    StrictOption,
)
from invad.cli.progress import observing
from invad.cli.regions import HELP, asked_regions
from invad.cli.voice import Voice
from invad.errors import ConfigError
from invad.scoring.rates import Rates
from invad.system.files import is_there

if TYPE_CHECKING:
    from invad.records import Sample


def calibrate(
    model: ModelArgument,
    normals: Annotated[
        Path | None,
        typer.Argument(
            metavar="NORMALS",
            help="Folder of good images (or one per category) that were not trained on. Default, with "
            "--roi or a rate: those that set the limits so far, of which the model keeps what is needed.",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float | None, typer.Option(help=f"{BAD_HELP} Default: as the model has it (0.01 when trained).")
    ] = None,
    review_rate: Annotated[
        float | None, typer.Option(help=f"{REVIEW_HELP} Default: as the model has it (0.05 when trained).")
    ] = None,
    roi: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|CATEGORY=FILE",
            help=f"{HELP} none takes a region away. Default: as the model has it.",
        ),
    ] = None,
    min_area: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS",
            help="Area below which a part of the map is no defect, in pixels of the images; none for no such "
            "rule. Default: as the model has it.",
        ),
    ] = None,
    layout: LayoutOption = "auto",
    split: SplitOption = None,
    group_by: GroupByOption = None,
    parts: RuleOption = None,
    strict: StrictOption = False,
    device: DeviceOption = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A new folder for the result. Default: in place.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Set the limits anew from other good images, after a change of light, camera, supplier or of the rates.

    The networks stay; the model folder is rewritten once everything is known. Bundles that were exported
    before stay as they are: export again. In place of a model, an exported bundle takes another region, area
    or rates, without PyTorch and without pictures.
    """
    if normals is None and (roi or None, min_area, false_alarm_rate, review_rate) == (None, None, None, None):
        raise ConfigError(
            "nothing to change: give NORMALS, a folder of good images, or --roi, --min-area or a rate"
        )
    least = _pixels(min_area)
    voice = Voice(json)
    if output is not None and is_there(output):
        raise ConfigError(f"--output {output}: is there already; give a new folder")
    from invad.runtime.bundle import is_bundle

    if is_bundle(model):
        require_no_pictures(model, normals)
        calibrate_bundle(
            voice,
            model,
            output,
            roi=roi,
            min_area=least,
            review_rate=review_rate,
            false_alarm_rate=false_alarm_rate,
        )
        return
    with observing(voice.err) as observer:
        from invad.data.datasets import normal_set, not_taken
        from invad.data.groups import grouped
        from invad.detector.card import promised
        from invad.detector.fusing import normals_of
        from invad.detector.opening import open_model
        from invad.runtime.parts import rule_of
        from invad.scoring.rates import POOLED

        detector = open_model(model, device)
        fusion = detector.fusion
        before = detector.calibrations
        rates = Rates(
            review=detector.rates.review if review_rate is None else review_rate,
            bad=detector.rates.bad if false_alarm_rate is None else false_alarm_rate,
        )
        samples: Sequence[Sample] | None = None
        if normals is not None:
            good = normal_set(normals, layout=layout, split=split)
            for line in not_taken(good):
                observer.note(line)
            of_members = normals_of(good, rule_of(fusion, parts))
            samples = of_members if group_by is None else grouped(of_members, group_by, normals)
        region, regions = asked_regions(roi)
        of_categories: dict[str, Any] = {"regions": regions} if regions else {}
        changed = detector.calibrate(
            samples,
            rates=rates,
            region=region,
            min_area=least,
            strict=strict,
            observer=observer,
            **of_categories,
        )
        warnings = list(changed)
        lost = sorted(set(before) - set(detector.calibrations))
        if lost:
            warnings.append(
                f"no limits of their own any more, because fewer than 2 different good images of them were "
                f"given: {', '.join(lost)}; they are judged by the limits over all categories"
            )
        content_hash = detector.save(model if output is None else output)
    fusion = detector.fusion
    pooled = detector.calibrations[POOLED] if fusion is None else fusion.calibration
    unit = pooled.unit if fusion is None else fusion.unit
    voice.say(
        limits_line(pooled, unit, rates),
        f"{promised(detector.info, detector.calibrations, fusion)}.",
        f"Model: {model if output is None else output}",
    )
    voice.warn(*warnings)
    result: dict[str, Any] = {
        "model": str(model if output is None else output),
        **limits_as_json(detector, pooled, rates),
        "warnings": warnings,
        "content_hash": content_hash,
    }
    voice.hand_over(result)


def _pixels(text: str | None) -> "float | Literal['none'] | None":
    if text is None or text == "none":
        return None if text is None else "none"
    try:
        return float(text.removesuffix("px"))
    except ValueError:
        raise ConfigError(f"--min-area {text!r}: give a number of pixels, such as 400, or none") from None
