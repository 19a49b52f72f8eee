"""Whether a service takes parts and keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass

from invad.serve.store.database import Database
from invad.serve.store.files import Pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether parts are taken and kept. checks: by what was looked at, "ok" or what is wrong, in words."""

    ready: bool
    checks: Mapping[str, str]

    @classmethod
    def of(cls, **problems: str | None) -> "Readiness":
        """By what was looked at, what is wrong."""
        checks = {name: problem or "ok" for name, problem in problems.items()}
        return cls(ready=not any(problems.values()), checks=checks)


def look(
    database: Database, files: Pictures, reserve: int, *, model: str | None, line: str | None
) -> Readiness:
    """reserve: bytes of the disk that have to be free. model, line: what is wrong there."""
    free = files.free_bytes()
    full = f"{free} bytes are free, {reserve} are reserved" if free is not None and free < reserve else None
    problem = files.problem()
    if files.shared:  # the disk of the data folder has no pictures
        return Readiness.of(model=model, database=database.problem(), pictures=problem or full, line=line)
    return Readiness.of(model=model, database=database.problem(), disk=full or problem, line=line)
