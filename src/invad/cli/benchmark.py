"""invad benchmark run, invad benchmark rescore"""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from invad.cli.options import (
    DEFINITIONS,
    LAYOUTS,
    BackboneOption,
    CategoriesOption,
    DeviceOption,
    JsonOption,
    PresetOption,
    SeedsOption,
    SplitOption,
    StepsOption,
    StrictOption,
    WeightsOption,
    one_of,
    seed_numbers,
    split_names,
)
from invad.cli.progress import ending_when_interrupted, observing
from invad.cli.voice import Voice
from invad.errors import DataError

MetricsOption = Annotated[
    str,
    typer.Option(
        metavar="A,B",
        autocompletion=one_of(*DEFINITIONS),
        help="Metric definitions: exact, adeval, ader200, official. They differ in frame, masks and "
        "thresholds; every output says how.",
    ),
]


class Setting(str, Enum):
    """How many models."""

    unified = "unified"
    single = "single"


def run(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            autocompletion=one_of(*LAYOUTS),
            help="Layout of the data set, such as mvtec or folder; auto finds out.",
        ),
    ],
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Folder of the data set; nothing is written there.")
    ],
    setting: Annotated[
        Setting, typer.Option(help="unified: one model for all categories. single: one for each.")
    ] = Setting.unified,
    categories: CategoriesOption = None,
    preset: PresetOption = "standard",
    seeds: SeedsOption = "0",
    steps: StepsOption = None,
    metrics: MetricsOption = "exact",
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the run. Repeat the command to continue an interrupted one. "
            "Default: benchmark_<ROOT>_<setting> in the current folder.",
        ),
    ] = None,
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Leave the trained models in DIR/models.")
    ] = False,
    device: DeviceOption = None,
    json: JsonOption = None,
    split: SplitOption = None,
    strict: StrictOption = False,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
) -> None:
    """Train, calibrate and test every category of a data set, and write the tables of a paper.

    Scores are those of the calibrated, leak-free protocol and of the published one, side by side. What
    is finished is not run again. Predictions are stored; 'invad benchmark rescore' can measure them anew.
    """
    voice = Voice(json)
    output = output or Path(f"benchmark_{root.absolute().name}_{setting.value}")
    with (
        ending_when_interrupted(lambda: "interrupted; repeat the command to continue"),
        observing(voice.err) as observer,
    ):
        from invad.evaluation.benchmark import Plan
        from invad.evaluation.benchmark import run as measure

        plan = Plan(
            root=root,
            layout=dataset,
            split=split,
            setting=setting.value,
            categories=split_names(categories),
            preset=preset,
            backbone=backbone,
            weights=weights,
            seeds=seed_numbers(seeds),
            steps=steps,
            definitions=split_names(metrics) or (),
            strict=strict,
            device=device,
            keep_models=keep_models,
        )
        result = measure(plan, output, observer)
    _show(voice, result)
    voice.say(f"Tables: {output / 'benchmark'}.html, .md, .csv, .json")
    voice.hand_over({**result, "output": str(output)})
    if result["failed"]:
        unit, error = next(iter(result["failed"].items()))
        raise DataError(f"{len(result['failed'])} failed, the first {unit}: {error}")


def rescore(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS", help="Output folder of 'invad benchmark run', or one of its .npz files."
        ),
    ],
    metrics: MetricsOption = "exact",
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the tables as four files into this folder.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Measure the stored predictions of a benchmark by other metric definitions, without the model."""
    voice = Voice(json)
    from invad.evaluation.results import rescore as measure
    from invad.evaluation.tables import write_outputs
    from invad.system.files import make_folder

    result = measure(predictions, split_names(metrics) or ())
    if output is not None:
        make_folder(output)
        voice.attempt(lambda: write_outputs(output, result))
    _show(voice, result)
    if output is not None:
        voice.say(f"Tables: {output / 'benchmark'}.html, .md, .csv, .json")
    voice.hand_over({**result, "output": None if output is None else str(output)})


def _show(voice: Voice, result: Mapping[str, Any]) -> None:
    from invad.evaluation.tables import category_tables, cost_table, overview, published_tables, terminal

    tables = [*category_tables(result), *published_tables(result)]
    tables += [cost_table(result), overview(result)] if result["rows"] else []
    for table in tables:
        voice.say(table.title)
        voice.table(terminal(table))
        for source in table.sources:
            voice.say(source)
        voice.say("")
    voice.warn(*result["notes"])
