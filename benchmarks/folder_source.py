"""A watched folder under load: files dropped at once, a kill in between, and a share that tells nothing.

    python benchmarks/folder_source.py BUNDLE IMAGES --output benchmarks/results/folder_source.json

BUNDLE: of `invad export`. IMAGES: a folder, whose images are copied under new names as often as need be.
drop: all files are moved into the folder at once, the service is killed after a third of them and started
again; every file has to be stored exactly once. latency: files come one by one, with the system's events and
without, and it is measured when their result can be read.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from invad.data.formats import IMAGE_SUFFIXES
from invad.evaluation.machine import facts

SETTLE, RESCAN, SINGLE = 0.5, 2.0, 15


class Service:
    """A process with one station."""

    def __init__(self, folder: Path, bundle: Path, **source: object):
        table = {"kind": "folder", "path": "in", "settle": SETTLE, "rescan": RESCAN, **source}
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        head = f'[[station]]\nname = "a"\nmodel = {json.dumps(str(bundle.resolve()))}\n[station.source]\n'
        (folder / "line.toml").write_text(head + "\n".join(lines) + "\n")
        self.log = folder / "out"
        command = [sys.executable, "-m", "invad", "serve", folder / "line.toml", "--data", folder / "line"]
        command += ["--port", "0", "--no-auth", "--reserve", "0", "--threads", "1"]
        self.log.write_text("")
        with self.log.open("w") as out, (folder / "err").open("a") as err:
            self.process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=err, env=os.environ)
        while not (found := re.search(r"http://\S+?:\d+", self.log.read_text())):
            assert self.process.poll() is None, (folder / "err").read_text()[-2000:]
            time.sleep(0.05)
        self.http = httpx.Client(base_url=found[0], timeout=60, trust_env=False)

    def taken(self) -> int:
        """Of the source, since the start."""
        return int(self.http.get("/api/v1/stations").json()["stations"][0]["source"]["taken"])

    def end(self, number: int) -> None:
        self.http.close()
        self.process.send_signal(number)
        self.process.wait()


def parts_of(service: Service) -> list[str]:
    """The part of every result, by pages."""
    found, before = [], None
    while True:
        wanted = {"station": "a", "limit": 500} | ({"cursor": before} if before else {})
        page = service.http.get("/api/v1/results", params=wanted).json()
        found += [one["part_id"] for one in page["results"]]
        before = page["next"]
        if before is None:
            return found


def drop(bundle: Path, images: list[Path], count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "ready").mkdir()
        for i in range(count):
            source = images[i % len(images)]
            shutil.copyfile(source, folder / "ready" / f"{i:06d}{source.suffix}")
        (folder / "in").mkdir()
        service = Service(folder, bundle, done="done")
        for path in (folder / "ready").iterdir():
            path.rename(folder / "in" / path.name)
        started = time.monotonic()
        while service.taken() < count // 3:
            time.sleep(0.2)
        before = service.taken()
        service.end(signal.SIGKILL)
        again = Service(folder, bundle, done="done")
        while any((folder / "in").iterdir()):
            time.sleep(0.5)
        seconds = time.monotonic() - started
        found = parts_of(again)
        again.end(signal.SIGTERM)
        moved = sum(1 for _ in (folder / "done").iterdir())
    return {
        "files": count,
        "killed_after": before,
        "results": len(found),
        "distinct": len(set(found)),
        "moved": moved,
        "lost": count - len(set(found)),
        "doubled": len(found) - len(set(found)),
        "seconds": round(seconds, 1),
        "parts_per_second": round(count / seconds, 1),
    }


def latency(bundle: Path, images: list[Path], events: bool) -> dict[str, Any]:
    """Milliseconds from the moment a file is there until its result can be read."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "in").mkdir()
        if not events:
            (folder / "blocked" / "watchfiles").mkdir(parents=True)
            (folder / "blocked" / "watchfiles" / "__init__.py").write_text("raise ImportError('blocked')\n")
        before = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = f"{folder / 'blocked'}{os.pathsep}{before}" if not events else before
        try:
            service = Service(folder, bundle)
        finally:
            os.environ["PYTHONPATH"] = before
        times = []
        for i in range(SINGLE):
            time.sleep(0.37)  # not in step with the looks
            source = images[i % len(images)]
            shutil.copyfile(source, folder / f"{i}{source.suffix}")
            (folder / f"{i}{source.suffix}").rename(folder / "in" / f"{i}{source.suffix}")
            started = time.monotonic()
            while service.taken() <= i:
                time.sleep(0.01)
            times.append(1000 * (time.monotonic() - started))
        service.end(signal.SIGTERM)
    return {"events": events, "median_ms": round(statistics.median(times)), "largest_ms": round(max(times))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    images = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    made = {
        "what": __doc__.partition("\n")[0],
        "machine": facts(),
        "settle_s": SETTLE,
        "rescan_s": RESCAN,
        "latency": [latency(options.bundle, images, events) for events in (True, False)],
    }
    print(made["latency"], flush=True)
    made["drop"] = drop(options.bundle, images, options.files)
    print(made["drop"], flush=True)
    options.output.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
