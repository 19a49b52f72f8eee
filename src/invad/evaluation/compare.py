"""Two results side by side: two models on the same parts, or two lots under one model.

Parts are matched by path, those of several pictures by their name in the folder of the first picture (see
`invad.evaluation.matching`). Where both judged the same parts, each part is its own control: of decisions
that differ, as many should go either way (McNemar 1947, in its exact form). Lots without a part in common are
two samples, whose shares are compared by Fisher's exact test.
"""

import csv
import json
import math
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from scipy.stats import binomtest, fisher_exact

from invad.errors import DataError, reason
from invad.evaluation.matching import Match, match
from invad.evaluation.predictions import read_predictions
from invad.evaluation.results import prediction_files
from invad.metrics.exact import auroc
from invad.records import GOOD, Decision
from invad.system.files import is_folder

DECISIONS: tuple[Decision, ...] = ("good", "review", "bad")
RESAMPLES = 1000
WROTE = "give what 'invad predict --csv' or '--json' or 'invad evaluate --csv' wrote, or a benchmark's folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A judged part. label: GOOD or its kind of defect, None where nobody has said.

    place: by what it is matched, the name where it is empty. members, of a part of several pictures: name and
    p-value of each; seen_by: the one that decided.
    """

    name: str
    score: float
    p_value: float
    decision: Decision
    label: str | None = None
    place: str = ""
    members: tuple[tuple[str, float], ...] = ()
    seen_by: str = ""

    @property
    def flagged(self) -> bool:
        return self.decision != "good"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What one run said. content_hash: of the model, None where the file does not tell. unjudged: parts that
    could not be read."""

    source: str
    rows: tuple[Row, ...]
    content_hash: str | None = None
    unjudged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """How often parts were flagged by both, by one alone, by none; p_value: of McNemar's exact test."""

    what: str
    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float

    @property
    def total(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaired:
    """Flagged parts of two lots; p_value: of Fisher's exact test, two-sided."""

    flagged_a: int
    total_a: int
    flagged_b: int
    total_b: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Image AUROC of both on the parts in common, and B's less A's. difference_95: percentile bootstrap over
    parts, drawn in pairs within the good and the defective ones."""

    a: float
    b: float
    difference_95: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """pairs: of the parts in common, in the order of A. tests: of all of them, or, where labels are there, of
    the good and of the defective ones. lots: instead, where no part is in both. match: by what parts were
    matched, or could have been."""

    a: Results
    b: Results
    pairs: tuple[tuple[Row, Row], ...]
    tests: tuple[Paired, ...]
    ranking: Ranking | None
    lots: Unpaired | None
    match: Match

    @property
    def changed(self) -> tuple[tuple[Row, Row], ...]:
        """Parts whose decision differs, those that change between good and bad first."""
        order = {name: number for number, name in enumerate(DECISIONS)}
        moved = [(x, y) for x, y in self.pairs if x.decision != y.decision]
        moved.sort(key=lambda pair: -abs(order[pair[0].decision] - order[pair[1].decision]))
        return tuple(moved)

    def counts(self) -> Counter[tuple[Decision, Decision]]:
        """Parts in common by (decision of A, decision of B)."""
        return Counter((x.decision, y.decision) for x, y in self.pairs)


def compare(
    a: Results | str | Path, b: Results | str | Path, *, same_parts: bool | None = None
) -> Comparison:
    """Compare two results, or the files that hold them (see `read_results`).

    same_parts: True where parts of equal names in other folders are the same ones, False where the two are
    lots whatever their names; None: a part is in both where its paths can be of one file. Raises DataError
    when a file cannot be read, has no judged part, or names a part twice, with True where no part is in
    both, and where one says of a part that it is good and the other that it is not.
    """
    first, second = (x if isinstance(x, Results) else read_results(Path(x)) for x in (a, b))
    places = [[row.place or row.name for row in one.rows] for one in (first, second)]
    found = Match() if same_parts is False else match(places[0], places[1], same_parts is True)
    pairs = tuple((first.rows[i], second.rows[j]) for i, j in found.pairs)
    for x, y in pairs:
        if None not in (x.label, y.label) and (x.label == GOOD) != (y.label == GOOD):
            raise DataError(f"{x.name}: is {x.label} in A and {y.label} in B; test both by the same labels")
    if same_parts and not pairs:
        raise DataError(_apart(first, second, found))
    lots = None
    if not pairs:
        counts = [(sum(r.flagged for r in one.rows), len(one.rows)) for one in (first, second)]
        table = [[flagged, total - flagged] for flagged, total in counts]
        lots = Unpaired(
            flagged_a=counts[0][0],
            total_a=counts[0][1],
            flagged_b=counts[1][0],
            total_b=counts[1][1],
            p_value=float(fisher_exact(table).pvalue),
        )
    return Comparison(
        a=first,
        b=second,
        pairs=pairs,
        tests=tuple(_tests(pairs)),
        ranking=_ranking(pairs),
        lots=lots,
        match=found,
    )


def _apart(a: Results, b: Results, found: Match) -> str:
    if found.exchange is not None and found.rival is not None:
        (x, y), (u, v) = found.exchange.words, found.rival.words
        return (
            f"{a.source} and {b.source}: names fit equally well with {x} in A for {y} in B as with {u} for "
            f"{v}; judge the same folder for both"
        )
    x, y = (one.rows[0].place or one.rows[0].name for one in (a, b))
    return f"{a.source} and {b.source} have no part in common: one names {x}, the other {y}"


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of so many that differ one way and so many the other; 1 where none differ."""
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _tests(pairs: Sequence[tuple[Row, Row]]) -> Iterator[Paired]:
    labels = [_label(*pair) for pair in pairs]
    groups = {
        "good parts flagged (false alarms)": [p for p, own in zip(pairs, labels, strict=True) if own == GOOD],
        "defective parts flagged (caught)": [
            p for p, own in zip(pairs, labels, strict=True) if own not in (None, GOOD)
        ],
    }
    if not any(groups.values()):
        groups = {"parts flagged": list(pairs)}
    for what, own in groups.items():
        if own:
            counts = Counter((x.flagged, y.flagged) for x, y in own)
            yield Paired(
                what=what,
                both=counts[True, True],
                only_a=counts[True, False],
                only_b=counts[False, True],
                neither=counts[False, False],
                p_value=mcnemar(counts[True, False], counts[False, True]),
            )


def _label(x: Row, y: Row) -> str | None:
    return x.label if x.label is not None else y.label


def _ranking(pairs: Sequence[tuple[Row, Row]]) -> Ranking | None:
    known = [(x, y) for x, y in pairs if _label(x, y) is not None]
    labels = np.array([_label(x, y) != GOOD for x, y in known], bool)
    if not labels.any() or labels.all():
        return None
    scores_2N = np.array([[x.score for x, _ in known], [y.score for _, y in known]])

    def both(index: Any) -> tuple[float, float]:
        a, b = (auroc(scores[index], labels[index]) for scores in scores_2N)
        return cast(float, a), cast(float, b)

    rng = np.random.default_rng(0)
    classes = [np.flatnonzero(labels == one) for one in (False, True)]
    draws = [np.concatenate([rng.choice(own, len(own)) for own in classes]) for _ in range(RESAMPLES)]
    differences = [b - a for a, b in map(both, draws)]
    low, high = np.quantile(differences, [0.025, 0.975])
    a, b = both(np.arange(len(known)))
    return Ranking(a=a, b=b, difference_95=(float(low), float(high)))


def read_results(path: Path) -> Results:
    """The rows of a CSV or JSON file, or of the prediction files in a benchmark's folder.

    Raises DataError when it cannot be read, has no judged part, or names a part twice.
    """
    if is_folder(path) or path.suffix.lower() == ".npz":
        found = _of_benchmark(path)
    else:
        found = _of_json(path) if path.suffix.lower() == ".json" else _of_csv(path)
    if not found.rows:
        raise DataError(f"{path}: holds no judged part; {WROTE}")
    name, count = Counter(row.place or row.name for row in found.rows).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: names {name} {count} times; give the result of one run")
    # A part of several pictures is named below the folder that was given, and several may have been.
    names = Counter(row.name for row in found.rows)
    rows = (replace(row, name=row.place) if names[row.name] > 1 else row for row in found.rows)
    return replace(found, rows=tuple(rows))


def _of_csv(path: Path) -> Results:
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return _results(path, list(csv.DictReader(file)))
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from None
    except csv.Error as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}; {WROTE}") from None


def _of_json(path: Path) -> Results:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from None
    except ValueError:
        raise DataError(f"{path}: is no JSON; {WROTE}") from None
    rows = plain.get("images", plain.get("parts")) if isinstance(plain, dict) else None
    if not isinstance(rows, list):
        raise DataError(f"{path}: has no rows; {WROTE}")
    return _results(path, rows, plain.get("content_hash"))


def _results(path: Path, rows: Iterable[Mapping[str, Any]], content_hash: str | None = None) -> Results:
    judged, unjudged = [], 0
    for number, row in enumerate(rows, 1):
        known = row.keys() if isinstance(row, Mapping) else set()
        # A model that judges parts by several pictures names the part.
        of = "part" if "part" in known and "path" not in known else "path"
        if not {of, "score", "p_value", "decision"} <= known:
            raise DataError(f"{path}: row {number} lacks path, score, p_value or decision; {WROTE}")
        if not row["decision"] or (of == "part" and row["score"] in (None, "")):
            unjudged += 1
            continue
        try:
            score, p_value = float(row["score"]), float(row["p_value"])
        except (TypeError, ValueError):
            score = p_value = math.nan
        if row["decision"] not in DECISIONS or not (math.isfinite(score) and 0 < p_value <= 1):
            raise DataError(f"{path}: row {number} has no score, p-value and decision as invad writes them")
        frame = row.get("frame")
        name = str(row[of]) if frame in (None, "") else f"{row[of]}, frame {frame}"
        label = row.get("label") or None
        made = Row(name=name, score=score, p_value=p_value, decision=row["decision"], label=label)
        judged.append(made if of == "path" else _of_part(path, number, made, row))
    return Results(source=str(path), rows=tuple(judged), content_hash=content_hash, unjudged=unjudged)


def _of_part(path: Path, number: int, made: Row, row: Mapping[str, Any]) -> Row:
    """With what is said of its pictures, in columns or nested."""
    members = row.get("members")
    if members is None:
        names = [name.removesuffix("_p_value") for name in row if name.endswith("_p_value")]
        members = {
            name: {"path": row.get(f"{name}_path"), "p_value": row[f"{name}_p_value"]}
            for name in names
            if row[f"{name}_p_value"]
        }
    try:
        told = tuple((str(name), float(one["p_value"])) for name, one in members.items())
        paths = [str(members[name]["path"]) for name in sorted(members) if members[name]["path"]]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{path}: row {number} has no pictures as invad writes them; {WROTE}") from None
    folder = posixpath.dirname(paths[0]) if paths else posixpath.dirname(made.name)
    place = posixpath.join(folder, posixpath.basename(made.name))
    return replace(made, place=place, members=told, seen_by=str(row.get("seen_by") or ""))


def _of_benchmark(path: Path) -> Results:
    rows: list[Row] = []
    for file in prediction_files(path):
        found = read_predictions(file)
        rows += [
            Row(
                name=name,
                score=float(score),
                p_value=float(p_value),
                decision=cast(Decision, decision),
                label=label,
            )
            for name, label, decision, score, p_value in zip(
                found.paths,
                found.defects,
                found.decisions,
                found.scores["calibrated"].tolist(),
                found.p_values.tolist(),
                strict=True,
            )
        ]
    return Results(source=str(path), rows=tuple(rows))
