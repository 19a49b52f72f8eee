"""What benchmarks of several draws share: each is told as it ends, then one JSON file has all."""

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from invad.evaluation.machine import facts


def run_draws(
    what: str,
    one: Callable[[int], dict[str, Any]],
    numbers: Iterable[int],
    summary: Callable[[list[dict[str, Any]]], dict[str, Any]],
    output: Path,
    **settings: Any,
) -> None:
    """Run `one` for each number on one thread, and write rows, summary and settings. what: a docstring, of
    which the first line is kept."""
    torch.set_num_threads(1)
    started, rows = time.perf_counter(), []
    for number in numbers:
        rows.append(one(number))
        print(json.dumps(rows[-1]), flush=True)
    made = {
        "what": what.split("\n")[0],
        "command": " ".join(["python", *sys.argv]),
        "machine": facts(),
        **settings,
        "seconds": round(time.perf_counter() - started, 1),
        "summary": summary(rows),
        "rows": rows,
    }
    output.write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(made["summary"], indent=1))
