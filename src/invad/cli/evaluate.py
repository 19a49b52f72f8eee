"""invad evaluate"""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invad.cli.options import (
    CategoriesOption,
    DeviceOption,
    JsonOption,
    LayoutOption,
    ModelArgument,
    SplitOption,
    StrictOption,
    split_names,
    written_file,
)
from invad.cli.progress import observing
from invad.cli.voice import Voice

if TYPE_CHECKING:
    from invad.detector.detector import Detector
    from invad.evaluation.evaluate import Evaluation

COLUMNS = {
    "image_auroc": "AUROC",
    "image_ap": "AP",
    "image_f1max": "F1-max",
    "pixel_auroc": "px AUROC",
    "pixel_ap": "px AP",
    "pixel_f1max": "px F1-max",
    "pixel_aupro": "AUPRO",
    "mad": "mAD",
    "false_alarm_rate": "false alarms",
}


class Protocol(str, Enum):
    """Which score is measured, see `invad.evaluation.evaluate`."""

    calibrated = "calibrated"
    paper = "paper"


def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder with good and defective images: test/good and test/<defect>, or good and <defect>; "
            "masks in ground_truth/<defect>.",
        ),
    ],
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="calibrated: the score that decides. paper: the published score, scaled over the whole test "
            "set, only to compare with publications."
        ),
    ] = Protocol.calibrated,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=written_file, help="Write a self-contained HTML report."),
    ] = None,
    categories: CategoriesOption = None,
    pooled: Annotated[
        bool,
        typer.Option("--pooled", help="Judge all by the limits over all categories, as without a label."),
    ] = False,
    device: DeviceOption = None,
    json: JsonOption = None,
    layout: LayoutOption = "auto",
    split: SplitOption = None,
    strict: StrictOption = False,
) -> None:
    """Measure a model on images whose defects are known: detection, localisation, false alarms, speed."""
    voice = Voice(json)
    with observing(voice.err) as observer:
        from invad.data.datasets import not_taken, read_dataset, selected
        from invad.detector.detector import Detector
        from invad.evaluation.evaluate import evaluate as measure

        detector = Detector.load(model, device=device)
        whole = read_dataset(data, layout=layout, split=split)
        for line in not_taken(whole):
            observer.note(line)
        evaluation = measure(
            detector,
            selected(whole, split_names(categories)),
            protocol=protocol.value,
            pooled=pooled,
            strict=strict,
            observer=observer,
        )
        written = None
        if report is not None and voice.attempt(lambda: _report(report, model, data, detector, evaluation)):
            written = report
    metrics = evaluation.metrics
    voice.table(rows(metrics))
    voice.say(*false_alarm_lines(metrics), f"{metrics['images_per_second']:.1f} images per second")
    voice.warn(*metrics["warnings"])
    if metrics["without_own_limits"]:
        names = ", ".join(metrics["without_own_limits"])
        voice.warn(f"the model has no limits of {names}: judged by those over all categories")
    if written is not None:
        voice.say(f"Report: {written}")
    named = {"model": str(model), "data": str(data), "report": None if written is None else str(written)}
    voice.hand_over({**metrics, **named})


def _report(path: Path, model: Path, data: Path, detector: "Detector", evaluation: "Evaluation") -> None:
    from invad.evaluation.evaluate import describe
    from invad.report import write_report

    notes = list(evaluation.metrics["warnings"])
    if evaluation.metrics["protocol"] == Protocol.paper.value:
        notes.append(
            "Scores follow the published protocol, which scales them over this whole test set, and heat maps "
            "are coloured after its good images; decisions and p-values are those of the calibrated score."
        )
    write_report(
        path,
        title=f"{data.absolute().name} judged by {model.absolute().name}",
        scored=evaluation.scored,
        metrics=evaluation.metrics,
        map_limits=evaluation.map_limits,
        facts={"images": str(data), "model folder": str(model), **describe(detector, evaluation)},
        notes=notes,
    )


def rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """The metrics as a table: one line per category, and their mean when there are several."""
    lines = {**metrics["categories"], **({"mean": metrics} if len(metrics["categories"]) > 1 else {})}
    head = ["", "good", "defective", *COLUMNS.values()]
    body = [
        [name, str(row["n_normal"]), str(row["n_anomalous"]), *(_figure(row[key]) for key in COLUMNS)]
        for name, row in lines.items()
    ]
    return [head, *body]


def false_alarm_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Realised false alarms beside the rate asked, in words."""
    if not metrics["n_normal"]:
        return ["No good images were tested, so false alarms cannot be counted."]
    said = {"review": "sent to review or called bad", "bad": "called bad"}
    return [
        f"{row['count']} of {metrics['n_normal']} good images {said[name]}: {row['realised']:.1%}; asked "
        f"{row['asked']:.1%}, which is {row['expected_count_95'][0]} to {row['expected_count_95'][1]} images"
        for name, row in metrics["false_alarms"].items()
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
