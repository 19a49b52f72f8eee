"""invad demo"""

from pathlib import Path
from typing import Annotated

import typer

from invad.cli.evaluate import false_alarm_lines, rows
from invad.cli.options import DeviceOption, JsonOption, LayoutOption, SeedOption, StepsOption
from invad.cli.progress import observing
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
    json: JsonOption = None,
) -> None:
    """Train, calibrate, test and report in one go, on parts that invad draws or on your own images."""
    voice = Voice(json)
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
