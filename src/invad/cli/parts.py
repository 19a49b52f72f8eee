"""invad predict with a model of parts: a row for each part, from several pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invad.cli.rows import Form, Row, csv_line
from invad.errors import ConfigError, DataError

if TYPE_CHECKING:
    from invad.cli.lot import Measured
    from invad.data.members import PartFiles
    from invad.detector.opening import AnyDetector
    from invad.records import PartPrediction, Prediction
    from invad.runtime.predictor import Pixels

    Save = Callable[[Path, Path, Pixels, Prediction], None]

FIELDS = ("part", "score", "p_value", "decision", "seen_by", "reason", "error")
OF_MEMBERS = ("path", "score", "p_value")


class PartRows:
    """The parts among the files of one run."""

    def __init__(self, files: Sequence[tuple[Path, Path]], rule: str, members: Sequence[str] = ()):
        """files: (path, its path below the folder that was named). rule: how files become parts, as `--parts`
        says it. members: of the model, where they are known. Raises ConfigError for what is no rule."""
        from invad.data.listing import natural_key
        from invad.data.members import Rule, parts_of_files

        self.parts, self.others = parts_of_files(files, Rule.parse(rule))
        found = {member for part in self.parts for member in part.members}
        self.members = tuple(members) or tuple(sorted(found, key=natural_key))

    def __len__(self) -> int:
        return len(self.parts) + len(self.others)

    def of_none(self, strict: bool) -> Iterator[dict[str, Any]]:
        """A row for each file of no part. Raises DataError, if strict, for the first."""
        for path, error in self.others:
            if strict:
                raise error
            yield {"part": str(path), **dict.fromkeys(("score", "p_value", "decision")), "error": str(error)}

    def rows(
        self,
        detector: "AnyDetector",
        save: "Save | None",
        workers: int,
        strict: bool,
        measured: "Measured | None" = None,
    ) -> Iterator[dict[str, Any]]:
        """A row for each file of no part, then one for each part; overlays are written after its row.

        measured: of the defects in its pictures, which the row then has, too.

        Raises DataError, if strict, for the first picture that is missing or cannot be judged.
        """
        yield from self.of_none(strict)
        judged = detector.judge_parts(self.parts, workers=workers)
        for part, (pixels, found) in zip(self.parts, judged, strict=True):
            if strict and found.reason:
                raise DataError(f"{part.part}: {found.reason}")
            more = {} if measured is None else measured.of_part(detector, pixels, found)
            yield _row(part, found, more)
            if save is not None:
                for member, one in found.members.items():
                    picture = pixels[member]
                    if not isinstance(picture, DataError):
                        name = Path(part.part.strip("/")) / f"{member}.png"
                        save(Path(str(part.members[member])), name, picture, one)

    def csv(self) -> Form:
        """The rows as a table, the pictures of a part in columns."""
        members = self.members
        start = [*FIELDS, *(f"{member}_{name}" for member in members for name in OF_MEMBERS)]
        return Form(row=partial(_csv_row, members), start=csv_line(start), end=lambda whole: "")


def _row(part: "PartFiles", found: "PartPrediction", more: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """more: of each picture, by member."""
    members = {
        member: {
            "path": one.path,
            "score": one.score,
            "p_value": one.p_value,
            "decision": one.decision,
            "above": found.above[member],
            **more.get(member, {}),
        }
        for member, one in found.members.items()
    }
    return {
        "part": part.part,
        "score": found.score,
        "p_value": found.p_value,
        "decision": found.decision,
        "seen_by": found.seen_by,
        "reason": found.reason,
        "members": members,
    }


def _csv_row(members: Sequence[str], row: Row) -> str:
    judged: Mapping[str, Mapping[str, Any]] = row.get("members", {})
    pictures = [judged.get(member, {}).get(name) for member in members for name in OF_MEMBERS]
    return csv_line([*(row.get(name) for name in FIELDS), *pictures])


def require_plain(**options: object) -> None:
    """Raises ConfigError, naming the first option that was given, for what parts are not judged with."""
    for name, given in options.items():
        if given:
            raise ConfigError(
                f"--{name}: a model of parts is not used with it; leave it away, or give one member of the "
                "parts as --category"
            )
