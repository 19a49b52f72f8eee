"""invad demo"""

from pathlib import Path
from typing import Annotated, Any

import typer

from invad.cli.evaluate import false_alarm_lines, rows
from invad.cli.options import DeviceOption, JsonOption, LayoutOption, SeedOption, StepsOption
from invad.cli.progress import observing
from invad.cli.serve import require_installed
from invad.cli.voice import Voice


def demo(
    output: Annotated[
        Path,
        typer.Option(metavar="DIR", help="New or empty folder, or that of an earlier demo, to replace it."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Your own images, good ones and if possible defective ones. Default: drawn parts.",
        ),
    ] = None,
    layout: LayoutOption = "auto",
    steps: StepsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Then send test parts to a service for this machine alone, until Ctrl-C."
        ),
    ] = False,
    json: JsonOption = None,
) -> None:
    """Train, calibrate, test and report in one go, on parts that invad draws or on your own images."""
    voice = Voice(json)
    if serve:
        require_installed()
    with observing(voice.err) as observer:
        from invad.evaluation.demo import run_demo

        summary = run_demo(
            output, data=data, layout=layout, seed=seed, steps=steps, device=device, observer=observer
        )
    voice.table(rows(summary))
    voice.say("", *false_alarm_lines(summary))
    auroc = summary["image_auroc"]
    voice.say(
        "No image AUROC: there are no defective images to tell from good ones."
        if auroc is None
        else f"Image AUROC {auroc:.4f} (1 is perfect, 0.5 is a coin toss)",
        f"{summary['images_per_second']:.1f} images per second; trained in {summary['train_seconds']:.0f} s",
        f"Report: {summary['report']}",
    )
    if summary["synthetic"]:
        voice.say(
            "The images are synthetic, drawn by invad itself: these figures show that it works, not how well "
            "it will do on your parts. Try: invad demo --data YOUR_IMAGES --output ANOTHER_FOLDER"
        )
    voice.hand_over(summary)
    if serve:
        _serve(voice, summary, layout, output / "line")


def _serve(voice: Voice, summary: dict[str, Any], layout: str, line: Path) -> None:
    """A service with the demo's model, filled with parts of its test."""
    from invad.evaluation.demo import line_parts
    from invad.serve.running import Address, log_to_standard_error, run
    from invad.serve.service import Service

    with Service(summary["model"], line) as service:
        with observing(voice.err) as observer:
            parts = line_parts(summary, layout)
            observer.stage("sending parts down the line", len(parts))
            for part in parts:
                known = part.category if part.category in service.active().detector.calibrations else None
                service.inspect(part.path, part_id=f"{part.category}-{part.path.stem}", category=known)
                observer.advance(part.path.name)
        log_to_standard_error()
        run(
            service,
            Address(port=0, without_keys=True),
            lambda url: voice.say(f"{len(parts)} parts are on the page; open {url}, Ctrl-C ends it"),
        )
