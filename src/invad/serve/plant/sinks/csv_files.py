"""Results as lines of CSV files, one file a day, each line whole and on the disk before it counts."""

import csv
import io
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from invad.serve.delivery import Sink
from invad.serve.plant.outputs import CsvOutput
from invad.serve.plant.sinks.files import days, problem, reaching, require
from invad.serve.plant.sinks.rows import COLUMNS, texts
from invad.serve.records import Result
from invad.system.files import sync_folder

LOG = logging.getLogger("invad.serve")
MIB = 1 << 20


class CsvFiles(Sink):
    """The files STATION-DATE.csv of a folder, and STATION-DATE-2.csv after so many MiB."""

    kind = "csv"
    at_a_time = 500

    def __init__(self, output: CsvOutput, station: str):
        self.folder, self.station, self.most = Path(output.path), station, int(output.most_mib * MIB)
        self.place = output.path

    def deliver(self, results: Sequence[Result]) -> Iterator[str]:
        for day, some in days(results):
            with reaching(self.folder):
                self._append(self._path(day), lines([texts(one) for one in some]))
            yield from (one.id for one in some)

    def idle(self) -> None:
        require(self.folder)

    def problems(self) -> Iterator[str]:
        if (wrong := problem(self.folder)) is not None:
            yield wrong

    def _path(self, day: str) -> Path:
        """The newest of a day, or the next one where that is full or has other columns."""
        ours = re.compile(rf"{re.escape(f'{self.station}-{day}')}(?:-([1-9]\d*))?\.csv")
        found = (ours.fullmatch(one.name) for one in os.scandir(self.folder))
        number = max((int(one[1] or 1) for one in found if one), default=1)
        path = self._named(day, number)
        if path.exists() and (path.stat().st_size >= self.most or not _is_ours(path)):
            return self._named(day, number + 1)
        return path

    def _named(self, day: str, number: int) -> Path:
        return self.folder / f"{self.station}-{day}{'' if number == 1 else f'-{number}'}.csv"

    def _append(self, path: Path, content: bytes) -> None:
        """On the disk when this returns. Where it cannot be, the file stays as it was. Raises OSError."""
        is_new = not path.exists()
        with path.open("ab+", buffering=0) as stream:
            whole = end_of_lines(stream)
            if whole < stream.seek(0, os.SEEK_END):
                LOG.warning("%s: the last line was not finished and is written again", path)
                stream.truncate(whole)
            rest = memoryview(content if whole else HEADER + content)
            try:
                while rest:
                    rest = rest[stream.write(rest) or 0 :]
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(whole)
                raise
        if is_new:
            sync_folder(path.parent)


def lines(rows: Sequence[Sequence[str]]) -> bytes:
    """In UTF-8, with commas, each ended by a line feed; quoted where need be."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


HEADER = lines([list(COLUMNS)])


def end_of_lines(stream: io.RawIOBase | io.FileIO) -> int:
    """The number of bytes up to the last line feed, which is all but where a writer was killed."""
    at = stream.seek(0, os.SEEK_END)
    while at > 0:
        begin = max(0, at - 65536)
        stream.seek(begin)
        found = (stream.read(at - begin) or b"").rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        at = begin
    return 0


def _is_ours(path: Path) -> bool:
    """Whether a file has these columns, as far as its first line was written."""
    with path.open("rb") as stream:
        begin = stream.read(len(HEADER))
    return begin == HEADER or (HEADER.startswith(begin) and b"\n" not in begin)
