"""What the command line says: results on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

STANDARD_OUTPUT = "-"


class Voice:
    """Where the words of one command go; with `--json -` standard output belongs to the JSON alone."""

    def __init__(self, json_target: str | None = None):
        self.json_target = json_target
        self.err = Console(stderr=True)
        self.out = self.err if json_target == STANDARD_OUTPUT else Console()

    def say(self, *lines: str) -> None:
        """A result, one line each; never wrapped, so that it can be searched and cut."""
        for line in lines:
            _print(self.out, line)

    def warn(self, *lines: str) -> None:
        for line in lines:
            _print(self.err, f"warning: {line}")

    def facts(self, facts: Mapping[str, object]) -> None:
        """`name   value` lines."""
        self.table([(name, str(value)) for name, value in facts.items()])

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Rows of equal length in aligned columns."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self.say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def hand_over(self, result: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Write the result as JSON where `--json` asked for it. Raises DataError when that fails."""
        if self.json_target is None:
            return
        text = json.dumps(result, indent=1, allow_nan=False) + "\n"
        if self.json_target == STANDARD_OUTPUT:
            sys.stdout.write(text)
            return
        from invad.data.files import write_atomically

        write_atomically(Path(self.json_target), text.encode())


def complain(text: str) -> None:
    """The one line of an error."""
    _print(Console(stderr=True), f"error: {' '.join(text.split())}")


def _print(console: Console, line: str) -> None:
    # File names may hold bytes that are no text; they must not end a long run.
    clean = line.encode("utf-8", "replace").decode("utf-8")
    console.print(clean, markup=False, highlight=False, soft_wrap=True, emoji=False)
