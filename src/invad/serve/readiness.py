"""Whether a service takes parts and keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from invad.serve.store.database import Database
from invad.serve.store.files import Pictures

RELOAD = "reload"
NOT_READ = "the file of stations could not be read again, and all stays as it was; the page Live says why"
"""To whoever asks: the reason itself may name what is in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether parts are taken and kept. checks: by what was looked at, "ok" or what is wrong, in words.
    `reload` is among them as long as the file of stations could not be read again; parts go on as before."""

    ready: bool
    checks: Mapping[str, str]

    @property
    def problems(self) -> tuple[str, ...]:
        """Why parts are not taken or kept, a line each."""
        return tuple(
            f"{name}: {said}" for name, said in self.checks.items() if said != "ok" and name != RELOAD
        )

    @classmethod
    def of(cls, **problems: str | None) -> "Readiness":
        """By what was looked at, what is wrong."""
        checks = {name: problem or "ok" for name, problem in problems.items()}
        return cls(ready=not any(problems.values()), checks=checks)


def look(
    database: Database,
    files: Pictures,
    reserve: int,
    *,
    model: str | None,
    line: str | None,
    unread: bool,
) -> Readiness:
    """reserve: bytes of the disk that have to be free. model, line: what is wrong there. unread: whether the
    file of stations could not be read again."""
    free = files.free_bytes()
    full = f"{free} bytes are free, {reserve} are reserved" if free is not None and free < reserve else None
    problem = files.problem()
    # The disk of the data folder has no pictures where several services share them.
    kept = {"pictures": problem or full} if files.shared else {"disk": full or problem}
    found = Readiness.of(model=model, database=database.problem(), **kept, line=line)
    return replace(found, checks={**found.checks, RELOAD: NOT_READ}) if unread else found
