"""What a second service process on the same PostgreSQL database gives.

    python benchmarks/scale.py BUNDLE postgresql+psycopg://USER@HOST/EMPTY --pictures good_parts \\
        --output benchmarks/results/scale.json

Processes of `invad serve` with one thread each, one database, pictures in one folder. Stretches with one and
with two of them take turns, so that other load meets both; each process has clients of its own that wait for
their answers. The clients run on the same cores: `client_share` is how much of the processor they took. At
the end answers and rows are counted: nothing lost, nothing twice. A third process, with SQLite, takes its
turn, to see what the server costs. A process also decodes, encodes maps and answers, on whatever core is
free: so a second pair of processes, each kept to a core of its own, takes its turns as well.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from invad.evaluation.machine import facts
from invad.runtime.bundle import read_bundle
from serve import PATH, Service, pictures

CLIENTS = 3
"""Of each process: one part is judged while others are read and stored."""

SENDER = """
import http.client, sys, time
from pathlib import Path
port, seconds, number, path, *files = sys.argv[1:]
bodies = [Path(file).read_bytes() for file in files]
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
print("ready", flush=True)
sys.stdin.readline()
end, count = time.perf_counter() + float(seconds), 0
while time.perf_counter() < end:
    headers = {"Content-Type": "image/jpeg"}
    connection.request("POST", f"{path}?request_id={number}-{count}", bodies[count % len(bodies)], headers)
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content
    count += 1
print(count, time.process_time(), flush=True)
"""
"""A client in a process of its own: in threads of this one they would wait for each other."""


ANSWERED: dict[int, int] = {}
"""Parts by port."""


def rate(ports: list[int], paths: list[Path], seconds: float, name: str) -> tuple[float, float]:
    """(parts per second of all processes together, share of the processor's time that clients took)."""
    command = [sys.executable, "-c", SENDER]
    senders = [
        subprocess.Popen(
            [*command, str(port), str(seconds), f"{name}-{port}-{number}", PATH, *map(str, paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(CLIENTS)
        for port in ports
    ]
    for one in senders:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    started = time.perf_counter()
    for one in senders:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.communicate(timeout=seconds + 120)[0].split() for one in senders]
    taken = time.perf_counter() - started
    for one, words in zip(ports * CLIENTS, said, strict=True):
        ANSWERED[one] = ANSWERED.get(one, 0) + int(words[0])
    spent = sum(float(words[1]) for words in said)
    return sum(int(words[0]) for words in said) / taken, spent / (taken * (os.cpu_count() or 1))


def measured(options: argparse.Namespace, address: str, folder: Path) -> dict[str, Any]:
    """Rates in turns, and whether the database holds each part once."""
    height, width = map(int, options.size.split("x"))
    (folder / "parts").mkdir()
    paths = pictures(folder / "parts", 16, width, height, options.pictures)
    shared = ["--database", address, "--pictures", (folder / "share").as_uri()]
    free = [Service(options.bundle, folder / f"free-{i}", 1, *shared) for i in range(2)]
    kept = [
        on_core(i, lambda i=i: Service(options.bundle, folder / f"core-{i}", 1, *shared)) for i in range(2)
    ]
    alone = Service(options.bundle, folder / "alone", 1)
    ports = {"free": [one.port for one in free], "kept": [one.port for one in kept]}
    rates: dict[str, list[float]] = {
        name: [] for name in ("free1", "free2", "kept1", "kept2", "file", "clients")
    }
    spent: list[float] = []
    try:
        for one in (*free, *kept, alone):
            rate([one.port], paths, 1, "warm")
        for number in range(options.pairs):
            for name, both in ports.items():
                before = processor_seconds(free[0].process.pid)
                found, _ = rate(both[:1], paths, options.seconds, f"{name}{number}-1")
                rates[f"{name}1"].append(found)
                if name == "free":
                    used = processor_seconds(free[0].process.pid) - before
                    spent.append(used / (found * options.seconds))
                found, share = rate(both, paths, options.seconds, f"{name}{number}-2")
                rates[f"{name}2"].append(found)
                rates["clients"].append(share)
            rates["file"].append(rate([alone.port], paths, options.seconds, f"file{number}")[0])
    finally:
        for one in (*free, *kept, alone):
            one.stop()
    engine = create_engine(address)
    with engine.connect() as connection:
        count, requests, ids = connection.execute(
            text("SELECT count(*), count(DISTINCT request_id), count(DISTINCT id) FROM result")
        ).one()
    engine.dispose()
    info, _ = read_bundle(options.bundle)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "bundle": {"preset": info.preset, "format": info.format},
        "pictures": f"{'good parts' if options.pictures else 'noise'}, JPEG, {height} x {width}",
        "pairs": options.pairs,
        "clients_of_each_process": CLIENTS,
        "on_any_core": compared(rates["free1"], rates["free2"]),
        "each_on_its_core": compared(rates["kept1"], rates["kept2"]),
        "processor_ms_of_a_part": 1000 * statistics.median(spent),
        "client_share": middle["clients"],
        "one_with_sqlite_per_second": middle["file"],
        "answers": sum(ANSWERED[one.port] for one in (*free, *kept)),
        "results": count,
        "requests": requests,
        "ids": ids,
    }


def compared(ones: list[float], twos: list[float]) -> dict[str, Any]:
    """Of one process and of two, stretch by stretch."""
    ratios = [two / one for one, two in zip(ones, twos, strict=True)]
    return {
        "one_per_second": statistics.median(ones),
        "two_per_second": statistics.median(twos),
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
    }


def on_core(number: int, make: Callable[[], Service]) -> Service:
    """A process that is kept to one core."""
    whole = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(whole)[number]})
    try:
        return make()
    finally:
        os.sched_setaffinity(0, whole)


def processor_seconds(process: int) -> float:
    """Of all its threads since its start."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("database", help="address of an empty PostgreSQL database")
    parser.add_argument("--size", default="480x640", help="height x width of the pictures")
    parser.add_argument("--pictures", type=Path, help="folder of good images (.png) in place of noise")
    parser.add_argument("--seconds", type=float, default=4, help="of one stretch")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {"machine": facts(), **measured(options, options.database, Path(folder))}
    print(json.dumps(found, indent=1))
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
