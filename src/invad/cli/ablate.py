"""invad paper ablate"""

from pathlib import Path
from typing import Annotated

import typer

from invad.cli.options import (
    PRESET_NAMES,
    STUDIES,
    CategoriesOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    SeedsOption,
    StepsOption,
    one_of,
    seed_numbers,
    split_names,
)
from invad.cli.progress import ending_when_interrupted, observing
from invad.cli.voice import Voice


def ablate(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            autocompletion=one_of(*STUDIES),
            help="steps, schedule, scoring, reconstruction, backbone, grid or denoiser.",
        ),
    ],
    root: Annotated[
        Path,
        typer.Argument(metavar="ROOT", help="Folder with good and defective images, as for 'evaluate'."),
    ],
    preset: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=one_of(*PRESET_NAMES),
            help="Settings of the network: paper-s (minutes on a CPU), paper, ...",
        ),
    ] = "paper-s",
    values: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="What to try instead of the study's own list, such as 1,3,50."),
    ] = None,
    seeds: SeedsOption = "0",
    categories: CategoriesOption = None,
    steps: StepsOption = None,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Measure pixels, too; takes much longer than images alone.")
    ] = False,
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for STUDY.json, .md and .svg and the trained networks, which other studies use.",
        ),
    ] = Path("ablation"),
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Vary one thing of the paper's method and measure what it does: steps, schedule, scoring and so on.

    One network is trained per category and seed wherever it is the same. Repeat the command to continue an
    interrupted one.
    """
    voice = Voice(json)
    chosen = seed_numbers(seeds)
    with (
        ending_when_interrupted(lambda: "interrupted; repeat the command to continue"),
        observing(voice.err) as observer,
    ):
        from invad.fit.training import Execution
        from invad.paper.ablation import Ablation, ablate
        from invad.paper.ablation.tables import markdown

        plan = Ablation(
            study=study,
            root=root,
            preset=preset,
            seeds=chosen,
            categories=split_names(categories),
            values=split_names(values),
            steps=steps,
            pixels=pixels,
            device=device,
            execution=Execution(precision=precision),
        )
        document = ablate(plan, output, observer)
    voice.say(*markdown(document).splitlines(), "", f"Written: {output / study}.json, .md, .svg")
    voice.hand_over({**document, "output": str(output)})
