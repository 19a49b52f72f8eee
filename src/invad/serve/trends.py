"""How a line goes on, block by block: what is flagged, what verdicts say of it, what pictures are like."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from invad.metrics.alarms import count_interval, realised_interval
from invad.scoring.labels import Labels, Share, false_alarm_rate, miss_share
from invad.serve.records import utc
from invad.serve.service import Service
from invad.serve.store import stations, trends
from invad.serve.store.stations import Revision
from invad.serve.store.trends import Block

BAND = 0.998
"""Chance that the count of a block without change lies in its band."""

MOST_COUNTED = 10_000
"""Parts above which a band is that of so many: then the limit, not the block, says how wide it is."""

MOST_PARTS = 200_000
"""Of the asked time, the newest; a month of a fast line would be seconds of reading."""

MINUTE_MS = 60_000
LENGTHS_MS = tuple(MINUTE_MS * minutes for minutes in (1, 5, 15, 60, 360, 1440, 10080))
MOST_BLOCKS = 120

Comparison: TypeAlias = Literal["unknown", "as asked", "more", "fewer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """One block. since: when it began, UTC. flagged_band: shares between which chance keeps it 998 times in a
    thousand. false_alarms: share of the good parts that were flagged, by verdicts; missed: of defects among
    those that were not."""

    revision: int
    since: str
    parts: int
    flagged: float
    flagged_band: tuple[float, float]
    said: int
    false_alarms: Share | None
    audited: int
    missed: Share | None
    grey: float
    clipped: float
    sharpness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Whether a revision keeps what was asked, by all verdicts on parts that it decided. promised: shares
    between which 95 % of calibrations of its size lie. found: whether the interval of `false_alarms` lies
    above or below all of them."""

    revision: int
    labels: Labels
    asked: float
    promised: tuple[float, float]
    false_alarms: Share | None
    missed: Share | None
    found: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Trends:
    """since: when the first part that counts came, None where there is none. block_seconds: length of a
    block. blocks: those with parts, oldest first. revisions: what verdicts say of each, newest first."""

    since: str | None
    block_seconds: int
    blocks: Sequence[Trend]
    revisions: Sequence[Kept]


def of_station(service: Service, station: str, category: str | None, since: int, until: int) -> Trends:
    """The blocks between two times in milliseconds, as long as they need to be so that they are no more than
    120. The newest 200,000 parts of that time count."""
    key = service.in_force.key(station, category)
    with service.database.read() as connection:
        begin = trends.beginning(connection, station, since, until, MOST_PARTS)
        ends = trends.first_and_last(connection, station, key, since, until, begin)
        span = 0 if ends is None else ends[1] - ends[0]
        length = next((one for one in LENGTHS_MS if span < MOST_BLOCKS * one), LENGTHS_MS[-1])
        found = trends.blocks(connection, station, key, since, until, begin, length)
        all_of = stations.revisions(connection, station)
    revisions = {one.revision: one for one in all_of if one.category == key}
    return Trends(
        since=None if ends is None else utc(ends[0]),
        block_seconds=length // 1000,
        blocks=[_trend(block, revisions[block.revision]) for block in found],
        revisions=[
            kept(revisions[number], [one.labels for one in found if one.revision == number])
            for number in sorted({one.revision for one in found}, reverse=True)
        ],
    )


def kept(revision: Revision, labels: Sequence[Labels]) -> Kept:
    """What verdicts say of a revision. labels: at least one block."""
    total = labels[0]
    for one in labels[1:]:
        total += one
    asked = revision.calibration.rates.review
    low, high = realised_interval(revision.calibration.n, asked)
    rate = false_alarm_rate(total)
    found: Comparison = "unknown"
    if rate is not None:
        found = "more" if rate.low > high else "fewer" if rate.high < low else "as asked"
    return Kept(
        revision=revision.revision,
        labels=total,
        asked=asked,
        promised=(low, high),
        false_alarms=rate,
        missed=miss_share(total),
        found=found,
    )


def _trend(block: Block, revision: Revision) -> Trend:
    labels = block.labels
    return Trend(
        revision=block.revision,
        since=utc(block.since),
        parts=labels.parts,
        flagged=labels.flagged / labels.parts,
        flagged_band=_band(labels.parts, revision.calibration.n, revision.calibration.rates.review),
        said=labels.said,
        false_alarms=false_alarm_rate(labels),
        audited=labels.audited,
        missed=miss_share(labels),
        grey=block.grey,
        clipped=block.clipped,
        sharpness=block.sharpness,
    )


@lru_cache(maxsize=4096)
def _band(parts: int, n: int, rate: float) -> tuple[float, float]:
    counted = min(parts, MOST_COUNTED)
    low, high = count_interval([(counted, n)], rate, BAND)
    return low / counted, high / counted
