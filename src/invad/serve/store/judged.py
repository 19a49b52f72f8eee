"""Verdicts of a data folder, written down as a data set."""

from collections.abc import Iterator
from pathlib import Path

from invad.records import Decision
from invad.serve.groups import unpacked
from invad.serve.records import Result
from invad.serve.store import results, reviews
from invad.serve.store.backup import FILES, require_database
from invad.serve.store.database import Database
from invad.serve.store.objects import open_pictures
from invad.serve.verdicts import Pictures, Words, Written, write_set

PAGE = 500


def export(
    folder: Path, url: str | None, output: Path, station: str | None = None, pictures: str | None = None
) -> Written:
    """Write the verdicts of a data folder, whose service may be running; see `write_set`.

    station: of this one alone. pictures: where they are, if not in the folder. Raises DataError,
    ArtifactError.
    """
    if url is None:
        require_database(folder)
    files = open_pictures(folder / FILES, pictures)
    database = Database(folder, url, beside=True)

    def parts(reviewed: bool) -> Iterator[Result]:
        decision: Decision | None = None if reviewed else "good"
        before: str | None = None
        while True:
            query = results.Query(
                station=station, reviewed=reviewed, decision=decision, before=before, limit=PAGE
            )
            with database.read() as connection:
                found, before = results.page(connection, query)
            yield from (one.result for one in found)
            if before is None:
                return

    def words(part: Result) -> Words:
        with database.read() as connection:
            said = reviews.of_result(connection, part.id)
        return Words.of((one.verdict, one.defect, one.mask) for one in said)

    def kept(part: Result) -> Pictures | None:
        content = files.get("image", part.image_sha256) if part.image_kept else None
        if content is None:
            return None
        return unpacked(content) if part.members else [("", content)]

    try:
        return write_set(parts(True), parts(False), output, words, kept)
    finally:
        database.close()
