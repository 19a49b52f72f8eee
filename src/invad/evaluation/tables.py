"""The tables of a benchmark as text, JSON, CSV, Markdown and HTML. Nothing is measured here."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invad.evaluation.machine import in_words
from invad.report.rendering import environment
from invad.report.wording import METRICS, MISSING, NO_BREAK, number
from invad.system.files import write_all

Result = Mapping[str, Any]
Figure = Sequence[float | None] | None
"""Mean and standard deviation over seeds (None for one seed); None where undefined."""

SHORT = {
    "image_auroc": "AUROC",
    "image_ap": "AP",
    "image_f1max": "F1-max",
    "pixel_auroc": "px AUROC",
    "pixel_ap": "px AP",
    "pixel_f1max": "px F1-max",
    "pixel_aupro": "AUPRO",
    "mad": "mAD",
    "sample_auroc": "object AUROC",
    "sample_ap": "object AP",
    "sample_f1max": "object F1-max",
    "false_alarm_rate": "false alarms",
    "images_per_second": "images/s",
    "peak_memory_mb": "peak MB",
}
COSTS = ("false_alarm_rate", "images_per_second", "peak_memory_mb")
"""Of the model alone: the same whatever the protocol and the metric definition."""

SETTINGS = {"unified": "one model for all categories", "single": "one model for each category"}
MODELS = {"unified": "one", "single": "one each"}
"""The settings in a cell."""
INTERVALS, ENDS = ("image_auroc", "image_ap", "image_f1max"), ("low", "high")
ROW_HEAD = ("category", "seed", "protocol", "definition", "n_normal", "n_anomalous", "n_masked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """head: names of the columns after the first; rows: name and cells. note: what it is in a sentence.

    sources: of the figures that are not ours.
    """

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    sources: Sequence[str] = ()


def write_outputs(folder: Path, result: Result) -> None:
    """Write `benchmark.json`, `.csv`, `.md` and `.html`, each complete or not at all.

    Raises DataError naming those that cannot be written; the others are.
    """
    contents = {
        "json": json.dumps(result, indent=1, allow_nan=False) + "\n",
        "csv": as_csv(result),
        "md": as_markdown(result),
        "html": as_html(result),
    }
    write_all(
        {folder / f"benchmark.{end}": text.encode("utf-8", "replace") for end, text in contents.items()}
    )


def all_tables(result: Result) -> list[Table]:
    """In the order to read them; none as long as nothing is finished."""
    if not result["rows"]:
        return []
    tables = [overview(result), *category_tables(result), *published_tables(result)]
    return [*tables, cost_table(result), interval_table(result)]


def terminal(table: Table) -> list[list[str]]:
    """Head and rows as equal lists of words."""
    return [["", *table.head], *([name, *cells] for name, cells in table.rows)]


def overview(result: Result) -> Table:
    """Means over the categories: a line for each protocol and definition, so that they stand side by side."""
    keys = _keys(result)
    return Table(
        title=f"Means over the categories ({len(result['run']['categories'])})",
        note="Each protocol under each metric definition.",
        head=[SHORT[key] for key in keys],
        rows=[
            (f"{protocol}, {definition}", [cell(key, table["mean"].get(key)) for key in keys])
            for protocol, tables in result["summary"].items()
            for definition, table in tables.items()
        ],
    )


def category_tables(result: Result) -> list[Table]:
    """One table for each protocol and definition: a line per category and their mean."""
    return [
        Table(
            title=f"Protocol {protocol}, metrics {definition}",
            note=f"{result['protocols'][protocol]} Metrics: {result['definitions'][definition]['summary']}",
            head=["good", "defective", *(SHORT[key] for key in _keys(result))],
            rows=list(_category_rows(summary, _keys(result))),
        )
        for protocol, by_definition in result["summary"].items()
        for definition, summary in by_definition.items()
    ]


def _category_rows(summary: Mapping[str, Any], keys: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    lines = [*summary["categories"].items()]
    if len(lines) > 1:
        lines.append(("mean", summary["mean"]))
    for name, figures in lines:
        counts = [str(figures[key]) for key in ("n_normal", "n_anomalous")]
        yield name, [*counts, *(cell(key, figures.get(key)) for key in keys)]


def published_tables(result: Result) -> list[Table]:
    """What others published, beside ours: a table for each definition that computes one of their figures."""
    tables = []
    for definition in result["definitions"]:
        theirs = [told for told in result["published"] if definition in told["figures"]]
        if theirs:
            tables.append(
                Table(
                    title=f"Beside published figures, metrics {definition}",
                    note=f"Figures for {theirs[0]['set']} that others published and we did not measure. Only "
                    "metrics that they computed alike; a dash: none known.",
                    head=[*(SHORT[key] for key in _keys(result)), "models", "input"],
                    rows=list(_beside_rows(result, definition, theirs)),
                    sources=list(dict.fromkeys(map(_source, theirs))),
                )
            )
    return tables


def _beside_rows(
    result: Result, definition: str, theirs: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, list[str]]]:
    """For each category that has published figures, and for the mean: ours by each protocol, then theirs."""
    keys = _keys(result)
    for category in dict.fromkeys(told["category"] for told in theirs):
        for protocol, by_definition in result["summary"].items():
            summary = by_definition[definition]
            ours = summary["categories"].get(category, summary["mean"])
            cells = [cell(key, ours.get(key)) for key in keys]
            yield f"{category}: ours, {protocol}", [*cells, MODELS[result["run"]["setting"]], "of the preset"]
        for told in theirs:
            if told["category"] == category:
                figures = told["figures"][definition]
                cells = [cell(key, [figures[key]]) if key in figures else MISSING for key in keys]
                yield f"{category}: {told['method']}", [*cells, MODELS[told["setting"]], told["size"]]


def _source(told: Mapping[str, Any]) -> str:
    """A publication, in one or two sentences."""
    note = f" {told['note']}" if told["note"] else ""
    return f"{told['method']} ({SETTINGS[told['setting']]}): {told['source']}.{note}"


def cost_table(result: Result) -> Table:
    """What does not depend on the definition: false alarms realised, speed and memory of each category."""
    summary = next(iter(next(iter(result["summary"].values())).values()))
    asked = result["rows"][0]["false_alarms"]["review"]["asked"]
    return Table(
        title="False alarms and cost",
        note="False alarms: share of good test images that the calibrated score did not pass; asked "
        f"{asked:.1%}. Speed: one image after the other, decoding included. Memory: the largest of the "
        "process while testing, or that of the GPU.",
        head=["good", "defective", *(SHORT[key] for key in COSTS)],
        rows=list(_category_rows(summary, COSTS)),
    )


def interval_table(result: Result) -> Table:
    """The image metrics of each row with their bootstrap intervals."""
    rows = [
        (
            f"{row['category']}, seed {row['seed']}, {row['protocol']}, {row['definition']}",
            [_interval(row, key) for key in INTERVALS],
        )
        for row in result["rows"]
    ]
    return Table(
        title="Intervals of the image metrics",
        note="95 % percentile bootstrap over the test images of a category, 1,000 resamples within the good "
        "and the defective ones. It covers the choice of test images, not of training images or seeds.",
        head=[SHORT[key] for key in INTERVALS],
        rows=rows,
    )


def _interval(row: Mapping[str, Any], key: str) -> str:
    if row[key] is None or key not in row["image_95"]:
        return MISSING if row[key] is None else cell(key, [row[key]])
    low, high = row["image_95"][key]
    return f"{row[key]:.4f}{NO_BREAK}[{low:.3f},{NO_BREAK}{high:.3f}]"


def cell(key: str, figure: Figure) -> str:
    """`0.9876`, `0.9876 ± 0.0012` over seeds, a dash where undefined."""
    if figure is None:
        return MISSING
    known = [value for value in figure if value is not None]
    write = number if key in COSTS[1:] else "{:.4f}".format
    return f"{NO_BREAK}±{NO_BREAK}".join(map(write, known))


def as_csv(result: Result) -> str:
    """One line for each category, seed, protocol and definition, in full precision.

    Published figures follow, with their method as protocol and a source, which ours are without.
    """
    keys = [key for key in SHORT if any(key in row for row in result["rows"])]
    bounds = [f"{key}_95_{end}" for key in INTERVALS for end in ENDS]
    text = io.StringIO(newline="")
    names = [*ROW_HEAD, *keys, *bounds, "undefined", "source"]
    writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in result["rows"]:
        ends = {
            f"{key}_95_{end}": value
            for key, interval in row["image_95"].items()
            for end, value in zip(ENDS, interval, strict=True)
        }
        undefined = "; ".join(f"{key}: {reason}" for key, reason in row["undefined"].items())
        writer.writerow({**row, **ends, "undefined": undefined})
    for told in result["published"]:
        for definition, figures in told["figures"].items():
            line = {"category": told["category"], "protocol": f"published: {told['method']}"}
            writer.writerow({**line, "definition": definition, **figures, "source": _source(told)})
    return text.getvalue()


def as_markdown(result: Result) -> str:
    """All tables, the notes and the definitions."""
    parts = [f"# {title(result)}", facts_line(result), *(f"- {note}" for note in result["notes"])]
    for table in all_tables(result):
        parts += [f"## {table.title}", table.note, _markdown(["", *table.head], table.rows)]
        parts += ["\n".join(f"- {source}" for source in table.sources)] if table.sources else []
    parts += ["## What was measured", *(f"- {name}: {told}" for name, told in result["protocols"].items())]
    names = list(result["definitions"])
    if names:
        aspects = [(a, [result["definitions"][n][a] for n in names]) for a in result["definitions"][names[0]]]
        parts.append(_markdown(["metrics", *names], aspects))
    return "\n\n".join(parts) + "\n"


def _markdown(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *([name, *cells] for name, cells in rows)]
    return "\n".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in line)} |" for line in lines)


def as_html(result: Result) -> str:
    """A self-contained page in the style of the evaluation report."""
    return (
        environment()
        .get_template("benchmark.html.j2")
        .render(
            title=title(result),
            facts=facts(result),
            notes=result["notes"],
            headline=_headline(result),
            overview=overview(result),
            tables=[*category_tables(result), *published_tables(result)] if result["rows"] else [],
            costs=cost_table(result) if result["rows"] else None,
            intervals=interval_table(result),
            protocols=result["protocols"],
            definitions=result["definitions"],
            meanings=[METRICS[key] for key in _keys(result) if key in METRICS],
            seeds=result["run"]["seeds"],
        )
    )


def title(result: Result) -> str:
    return f"Benchmark of {result['run']['data']}, {result['run']['setting']} setting"


def facts(result: Result) -> dict[str, str]:
    """What was run, in words."""
    run = result["run"]
    return {
        "data set": f"{run['data']}, read as {run.get('read_as', run['layout'])}",
        "setting": "one model for all categories"
        if run["setting"] == "unified"
        else "one model for each category",
        "categories": ", ".join(run["categories"]) or "none finished",
        "seeds": ", ".join(map(str, run["seeds"])) or "none finished",
        "preset": run["preset"] + (f", {run['steps']} steps" if run["steps"] else ""),
        "backbone": run["backbone"] or "of the preset",
        "finished": f"{run['finished']} of {run['expected']}",
        "machine": f"{in_words(run['machine'])}, {run['machine']['date']}",
        "invad": run["machine"]["versions"]["invad"],
    }


def facts_line(result: Result) -> str:
    return "; ".join(f"{name}: {value}" for name, value in facts(result).items()) + "."


def _headline(result: Result) -> list[tuple[str, str, str]]:
    """(big figure, what it is, small print) of the tiles: the first protocol under the first definition."""
    for protocol, by_definition in result["summary"].items():
        for definition, summary in by_definition.items():
            mean, small = summary["mean"], f"protocol {protocol}, metrics {definition}"
            tiles = [
                (cell(k, mean[k]), f"mean {SHORT[k]}", small) for k in ("image_auroc", "pixel_aupro", "mad")
            ]
            speed = cell("images_per_second", mean["images_per_second"])
            return [*tiles, (speed, "images per second", "one after the other, decoding included")]
    return []


def _keys(result: Result) -> list[str]:
    """The columns: the seven and mAD always, those of objects where there are some."""
    measured = {
        key
        for by_definition in result["summary"].values()
        for table in by_definition.values()
        for key, figure in table["mean"].items()
        if figure is not None
    }
    return [key for key in SHORT if key not in COSTS and (key in measured or not key.startswith("sample"))]
