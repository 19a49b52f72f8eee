"""The rows of `invad predict`, in every place that was asked for, each as soon as it is known."""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from invad.cli.voice import STANDARD_OUTPUT, Voice
from invad.errors import DataError
from invad.system.files import Output, writing

FIELDS = ("path", "score", "p_value", "decision", "error")
FIELDS_WITH_FRAMES = ("path", "frame", "time", *FIELDS[1:])

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How rows are written down: what comes before the first, between two, and after the last.

    end: of a file that is whole, or (False) lacks rows.
    """

    row: Callable[[Row], str]
    start: str
    between: str = ""
    end: Callable[[bool], str]


def csv_form(fields: Sequence[str] = FIELDS) -> Form:
    return Form(
        row=lambda row: csv_line([row.get(name) for name in fields]),
        start=csv_line(fields),
        end=lambda whole: "",
    )


def json_form(head: Row, tail: Callable[[], Row] = dict, rows: str = "images") -> Form:
    """One object: the head, then the rows by that name, then the tail, and `partial` if rows are missing.

    tail: asked when the rows are there.
    """

    def end(whole: bool) -> str:
        last = {**tail(), **({} if whole else {"partial": True})}
        text = json.dumps(last, indent=1, allow_nan=False)
        return "\n ]" + (f",{text[1:]}" if last else "\n}") + "\n"

    return Form(
        row=lambda row: "  " + json.dumps(row, indent=1, allow_nan=False).replace("\n", "\n  "),
        start=json.dumps({**head, rows: []}, indent=1).removesuffix("]\n}") + "\n",
        between=",\n",
        end=end,
    )


class RowFile:
    """Rows in one file. Nothing is written before the first row. All methods raise DataError."""

    def __init__(self, target: str, form: Form):
        self.target, self.form, self.rows = target, form, 0
        with self._named():
            self.output = None if target == STANDARD_OUTPUT else Output(Path(target))

    def add(self, row: Row) -> None:
        self._write((self.form.between if self.rows else self.form.start) + self.form.row(row))
        self.rows += 1

    def close(self, whole: bool) -> None:
        """End the file; whole: all rows are in it. A file without rows is not made."""
        if self.rows:
            try:
                self._write(self.form.end(whole))
            finally:
                with self._named():
                    if self.output is not None:
                        self.output.keep()
        elif self.output is not None:
            self.output.drop()

    def _write(self, text: str) -> None:
        # Names that are no text stay the bytes they are.
        content = text.encode("utf-8", "surrogateescape")
        with self._named():
            if self.output is not None:
                self.output.write(content)
            else:
                sys.stdout.buffer.write(content)
                sys.stdout.buffer.flush()

    def _named(self) -> AbstractContextManager[None]:
        return writing("standard output" if self.target == STANDARD_OUTPUT else self.target)


class Rows:
    """All rows of a run: printed, and in the files that were asked for. Counts them; holds none."""

    def __init__(
        self,
        voice: Voice,
        total: int | None,
        files: Mapping[str | None, Form],
        say: Callable[[str], None],
        kind: str = "image",
        also: Callable[[], Sequence[RowFile]] = tuple,
    ):
        """total: rows to come; None while nobody knows. files: by name; None stands for a file that nobody
        asked for. say: prints the line of a row. kind: what a row is of. also: opens more files.
        """
        self.voice, self.total, self.say, self.kind = voice, total, say, kind
        self.counts: Counter[str | None] = Counter()
        self.first_error: str | None = None
        self.files: list[RowFile] = []
        try:
            for target, form in files.items():
                if target is not None:
                    self.files.append(RowFile(target, form))
            self.files += also()
        except DataError:
            self.close()
            raise

    def add(self, row: Row) -> None:
        """Print and write a row. Raises DataError or OSError when it is missing in some place."""
        self.counts[row["decision"]] += 1
        if self.first_error is None:
            self.first_error = row.get("error")
        failed: list[Exception] = []
        for file in self.files:
            try:
                file.add(row)
            except DataError as error:
                failed.append(error)
        self.say(line(row))
        if failed := [*failed, *self.voice.failed]:
            raise failed[0]

    def close(self) -> None:
        """End all files, after the last row or before. What is missing in them is said."""
        judged = self.counts.total()
        for file in self.files:
            self.voice.attempt(partial(file.close, file.rows == self.total))
        if judged == self.total:
            self.voice.say(self.summary())
        elif judged:
            self.voice.say(f"partial: {self.summary()}")
            names = [file.target for file in self.files if file.rows and file.target != STANDARD_OUTPUT]
            where = (
                f"; {' and '.join(names)} {'hold' if len(names) > 1 else 'holds'} their rows" if names else ""
            )
            number = (
                f"{judged} {self.kind}s" if self.total is None else f"{judged} of {self.total} {self.kind}s"
            )
            self.voice.warn(f"partial: {number} were judged{where}")

    def summary(self) -> str:
        """How many images there were of each decision."""
        said = ", ".join(f"{self.counts[name]} {name}" for name in ("good", "review", "bad"))
        unreadable = f", {self.counts[None]} unreadable" if self.counts[None] else ""
        judged = self.counts.total()
        number = f"{judged}" if self.total in (judged, None) else f"{judged} of {self.total}"
        return f"{number} {self.kind}{'' if self.total == 1 else 's'}: {said}{unreadable}"


def line(row: Row) -> str:
    """A row in words."""
    if "error" in row:
        return f"unreadable  {row['error']}"
    if "part" in row:
        p = "-" if row["p_value"] is None else f"{row['p_value']:.2g}"
        score = "-" if row["score"] is None else f"{row['score']:.4g}"
        seen = f"  {row['seen_by']}" if row["decision"] != "good" and row["seen_by"] else ""
        why = f"  ({row['reason']})" if row["reason"] else ""
        return f"{row['decision']:<10}  p {p:<8}  score {score:<9}  {row['part']}{seen}{why}"
    where = f"  frame {row['frame']} at {row['time']:.3f} s" if "frame" in row else ""
    return (
        f"{row['decision']:<10}  p {row['p_value']:<8.2g}  score {row['score']:<9.4g}  {row['path']}{where}"
    )


def csv_line(cells: Any) -> str:
    """Cells as a line of CSV."""
    text = io.StringIO(newline="")
    # With this ending a carriage return in a name is quoted, too.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"
