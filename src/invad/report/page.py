"""The evaluation report: one HTML file that needs nothing else."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from markupsafe import Markup

from invad.data.images import read_image
from invad.errors import ConfigError, DataError
from invad.metrics.exact import roc_curve
from invad.records import Hw, ScoredSample
from invad.report.charts import OperatingPoint, histogram, roc_chart
from invad.report.colours import Limits, check_limits, display
from invad.report.gallery import Group, Picture, groups, pictures, shrink, thumbnail
from invad.report.rendering import environment
from invad.report.spread import Judged, Where, defect_lines, where
from invad.report.tables import Share, anomalies, called, decision_rows, defect_rows, normals, verdict
from invad.report.wording import (
    METRICS,
    MISSING,
    Value,
    counted,
    fraction,
    metric_text,
    number,
    percent,
)
from invad.scoring.defects import Defect
from invad.system.files import write_atomically

Metrics: TypeAlias = Mapping[str, Any]

GALLERY_BYTES = 9_000_000
MOST_HISTOGRAMS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One image of the gallery."""

    scored: ScoredSample
    reason: str
    where: str
    sizes: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Scores that share one pair of limits."""

    title: str
    good: Sequence[float]
    defective: Sequence[float]
    limits: Limits


def write_report(
    path: Path | str,
    *,
    title: str,
    scored: Sequence[ScoredSample],
    metrics: Metrics,
    map_limits: Limits,
    facts: Mapping[str, str],
    notes: Sequence[str],
    max_gallery: int = 48,
    defects: Sequence[Sequence[Defect]] = (),
    sizes_hw: Sequence[Hw] = (),
) -> Path:
    """Write the report of one evaluation as a self-contained HTML file under 10 MB; returns its path.

    metrics: the keys of `wording.METRICS` (fractions of 0..1, None where undefined), n_normal, n_anomalous
    and `categories`: name -> the same keys. If `false_alarms` is there, with `asked` (rate) and
    `expected_count_95` (two counts) for each of `review` and `bad`, the realised rates are compared with it;
    other keys are ignored. map_limits: (review, bad) limits of the anomaly maps. facts: what
    was tested and how, as text. notes: warnings, shown at the top. At most `max_gallery` images are shown.
    The file appears complete or not at all. Images that cannot be read become placeholders.
    defects: what was found in each image of `scored`, sizes_hw: its height and width; both or neither.
    The map of an image is shown stretched over the whole image.
    Raises DataError if `scored` is empty, a score is not finite or the file cannot be written, ConfigError
    for impossible limits or a negative `max_gallery`.
    """
    _check(scored, max_gallery)
    check_limits(map_limits)
    found = [
        Judged(
            name=str(s.sample.path),
            decision=s.decision,
            size_hw=size_hw,
            defects=list(map(asdict, own)),
            kind=s.sample.defect,
        )
        for s, own, size_hw in zip(scored, defects, sizes_hw, strict=False)
    ]
    page = environment().get_template("template.html.j2")
    html = page.render(
        title=title,
        notes=notes,
        facts=facts,
        headline=_headline(scored, metrics),
        decisions=decision_rows(scored),
        rates=list(_rates(scored, metrics)),
        histograms=[(p.title, histogram(p.good, p.defective, p.limits), p.limits) for p in _panels(scored)],
        roc=_roc(scored),
        summary=[
            (*METRICS[key], metric_text(key, _value(metrics, key))) for key in METRICS if key in metrics
        ],
        category_head=[label for label, _ in (METRICS[key] for key in _category_keys(metrics))],
        categories=_category_rows(metrics),
        kinds=defect_rows(scored),
        lines=defect_lines(found) if found else None,
        wheres=list(_wheres(scored, found)),
        gallery=list(_gallery(groups(scored, max_gallery), map_limits, _sizes(scored, defects))),
        map_limits=map_limits,
    )
    return write_atomically(Path(path), html.encode("utf-8"))


def _check(scored: Sequence[ScoredSample], max_gallery: int) -> None:
    if not scored:
        raise DataError("nothing to report: not one image was scored; name a folder with images")
    for s in scored:
        if not isfinite(s.score):
            raise DataError(f"{s.sample.path} has score {s.score}: score it again, a report needs numbers")
    if max_gallery < 0:
        raise ConfigError(f"max_gallery is {max_gallery}: give 0 or more")


def _value(metrics: Metrics, key: str) -> Value:
    value = metrics.get(key)
    if isinstance(value, Mapping):
        raise ConfigError(f"metric {key} is a table: give a number or None")
    return value


def _headline(scored: Sequence[ScoredSample], metrics: Metrics) -> list[tuple[str, str, str]]:
    """(big figure, what it is, small print) of the tiles at the top."""
    defective, good = anomalies(scored), normals(scored)
    tiles = [
        (percent(called(defective, "bad", "review").value), "of defects caught", _split(defective)),
        (percent(called(good, "bad", "review").value), "of good images flagged", _split(good)),
        (fraction(_value(metrics, "image_auroc")), "image AUROC", "1 is perfect, 0.5 is a coin toss"),
    ]
    speed = _value(metrics, "images_per_second")
    if speed is not None:
        tiles.append((number(speed), "images per second", "on the machine that made this report"))
    return tiles


def _split(group: Sequence[ScoredSample]) -> str:
    bad, review = called(group, "bad").part, called(group, "review").part
    return f"{bad} called bad, {review} sent to review, of {counted(len(group), 'image')}"


def _rates(
    scored: Sequence[ScoredSample], metrics: Metrics
) -> Iterator[tuple[str, Share, float | None, str]]:
    """(what, realised share, rate asked, verdict) for the bad limit and the review limit."""
    good = normals(scored)
    if not good:
        return
    asked = metrics.get("false_alarms", {})
    for key, what, realised in (
        ("bad", "called bad", called(good, "bad")),
        ("review", "called bad or sent to review", called(good, "bad", "review")),
    ):
        if key in asked:
            yield what, realised, asked[key]["asked"], verdict(realised, asked[key]["expected_count_95"])
        else:
            yield what, realised, None, ""


def _panels(scored: Sequence[ScoredSample]) -> list[Panel]:
    """One panel if one pair of limits applied to all images, else one per category and pair of limits."""
    several = len({s.score_limits for s in scored}) > 1
    members = defaultdict(list)
    for s in scored:
        members[s.sample.category if several else "All images", s.score_limits].append(s)
    return [
        Panel(
            title=title,
            good=[s.score for s in normals(group)],
            defective=[s.score for s in anomalies(group)],
            limits=limits,
        )
        for (title, limits), group in sorted(members.items())
    ][:MOST_HISTOGRAMS]


def _roc(scored: Sequence[ScoredSample]) -> Markup | None:
    """The ROC chart; None unless some panel has both good and defective images."""
    known = (
        roc_curve([*p.good, *p.defective], np.repeat([False, True], [len(p.good), len(p.defective)]))
        for p in _panels(scored)
    )
    curves = [np.stack([curve.fpr, curve.tpr], axis=1) for curve in known if curve is not None]
    if not curves:
        return None
    good, defective = normals(scored), anomalies(scored)
    points = [
        OperatingPoint(
            label=label,
            css=css,
            false_alarm_rate=called(good, *decisions).value or 0.0,
            hit_rate=called(defective, *decisions).value or 0.0,
        )
        for label, css, decisions in (
            ("bad", "point-bad", ("bad",)),
            ("bad or review", "point-review", ("bad", "review")),
        )
    ]
    return roc_chart(curves, points)


def _tables_of(metrics: Metrics) -> Mapping[str, Mapping[str, Value]]:
    categories = metrics.get("categories") or {}
    if not isinstance(categories, Mapping):
        raise ConfigError("metric categories is not a table: give name -> metrics")
    return categories


def _category_keys(metrics: Metrics) -> list[str]:
    """The metrics that at least one category has; the speed is one for all."""
    return [
        key
        for key in METRICS
        if key != "images_per_second"
        and any(row.get(key) is not None for row in _tables_of(metrics).values())
    ]


def _category_rows(metrics: Metrics) -> list[tuple[str, list[str]]]:
    keys = _category_keys(metrics)
    return [
        (
            name,
            [
                *(number(row[n]) if row.get(n) is not None else MISSING for n in ("n_normal", "n_anomalous")),
                *(metric_text(key, row.get(key)) for key in keys),
            ],
        )
        for name, row in sorted(_tables_of(metrics).items())
    ]


def _sizes(scored: Sequence[ScoredSample], defects: Sequence[Sequence[Defect]]) -> dict[Path, str]:
    """What is said of the defects of an image beside its pictures, by its path."""
    said = {}
    for s, found in zip(scored, defects, strict=False):
        if found:
            longest = max(found, key=lambda one: one.length_px)
            said[s.sample.path] = (
                f"{counted(len(found), 'place')} above the review limit of the map; the longest "
                f"{longest.length_px:.0f} px by {longest.width_px:.0f} px, in cells of "
                f"{longest.cell_px:.0f} px"
            )
    return said


def _wheres(scored: Sequence[ScoredSample], found: Sequence[Judged]) -> Iterator[Where]:
    """Where flagged images stand out, those with a defect and false alarms apart, of each category."""
    several = len({s.sample.category for s in scored}) > 1
    groups: dict[tuple[str, bool], list[Judged]] = defaultdict(list)
    grounds: dict[str, Path] = {}
    for s, judged in zip(scored, found, strict=False):
        if not s.sample.is_anomalous:
            grounds.setdefault(s.sample.category, s.sample.path)
        if judged.decision != "good":
            groups[s.sample.category, not s.sample.is_anomalous].append(judged)
    for (category, false_alarm), members in sorted(groups.items())[:MOST_HISTOGRAMS]:
        title = "Good images that were flagged" if false_alarm else "Defective images that were flagged"
        of = where(f"{category}: {title}" if several else title, members, _ground(grounds.get(category)))
        if of is not None:
            yield of


def _ground(path: Path | None) -> str:
    """A good image to draw places on, as a data URI; empty where there is none."""
    if path is None:
        return ""
    try:
        return thumbnail("", "", shrink(display(read_image(path)))).uri
    except DataError:
        return ""


def _gallery(
    chosen: Sequence[Group], limits: Limits, sizes: Mapping[Path, str]
) -> Iterator[tuple[Group, list[Card]]]:
    """Cards of every group; stops early when the file would grow beyond what a mail or browser likes."""
    left = GALLERY_BYTES
    for group in chosen:
        cards = []
        for s in group.chosen:
            shown = pictures(s, limits)
            left -= sum(len(picture.uri) for picture in shown)
            if left < 0:
                break
            where = "/".join(s.sample.path.parts[-3:])
            said = sizes.get(s.sample.path, "")
            cards.append(Card(scored=s, reason=group.reason, where=where, sizes=said, pictures=shown))
        yield group, cards
