"""How long imports of invad take with the packages of its extras beside it, and with them hidden.

    python benchmarks/import_time.py --output benchmarks/results/import_time.json

Each import in a fresh process, seen and hidden in turns, once uncounted and then `--runs` times, in seconds
of the processor, which other work on the machine moves little; the ratio is the median over the turns. Hidden
are all packages of extras that are installed here and that no required package itself requires.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from invad.evaluation.speed import machine
from invad.system.packages import PACKAGES

IMPORTS = ("import invad", "from invad import Detector", "import invad.cli.app")

CHILD = """
import sys, time

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(name, name=name)

HIDDEN, LOOKED_FOR = set(filter(None, sys.argv[1].split(","))), set(sys.argv[2].split(","))
sys.meta_path.insert(0, Hide())
started = time.process_time()
exec(sys.argv[3])
took = time.process_time() - started
print(took, ",".join(sorted(LOOKED_FOR & set(sys.modules))))
"""


def required(names: list[str]) -> set[str]:
    """These distributions and all that they need, by their names with hyphens."""
    found: set[str] = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        names += [re.match(r"[\w.-]+", line)[0] for line in lines if "extra ==" not in line]  # type: ignore[index]
    return found


def hideable() -> dict[str, str]:
    """Installed packages of extras that the others do without: name -> top module."""
    own = [line for line in requires("invad") or [] if "extra ==" not in line]
    needed = required([re.match(r"[\w.-]+", line)[0] for line in own])  # type: ignore[index]
    found = {}
    for name, package in PACKAGES.items():
        try:
            version(name)
        except PackageNotFoundError:
            continue
        if name not in needed:
            found[name] = (package.module or name).split(".")[0]
    return found


def measured(what: str, hidden: str, looked_for: str) -> tuple[float, list[str]]:
    """Processor seconds of an import in a process of its own, and which packages of extras it loaded."""
    command = [sys.executable, "-c", CHILD, hidden, looked_for, what]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(said[0]), said[1].split(",") if len(said) > 1 else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    about, packages = machine(), hideable()
    tops = ",".join(packages.values())
    times: dict[str, dict[str, list[float]]] = {one: {"seen": [], "hidden": []} for one in IMPORTS}
    loaded: dict[str, list[str]] = {}
    for number in range(args.runs + 1):
        for what in IMPORTS:
            for kind, hidden in (("seen", tops), ("hidden", tops))[:: 1 if number % 2 else -1]:
                took, names = measured(what, hidden if kind == "hidden" else "", tops)
                if number:
                    times[what][kind].append(round(took, 4))
                if kind == "seen":
                    loaded[what] = names
    rows = {}
    for what, kinds in times.items():
        seen, hidden = (statistics.median(kinds[kind]) for kind in ("seen", "hidden"))
        pairs = [a / b for a, b in zip(kinds["seen"], kinds["hidden"], strict=True)]
        rows[what] = {
            "cpu_seconds_seen": seen,
            "cpu_seconds_hidden": hidden,
            "ratio": round(statistics.median(pairs), 3),
            "loaded_of_extras": loaded[what],
            "all": kinds,
        }
        print(f"{what:28} {seen:.3f} s, extras hidden {hidden:.3f} s, ratio {rows[what]['ratio']}")
    document = {
        "what": __doc__.strip().splitlines()[0],
        "date": date.today().isoformat(),
        "machine": about,
        "extras": {name: version(name) for name in packages},
        "imports": rows,
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
