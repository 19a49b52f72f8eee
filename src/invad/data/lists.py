"""Lists of files: tables and texts as spreadsheets and scripts save them, and the files that they name."""

import csv
import os
import unicodedata
from collections.abc import Callable, Collection, Generator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from invad.errors import DataError, in_one_line, reason
from invad.system.packages import importing

Row = dict[str, str]
Choice = Callable[[Sequence[str]], Collection[str]]
MARKS = ",;\t"
"""Between the cells of a CSV: Excel takes what the country does not take for its decimals."""


def table_rows(path: Path, choose: Choice) -> Generator[tuple[int, Row], None, None]:
    """(number of the line, cells by column) of a table: Parquet by its ending, else CSV.

    A CSV may be separated by commas, semicolons or tabs, in UTF-8 or UTF-16, with or without a mark of
    its order of bytes. Empty cells are "". choose: gets the names of the columns, raises DataError for
    those that do not do, and says which are wanted. Raises DataError for what is no table.
    """
    try:
        yield from _parquet(path, choose) if path.suffix.lower() == ".parquet" else _csv(path, choose)
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from error
    except (ValueError, csv.Error) as error:
        why = in_one_line(error)
        raise DataError(f"{path}: cannot be read as a table ({why}); save it as CSV in UTF-8") from error


def text_lines(path: Path) -> list[str]:
    """The lines of a text that are not empty; of what is no text, as names of files may be, the bytes stay.

    Raises DataError when it cannot be read.
    """
    try:
        content = path.read_bytes()
        text = content.decode(_encoding(content), "surrogateescape")
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from error
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as text ({error}); save it in UTF-8") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def first_line(path: Path) -> str:
    """The first line of a CSV or text, as far as it can be read."""
    with path.open("rb") as stream:
        content = stream.read(4096)
    return content.decode(_encoding(content), "replace").partition("\n")[0]


def arrow() -> Any:
    """pyarrow. Raises ConfigError where it is missing, too old or broken."""
    with importing(("pyarrow",), "tables", "Parquet"):
        import pyarrow
        import pyarrow.parquet
    return pyarrow


class Named:
    """The files below `base` that a list names, with the slashes of Windows or others.

    The list may write an accent as one character or as two, the disk in the other way.
    """

    def __init__(self, base: Path):
        self.base = base
        self._forms: dict[Path, dict[str, str]] = {}

    def path(self, name: str) -> Path:
        """The file of this name, or where it should be."""
        path = self.base / name
        if "\\" in name and not os.path.lexists(path):
            path = self.base / name.replace("\\", "/")
        return path if name.isascii() else self._on_disk(path)

    def _on_disk(self, path: Path) -> Path:
        if os.path.lexists(path) or path.parent == path:
            return path
        folder = self._on_disk(path.parent)
        if folder not in self._forms:
            self._forms[folder] = _names_by_form(folder)
        return folder / self._forms[folder].get(composed(path.name), path.name)


def composed(name: str) -> str:
    """A name with each accent and its letter as one character (NFC), to compare it with others."""
    return unicodedata.normalize("NFC", name)


def _names_by_form(folder: Path) -> dict[str, str]:
    try:
        return {composed(name): name for name in os.listdir(folder)}  # noqa: PTH208
    except OSError:
        return {}


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in head[:2]:
        return "utf-16-be" if head[:1] == b"\0" else "utf-16-le"
    return "utf-8-sig"


def _csv(path: Path, choose: Choice) -> Generator[tuple[int, Row], None, None]:
    with path.open("rb") as stream:
        encoding = _encoding(stream.read(2))
    with path.open(newline="", encoding=encoding) as text:
        head, before, mark = text.readline(), 0, ""
        if head.lower().startswith("sep="):  # Excel's own first line
            mark, head, before = head[4:5], text.readline(), 1
        reader = csv.DictReader(chain([head], text), restval="", delimiter=mark or max(MARKS, key=head.count))
        columns = [name.strip() for name in reader.fieldnames or ()]
        choose(columns)
        reader.fieldnames = columns
        for row in reader:
            number = reader.line_num + before
            if any(cell.strip() for cell in row.pop(None, ())):
                raise DataError(
                    f"{path}: line {number} has more cells than there are columns; write a name that holds "
                    f"{mark or 'the separator'} in quotes"
                )
            yield number, row


def _parquet(path: Path, choose: Choice) -> Generator[tuple[int, Row], None, None]:
    table = arrow().parquet.read_table(path)
    wanted = choose(table.column_names)
    known = table.select([name for name in table.column_names if name in wanted])
    number = 0
    for batch in known.to_batches():
        for row in batch.to_pylist():
            number += 1
            yield number, {name: "" if value is None else str(value) for name, value in row.items()}
