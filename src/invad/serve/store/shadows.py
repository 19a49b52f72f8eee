"""What shadowing versions said of parts, beside what was answered."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, func, select

from invad.records import Decision
from invad.serve.store.schema import result, shadow


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """What `model_version` says of a result. calibration: revision of its limits. ms_infer: of its run."""

    result: str
    model_version: str
    station: str
    calibration: int
    score: float
    p_value: float
    decision: Decision
    ms_infer: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One part by both versions."""

    id: str
    time: int
    score: float
    decision: Decision
    ms: float
    shadow_score: float
    shadow_decision: Decision
    shadow_ms: float


def add(connection: Connection, said: Sequence[Shadowed]) -> None:
    """Those whose results are there still, and that were not said before."""
    ids = [one.result for one in said]
    there = set(connection.scalars(select(result.c.id).where(result.c.id.in_(ids))))
    known = select(shadow.c.result, shadow.c.model_version).where(shadow.c.result.in_(ids))
    before = {(row.result, row.model_version) for row in connection.execute(known)}
    rows = [asdict(one) for one in said if one.result in there]
    rows = [row for row in rows if (row["result"], row["model_version"]) not in before]
    if rows:
        connection.execute(shadow.insert(), rows)


def count(connection: Connection, station: str, version: str) -> int:
    """Parts of a station that a version has scored as a shadow."""
    wanted = select(func.count()).select_from(shadow)
    here = (shadow.c.station == station, shadow.c.model_version == version)
    return connection.scalar(wanted.where(*here)) or 0


def of_result(connection: Connection, id: str) -> list[Shadowed]:
    """What was said of one part."""
    names = Shadowed.__dataclass_fields__.keys()
    wanted = select(*(shadow.c[name] for name in names)).where(shadow.c.result == id)
    return [Shadowed(**row) for row in connection.execute(wanted.order_by(shadow.c.model_version)).mappings()]


def pairs(connection: Connection, station: str, active: str, version: str, most: int) -> list[Pair]:
    """The newest `most` parts that `active` answered and `version` scored as a shadow, newest first."""
    wanted = (
        select(
            result.c.id,
            result.c.time,
            result.c.score,
            result.c.decision,
            result.c.ms_infer,
            shadow.c.score.label("shadow_score"),
            shadow.c.decision.label("shadow_decision"),
            shadow.c.ms_infer.label("shadow_ms"),
        )
        .join(result, result.c.id == shadow.c.result)
        .where(shadow.c.station == station, shadow.c.model_version == version)
        .where(result.c.model_version == active)
        .order_by(shadow.c.result.desc())
        .limit(most)
    )
    return [
        Pair(
            id=row.id,
            time=row.time,
            score=row.score,
            decision=row.decision,
            ms=row.ms_infer,
            shadow_score=row.shadow_score,
            shadow_decision=row.shadow_decision,
            shadow_ms=row.shadow_ms,
        )
        for row in connection.execute(wanted)
    ]
