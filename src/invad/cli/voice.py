"""What the command line says: results on standard output, everything else on standard error."""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from invad.errors import InvadError
from invad.system.files import is_standard_output, write_atomically

STANDARD_OUTPUT = "-"

_ACTING = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, breaks a line, turns its direction, or is no character."""


class Terminal(Console):
    """Whoever reads may stop; that is an error to be dealt with, not the end of the process."""

    def on_broken_pipe(self) -> None:
        raise  # rich calls this while it handles the error


class Voice:
    """Where the words of one command go.

    With `--json -`, or when another file that is written is standard output, that belongs to the file alone.
    `failed` holds the errors of outputs that are postponed until the others are written.
    """

    def __init__(self, json_target: str | None = None, other: str | Path | None = None):
        self.json_target = standard(json_target)
        self.err = Terminal(stderr=True)
        taken = STANDARD_OUTPUT in (self.json_target, standard(other))
        self.out = self.err if taken else Terminal()
        self.failed: list[Exception] = []

    def say(self, *lines: str) -> None:
        """A result, one line each; never wrapped, so that it can be searched and cut.

        When nobody takes it any more, that is kept in `failed`: what else is to be written still is.
        """
        if self.out is self.err:
            remark(self.err, *lines)
            return
        if any(isinstance(error, OSError) for error in self.failed):
            return
        try:
            for line in lines:
                _print(self.out, line)
        except OSError as error:
            error.filename = "standard output"
            self.failed.append(error)
            _close_standard_output()

    def warn(self, *lines: str) -> None:
        remark(self.err, *(f"warning: {line}" for line in lines))

    def facts(self, facts: Mapping[str, object]) -> None:
        """`name   value` lines."""
        self.table([(name, str(value)) for name, value in facts.items()])

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Rows of equal length in aligned columns."""
        cells = [[shown(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            self.say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def attempt(self, write: Callable[[], object]) -> bool:
        """Write one of several outputs. When that fails the others still come, and `hand_over` raises it."""
        try:
            write()
        except (InvadError, OSError) as error:
            self.failed.append(error)
            return False
        return True

    def hand_over(self, result: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Write the result as JSON where `--json` asked for it, the last output of a command.

        Raises DataError when that fails, and otherwise what failed before.
        """
        if self.json_target is not None:
            text = json.dumps(result, indent=1, allow_nan=False) + "\n"
            if self.json_target == STANDARD_OUTPUT:
                _to_standard_output(text)
            else:
                write_atomically(Path(self.json_target), text.encode())
        if self.failed:
            raise self.failed[0]


def standard(target: str | Path | None) -> str | None:
    """`-` for every name of standard output, other names as they are."""
    if target is None:
        return None
    return STANDARD_OUTPUT if str(target) == STANDARD_OUTPUT or is_standard_output(target) else str(target)


def shown(text: str) -> str:
    """Text for one line of a terminal: what would act there is written as an escape.

    File names may hold anything. Bytes that are no UTF-8 become `\\xff`.
    """
    return _ACTING.sub(lambda match: _escape(match[0]), text)


def complain(text: str) -> None:
    """The one line of an error."""
    remark(Terminal(stderr=True), f"error: {text}")


def remark(console: Console, *lines: str) -> None:
    """Lines on standard error. That they cannot be written is no reason to stop."""
    try:
        for line in lines:
            _print(console, line)
    except OSError:
        console.quiet = True


def _print(console: Console, line: str) -> None:
    console.print(shown(line), markup=False, highlight=False, soft_wrap=True, emoji=False)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code >= 0x80 else character.encode("unicode_escape").decode()


def _to_standard_output(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        error.filename = "standard output"
        _close_standard_output()
        raise


def _close_standard_output() -> None:
    """What could not be written must not be tried again when Python ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
