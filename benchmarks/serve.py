"""What the service costs beside the engine alone: parts a second over HTTP, waiting times, memory.

    python benchmarks/serve.py BUNDLE --output benchmarks/results/serve.json

The engine's own rate is that of `predict_many` on the same JPEG files with the same threads. Stretches of
both take turns, the service being idle while the engine runs, so that other load meets both; figures are
medians, the share is that of each pair. Half load is a part every two times the engine's own time.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from invad import runtime
from invad.evaluation.machine import facts

PATH = "/api/v1/stations/default/inspect"
KIND = {"Content-Type": "image/jpeg"}


def pictures(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """JPEG files of smooth noise."""
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        coarse = rng.integers(60, 190, (height // 16, width // 16, 3), dtype=np.uint8)
        path = folder / f"{number:03}.jpg"
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(path)
    return paths


class Service:
    """A process of its own, without keys."""

    def __init__(self, bundle: Path, data: Path, threads: int):
        command = [sys.executable, "-m", "invad", "serve", bundle, "--data", data, "--port", "0", "--no-auth"]
        options = ["--threads", threads, "--reserve", 0]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [str(word) for word in (*command, *options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(line.split("127.0.0.1:")[1].split(",")[0])

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def ask(connection: http.client.HTTPConnection, body: bytes) -> float:
    """Seconds of one request, which has to be answered with a result."""
    started = time.perf_counter()
    connection.request("POST", PATH, body, KIND)
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content
    return time.perf_counter() - started


def served_rate(port: int, bodies: list[bytes], seconds: float, clients: int) -> float:
    """Parts a second of clients that each wait for their answer."""
    end, counts = time.perf_counter() + seconds, [0] * clients

    def run(own: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < end:
            ask(connection, bodies[(counts[own] * clients + own) % len(bodies)])
            counts[own] += 1

    started = time.perf_counter()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def own_rate(detector: runtime.ExportedDetector, paths: list[Path], seconds: float) -> float:
    """Parts a second of `predict_many`."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        count += sum(1 for _ in detector.predict_many(paths))
    return count / (time.perf_counter() - started)


def waits(port: int, bodies: list[bytes], pause: float, seconds: float) -> list[float]:
    """Seconds of single requests that come every `pause` seconds."""
    connection, found = http.client.HTTPConnection("127.0.0.1", port, timeout=60), []
    begun = time.perf_counter()
    for number in range(int(seconds / pause)):
        time.sleep(max(0.0, begun + number * pause - time.perf_counter()))
        found.append(ask(connection, bodies[number % len(bodies)]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--size", default="480x640", help="height x width of the pictures")
    parser.add_argument("--seconds", type=float, default=5, help="of one stretch")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        paths = pictures(Path(folder), 16, width, height)
        bodies = [path.read_bytes() for path in paths]
        detector = runtime.load(options.bundle, threads=options.threads)
        service = Service(options.bundle, Path(folder) / "line", options.threads)
        try:
            idle_mb = service.resident_mb()
            own_rate(detector, paths, 1)
            served_rate(service.port, bodies, 1, 2)
            own, served = [], []
            for _ in range(options.pairs):
                own.append(own_rate(detector, paths, options.seconds))
                served.append(served_rate(service.port, bodies, options.seconds, 4))
            pause = 2 / statistics.median(own)
            times = sorted(waits(service.port, bodies, pause, max(20 * pause, options.seconds)))
            busy_mb = service.resident_mb()
        finally:
            service.stop()
    found = {
        "machine": facts(),
        "bundle": {"preset": detector.info.preset, "engine": detector.engine.name},
        "size_hw": [height, width],
        "threads": options.threads,
        "engine_per_second": statistics.median(own),
        "served_per_second": statistics.median(served),
        "share": statistics.median(b / a for a, b in zip(own, served, strict=True)),
        "half_load_median_ms": 1000 * statistics.median(times),
        "half_load_p95_ms": 1000 * times[int(0.95 * len(times))],
        "idle_mb": idle_mb,
        "busy_mb": busy_mb,
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
