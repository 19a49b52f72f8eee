"""What a benchmark found, from its prediction files: rows, means, and what has to be said beside them."""

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invad.errors import DataError
from invad.evaluation.beside import beside
from invad.evaluation.definitions import DEFINITIONS, definitions_named
from invad.evaluation.predictions import Predictions, read_predictions
from invad.evaluation.rows import SAMPLE_METRICS, Row, row_of
from invad.metrics.exact import SEVEN_METRICS, mean_over_categories
from invad.system.digests import file_sha256
from invad.system.files import is_file, is_folder, write_atomically
from invad.system.plain import read_plain, to_plain
from invad.system.version import __version__

PREDICTIONS, ROWS = "predictions", "rows"
"""Folders of a benchmark: a prediction file and the rows made from it, for each category and seed."""

COSTS = ("images_per_second", "peak_memory_mb")
FIGURES = (*SEVEN_METRICS, "mad", *SAMPLE_METRICS, "false_alarm_rate", *COSTS)
"""What the tables give per category and as a mean."""

PROTOCOL_NOTES = {
    "calibrated": "Leak-free: the score that decides, of each image by itself, calibrated on held-out normal "
    "images.",
    "paper": "As published: two readings of the inverted latent, each scaled over the labelled test set of "
    "the category. Only to compare with publications; the decisions stay those of the calibrated score.",
}


def rescore(path: str | Path, definitions: Sequence[str] = ("exact",)) -> dict[str, Any]:
    """Measure stored predictions anew, without the model and the images; see `result`.

    path: the output folder of a benchmark, a folder of prediction files or one file. Raises DataError when
    there is none or when they are of different runs, ConfigError for an unknown definition.
    """
    definitions_named(definitions)
    files = prediction_files(Path(path))
    rows: list[Row] = []
    runs: dict[str, Path] = {}
    for file in files:
        predictions = read_predictions(file)
        # Older files do not say as what the set was read.
        run = {key: value for key, value in predictions.meta["run"].items() if key != "read_as"}
        runs.setdefault(json.dumps(run, sort_keys=True), file)
        if len(runs) > 1:
            first, second = runs.values()
            raise DataError(f"{second}: of another run than {first}; measure each folder by itself")
        rows += rows_of(predictions, definitions)
    return result(rows, {**predictions.meta["run"], "machine": predictions.meta["machine"]}, len(files))


def prediction_files(path: Path) -> list[Path]:
    """The prediction files of a benchmark's folder, or the one named. Raises DataError without one."""
    if is_file(path):
        return [path]
    folder = path / PREDICTIONS if is_folder(path / PREDICTIONS) else path
    files = sorted(folder.glob("*.npz"))
    if not files:
        what = "no prediction files (*.npz) in it" if is_folder(folder) else "no such file or folder"
        raise DataError(f"{path}: {what}; give the output folder of 'invad benchmark run'")
    return files


def rows_of(predictions: Predictions, definitions: Iterable[str]) -> list[Row]:
    """A row for each protocol of the file and each definition."""
    return [row_of(predictions, protocol, name) for protocol in predictions.scores for name in definitions]


@dataclass(frozen=True, slots=True)
class _Kept:
    """Rows by metric definition, by which invad, and from a prediction file of which digest."""

    invad: str
    predictions: str
    rows: dict[str, tuple[Row, ...]]


def rows_of_file(file: Path, cache: Path, definitions: Sequence[str]) -> list[Row]:
    """The same of a file, kept in `cache` for as long as the file stays what it is."""
    digest = file_sha256(file)
    known: dict[str, tuple[Row, ...]] = {}
    with suppress(DataError):
        kept = read_plain(_Kept, cache, DataError, "")
        known = kept.rows if (kept.invad, kept.predictions) == (__version__, digest) else {}
    missing = [name for name in definitions if name not in known]
    if missing:
        predictions = read_predictions(file)
        known |= {name: tuple(rows_of(predictions, [name])) for name in missing}
        text = json.dumps(to_plain(_Kept(__version__, digest, known)), indent=1, allow_nan=False)
        with suppress(DataError, OSError):  # it spares work, no more
            cache.parent.mkdir(exist_ok=True)
            write_atomically(cache, text.encode())
    # By protocol first, as `rows_of` has them.
    return [row for rows in zip(*(known[name] for name in definitions), strict=True) for row in rows]


def result(
    rows: Sequence[Row], run: Mapping[str, Any], expected: int, failed: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Plain data: run, protocols and definitions in words, summary, notes, rows, published figures.

    run: what was run, as in the prediction files. expected: number of categories times seeds asked for;
    failed: error by category and seed.
    """
    done = {(row["category"], row["seed"]) for row in rows}
    others = beside(run, rows)
    return {
        "run": {
            **run,
            "categories": sorted({category for category, _ in done}),
            "seeds": sorted({seed for _, seed in done}),
            "finished": len(done),
            "expected": expected,
        },
        "failed": dict(failed or {}),
        "protocols": {name: PROTOCOL_NOTES[name] for name in dict.fromkeys(r["protocol"] for r in rows)},
        "definitions": {
            name: {"summary": DEFINITIONS[name].summary, **DEFINITIONS[name].told}
            for name in dict.fromkeys(r["definition"] for r in rows)
        },
        "notes": notes(rows, expected - len(done), failed or {}) + others.notes,
        "summary": summary(rows),
        "rows": list(rows),
        "published": others.figures,
    }


def summary(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, Any]]]:
    """protocol -> definition -> {"categories": name -> figures, "mean": figures}.

    Figures: name of a metric -> [mean over seeds, standard deviation over seeds or None]; None where it is
    undefined. The mean is taken within a seed over the categories that define a metric, mAD from the averaged
    seven, and the peak memory is the largest.
    """
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for protocol, definition in dict.fromkeys((r["protocol"], r["definition"]) for r in rows):
        own = [r for r in rows if (r["protocol"], r["definition"]) == (protocol, definition)]
        categories = {
            name: _over_seeds([r for r in own if r["category"] == name])
            for name in sorted({r["category"] for r in own})
        }
        seeds = sorted({r["seed"] for r in own})
        means = [mean_row([r for r in own if r["seed"] == seed]) for seed in seeds]
        tables.setdefault(protocol, {})[definition] = {"categories": categories, "mean": _over_seeds(means)}
    return tables


def mean_row(rows: Sequence[Row]) -> dict[str, Any]:
    """The mean over categories of one seed."""
    seven = mean_over_categories(rows)
    mean: dict[str, Any] = {**seven, "mad": seven["mean_ad"]}
    del mean["mean_ad"]
    for key in FIGURES[len(SEVEN_METRICS) + 1 :]:
        values = [row[key] for row in rows if row.get(key) is not None]
        middle = max if key == "peak_memory_mb" else statistics.fmean
        mean[key] = middle(values) if values else None
    return mean | {key: sum(row[key] for row in rows) for key in ("n_normal", "n_anomalous")}


def notes(rows: Sequence[Row], missing: int, failed: Mapping[str, str]) -> list[str]:
    """What a reader of the tables must know: what is missing, undefined or left out, and why."""
    told = [f"{unit} failed: {error}" for unit, error in failed.items()]
    if missing:
        told.append(f"Unfinished: {missing} of the categories and seeds asked for are not in these tables.")
    groups: dict[str, list[str]] = {}
    for category in sorted({row["category"] for row in rows}):
        for gap in _gaps([row for row in rows if row["category"] == category]):
            groups.setdefault(gap, []).append(category)
    told += [f"{', '.join(categories)}: {gap}" for gap, categories in groups.items()]
    if groups:
        told.append(
            f"A mean is over the categories that define the metric ({_defined(rows)}); mAD is the mean of "
            "the seven means."
        )
    told += _unmarked(rows)
    machines = sorted({row["measured_on"] for row in rows if row.get("measured_on")})
    if len(machines) > 1:
        told.append(f"Speed and memory were measured on several machines: {'; '.join(machines)}.")
    pooled = sorted({row["category"] for row in rows if row.get("pooled_limits")})
    if pooled:
        told.append(f"{', '.join(pooled)}: without limits of its own, judged by those over all categories.")
    skipped = {(row["category"], path) for row in rows for path in row.get("skipped") or ()}
    told += [f"{category}: not read and left out: {path}" for category, path in sorted(skipped)]
    return told


def _unmarked(rows: Sequence[Row]) -> Iterator[str]:
    """What figures of pixels leave out, and intervals that promise too much."""
    for category in sorted({row["category"] for row in rows}):
        own = [row for row in rows if row["category"] == category]
        masked, defective = own[0]["n_masked"], own[0]["n_anomalous"]
        if 0 < masked < defective:
            yield (
                f"{category}: figures of pixels are of {masked} of {defective} defective images; the others "
                "have no mask that could be read."
            )
        lost = {row["definition"]: row["n_vanished"] for row in own if row.get("n_vanished")}
        if masked and lost:
            by = ", ".join(f"{number} by {name}" for name, number in lost.items())
            yield (
                f"{category}: of {masked} masks some have no pixel left in the frame of a definition ({by}), "
                "so what they mark counts in no figure of pixels."
            )
    views = sorted({row["category"] for row in rows if row.get("n_samples")})
    if views:
        yield (
            f"{', '.join(views)}: the 95 % intervals take the views of an object as independent images, so "
            "they are too narrow."
        )


def _gaps(rows: Sequence[Row]) -> Iterator[str]:
    """Which metrics the rows of a category leave undefined, why, and by which definitions unless by all."""
    every = dict.fromkeys(row["definition"] for row in rows)
    reasons: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, reason in row["undefined"].items():
            if name != "mad":
                reasons.setdefault(reason, {})[name] = None
    for reason, names in reasons.items():
        saying = dict.fromkeys(r["definition"] for r in rows if names.keys() & r["undefined"].keys())
        which = "" if len(saying) == len(every) else f" by the definition {', '.join(saying)}"
        yield f"{reason}, so no {', '.join(names)}{which}"


def _defined(rows: Sequence[Row]) -> str:
    """`image_auroc, image_ap: 2 of 3`: how many categories define the metrics that not all of them do."""
    every = {row["category"] for row in rows}
    counts: dict[int, list[str]] = {}
    for name in FIGURES:
        lacking = {row["category"] for row in rows if name in row["undefined"] and name != "mad"}
        if lacking:
            counts.setdefault(len(every) - len(lacking), []).append(name)
    return "; ".join(f"{', '.join(names)}: {n} of {len(every)}" for n, names in counts.items())


def _over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {key: rows[0][key] for key in ("n_normal", "n_anomalous")}
    for key in FIGURES:
        values = [row[key] for row in rows if row.get(key) is not None]
        spread = statistics.stdev(values) if len(values) > 1 else None
        figures[key] = [statistics.fmean(values), spread] if values else None
    return figures
