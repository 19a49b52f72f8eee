"""The rows of `invad predict`, in every place that was asked for, each as soon as it is known."""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from invad.cli.voice import STANDARD_OUTPUT, Voice
from invad.errors import DataError
from invad.system.files import Output, writing

FIELDS = ("path", "score", "p_value", "decision", "error")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How rows are written down: what comes before the first, between two, and after the last.

    cut: the end when rows are missing.
    """

    row: Callable[[Row], str]
    start: str
    between: str = ""
    end: str = ""
    cut: str = ""


def csv_form() -> Form:
    return Form(row=lambda row: _csv_line([row.get(name) for name in FIELDS]), start=_csv_line(FIELDS))


def json_form(head: Row) -> Form:
    """One object: the head, then the rows as `images`, then `partial` if rows are missing."""
    return Form(
        row=lambda row: "  " + json.dumps(row, indent=1, allow_nan=False).replace("\n", "\n  "),
        start=json.dumps({**head, "images": []}, indent=1).removesuffix("]\n}") + "\n",
        between=",\n",
        end="\n ]\n}\n",
        cut='\n ],\n "partial": true\n}\n',
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
                self._write(self.form.end if whole else self.form.cut)
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
        self, voice: Voice, total: int, files: Mapping[str | None, Form], say: Callable[[str], None]
    ):
        """files: by name; None stands for a file that nobody asked for. say: prints the line of a row."""
        self.voice, self.total, self.say = voice, total, say
        self.counts: Counter[str | None] = Counter()
        self.first_error: str | None = None
        self.files: list[RowFile] = []
        try:
            for target, form in files.items():
                if target is not None:
                    self.files.append(RowFile(target, form))
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
            self.voice.warn(f"partial: {judged} of {self.total} images were judged{where}")

    def summary(self) -> str:
        """How many images there were of each decision."""
        said = ", ".join(f"{self.counts[name]} {name}" for name in ("good", "review", "bad"))
        unreadable = f", {self.counts[None]} unreadable" if self.counts[None] else ""
        judged = self.counts.total()
        number = f"{judged}" if judged == self.total else f"{judged} of {self.total}"
        return f"{number} {'image' if self.total == 1 else 'images'}: {said}{unreadable}"


def line(row: Row) -> str:
    """A row in words."""
    if "error" in row:
        return f"unreadable  {row['error']}"
    return f"{row['decision']:<10}  p {row['p_value']:<8.2g}  score {row['score']:<9.4g}  {row['path']}"


def _csv_line(cells: Any) -> str:
    text = io.StringIO(newline="")
    # With this ending a carriage return in a name is quoted, too.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"
