"""invad evaluate"""

from collections.abc import Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invad.cli.defects import DefectTable, scale_of, take_min_area
from invad.cli.options import (
    CategoriesOption,
    DefectsOption,
    DeviceOption,
    HomographyOption,
    JsonOption,
    LayoutOption,
    MinAreaOption,
    ModelArgument,
    RuleOption,
    ScaleOption,
    SplitOption,
    StrictOption,
    split_names,
    written_file,
)
from invad.cli.progress import observing
from invad.cli.rows import FIELDS, RowFile, csv_form
from invad.cli.voice import Voice
from invad.errors import ConfigError
from invad.report.wording import counted

if TYPE_CHECKING:
    from invad.detector.opening import Trained
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
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=written_file,
            help="Write a row for each image, with its label, which 'invad compare' puts beside another.",
        ),
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
    parts: RuleOption = None,
    defects: DefectsOption = None,
    scale: ScaleOption = None,
    homography: HomographyOption = None,
    min_area: MinAreaOption = None,
) -> None:
    """Measure a model on images whose defects are known: detection, localisation, false alarms, speed."""
    voice = Voice(json, csv)
    if defects is None and (scale, homography) != (None, None):
        raise ConfigError("--scale and --homography measure the table of --defects FILE, which is missing")
    if defects is not None and (
        protocol != Protocol.calibrated or defects in (report, csv, json and Path(json))
    ):
        raise ConfigError(f"--defects {defects}: goes with --protocol calibrated and into a file of its own")
    lengths = scale_of(scale, homography)
    head = {"model": str(model), "data": str(data)}
    table = None if defects is None else DefectTable(defects, lengths, head, videos=False)
    with observing(voice.err) as observer:
        from invad.data.datasets import not_taken, read_dataset, selected
        from invad.data.members import Rule, split_by_part
        from invad.detector.opening import open_model
        from invad.evaluation.evaluate import evaluate as measure
        from invad.runtime.parts import rule_of

        detector = open_model(model, device)
        take_min_area(detector, min_area)
        whole = read_dataset(data, layout=layout, split=split)
        for line in not_taken(whole):
            observer.note(line)
        chosen = selected(whole, split_names(categories))
        if parts is not None and rule_of(detector.fusion, parts) is not None:
            chosen = split_by_part(chosen, Rule.parse(parts))
        evaluation = measure(
            detector,
            chosen,
            protocol=protocol.value,
            pooled=pooled,
            strict=strict,
            observer=observer,
            scale=lengths,
        )
        if table is not None:
            voice.attempt(lambda: _table(table, evaluation))
        if csv is not None:
            voice.attempt(lambda: _rows(csv, evaluation))
        written = None
        if report is not None and voice.attempt(lambda: _report(report, model, data, detector, evaluation)):
            written = report
    metrics = evaluation.metrics
    voice.table(rows(metrics))
    of_parts = metrics.get("parts")
    said = false_alarm_lines(metrics) if of_parts is None else part_lines(of_parts)
    voice.say(*said, f"{metrics['images_per_second']:.1f} images per second")
    voice.warn(*metrics["warnings"])
    if metrics["without_own_limits"]:
        names = ", ".join(metrics["without_own_limits"])
        voice.warn(f"the model has no limits of {names}: judged by those over all categories")
    if written is not None:
        voice.say(f"Report: {written}")
    named = {
        "model": str(model),
        "content_hash": detector.content_hash,
        "data": str(data),
        "report": None if written is None else str(written),
    }
    voice.hand_over({**metrics, **named})


def _table(table: DefectTable, evaluation: "Evaluation") -> None:
    from invad.data.samples import read_sample

    file = table.file()
    for one, found in zip(evaluation.scored, evaluation.defects, strict=True):
        row = {"path": str(one.sample.path), "decision": one.decision}
        file.add(row | table.row(found, partial(read_sample, one.sample)))
    for skipped in evaluation.metrics["skipped"]:
        file.add({"path": skipped, "decision": None, "error": "skipped as unreadable"})
    file.close(whole=True)


def _rows(path: Path, evaluation: "Evaluation") -> None:
    file = RowFile(str(path), csv_form((*FIELDS, "label")))
    for part in evaluation.parts:
        said = {"score": part.score, "p_value": part.p_value, "decision": part.decision}
        file.add({"path": part.part, **said, "label": part.defect})
    for one in () if evaluation.parts else evaluation.scored:
        said = {"score": one.score, "p_value": one.p_value, "decision": one.decision}
        file.add({"path": str(one.sample.path), **said, "label": one.sample.defect})
    for skipped in evaluation.metrics["skipped"]:
        file.add({"path": skipped, "error": "skipped as unreadable"})
    file.close(whole=True)


def _report(path: Path, model: Path, data: Path, detector: "Trained", evaluation: "Evaluation") -> None:
    from invad.evaluation.told import describe, with_parts_as_images
    from invad.report import write_report

    notes = list(evaluation.metrics["warnings"])
    if evaluation.metrics["protocol"] == Protocol.paper.value:
        notes.append(
            "Scores follow the published protocol, which scales them over this whole test set, and heat maps "
            "are coloured after its good images; decisions and p-values are those of the calibrated score."
        )
    if evaluation.parts and detector.fusion is not None:
        seen, *others = part_lines(evaluation.metrics["parts"])[len(evaluation.metrics["false_alarms"]) :]
        notes = [
            f"An image here is a part, judged by {', '.join(detector.fusion.members)}, and shown by the one "
            "of them that lies highest above its normals.",
            seen,
            *others,
            *notes,
        ]
        evaluation = with_parts_as_images(evaluation, detector.fusion)
    write_report(
        path,
        title=f"{data.absolute().name} judged by {model.absolute().name}",
        scored=evaluation.scored,
        metrics=evaluation.metrics,
        map_limits=evaluation.map_limits,
        facts={"images": str(data), "model folder": str(model), **describe(detector, evaluation)},
        notes=notes,
        defects=evaluation.defects,
        sizes_hw=evaluation.sizes_hw,
    )


def rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """The metrics as a table: one line per category, and their mean when there are several."""
    lines = {**metrics["categories"], **({"mean": metrics} if len(metrics["categories"]) > 1 else {})}
    if "parts" in metrics:
        lines = {"parts": metrics["parts"], **lines}
    head = ["", "good", "defective", *COLUMNS.values()]
    body = [
        [name, str(row["n_normal"]), str(row["n_anomalous"]), *(_figure(row.get(key)) for key in COLUMNS)]
        for name, row in lines.items()
    ]
    return [head, *body]


def part_lines(metrics: Mapping[str, Any]) -> list[str]:
    """False alarms of parts, and which pictures show the defects."""
    seen = ", ".join(f"{count} in {member}" for member, count in metrics["seen_by"].items())
    lines = [*false_alarm_lines(metrics, "parts"), f"Defects that were found show most: {seen}."]
    if metrics["incomplete"]:
        number, first = len(metrics["incomplete"]), metrics["incomplete"][0]
        lack = "1 part lacks" if number == 1 else f"{number} parts lack"
        lines.append(f"{lack} a picture, the first {first}: never good, and no false alarm.")
    return lines


def false_alarm_lines(metrics: Mapping[str, Any], what: str = "images") -> list[str]:
    """Realised false alarms beside the rate asked, in words."""
    if not metrics["n_normal"]:
        return [f"No good {what} were tested, so false alarms cannot be counted."]
    said = {"review": "sent to review or called bad", "bad": "called bad"}
    good = counted(metrics["n_normal"], f"good {what.removesuffix('s')}")
    return [
        f"{row['count']} of {good} {said[name]}: {row['realised']:.1%}; asked "
        f"{row['asked']:.1%}, which is {row['expected_count_95'][0]} to {row['expected_count_95'][1]} {what}"
        for name, row in metrics["false_alarms"].items()
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
