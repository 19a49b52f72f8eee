"""What the service costs, keeps up with and survives; each part writes its figures into one JSON file.

    python benchmarks/serve.py speed BUNDLE --output benchmarks/results/serve.json
    python benchmarks/serve.py overload BUNDLE --seconds 600 --output ...
    python benchmarks/serve.py history --rows 10000000 --output ...
    python benchmarks/serve.py drift --output ...

speed: parts a second over HTTP beside the engine's own rate, which is that of `predict_many` on the same JPEG
files with the same threads. Stretches of both take turns, the service being idle while the engine runs, so
that other load meets both; figures are medians, the share is that of each pair. Half load is a part every two
times the engine's own time.
overload: clients that never wait ask for more than there is, and the service is killed twice; what was
accepted has to be stored and delivered.
history: SQLite, filled with made-up rows; pages and queue are read as the service reads them.
drift: streams of made-up scores: no change, a ramp, a burst of defects; and of the scores that a bundle gives
to images that grow brighter by 2 % a day.
"""

import argparse
import http.client
import json
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from invad import runtime
from invad.evaluation.machine import facts
from invad.runtime.bundle import BUNDLE, content_hash
from invad.scoring.calibration import Calibration
from invad.scoring.drift import DriftSettings, Monitor, start
from invad.serve import Client
from invad.serve.ids import RANDOM_BITS, text_of
from invad.serve.store import results, reviews, stations
from invad.serve.store.database import FILE, Database, now_ms

PATH = "/api/v1/stations/default/inspect"
KIND = {"Content-Type": "image/jpeg"}
DAY_MS = 24 * 3600 * 1000


def pictures(folder: Path, count: int, width: int, height: int, source: Path | None = None) -> list[Path]:
    """JPEG files of the images in a folder, or of smooth noise, which a model calls bad."""
    rng, paths = np.random.default_rng(0), []
    files = sorted(source.rglob("*.png"))[:count] if source else []
    for number in range(len(files) or count):
        coarse = rng.integers(60, 190, (height // 16, width // 16, 3), dtype=np.uint8)
        image = Image.open(files[number]).convert("RGB") if files else Image.fromarray(coarse)
        path = folder / f"{number:03}.jpg"
        image.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(path)
    return paths


class Service:
    """A process of its own, without keys."""

    def __init__(self, bundle: Path, data: Path, threads: int, *more: object, port: int = 0):
        options = ["--threads", threads, "--reserve", 0, "--port", port, "--no-auth", *more]
        command = [sys.executable, "-m", "invad", "serve", bundle, "--data", data, *options]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [str(word) for word in command],
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

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


# ---------------------------------------------------------------------- speed


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


def shadow_of(bundle: Path, folder: Path, port: int) -> None:
    """Let the same model under another date shadow the station."""
    copy = Path(shutil.copytree(bundle, folder / "shadow"))
    plain = json.loads((copy / BUNDLE).read_text())
    files = plain.pop("files")
    del plain["content_hash"]
    plain["created"] = f"{plain['created']}, as a shadow"
    whole = {**plain, "files": files, "content_hash": content_hash(plain, files)}
    (copy / BUNDLE).write_text(json.dumps(whole))
    with Client(f"http://127.0.0.1:{port}") as client:
        made = client.add_version(copy, bundle.resolve().name)
        client.shadow(made["model"], made["hash"])


def at_half_load(port: int, bodies: list[bytes], pause: float, seconds: float) -> tuple[float, float]:
    """(median, 95th percentile) of the waiting times, in milliseconds."""
    times = sorted(waits(port, bodies, pause, max(20 * pause, seconds)))
    return 1000 * statistics.median(times), 1000 * times[int(0.95 * len(times))]


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Rates, waiting times and memory."""
    height, width = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        paths = pictures(Path(folder), 16, width, height, options.pictures)
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
            alone = at_half_load(service.port, bodies, pause, 2 * options.seconds)
            busy_mb = service.resident_mb()
            shadow_of(options.bundle, Path(folder), service.port)
            shadowed = at_half_load(service.port, bodies, pause, 2 * options.seconds)
        finally:
            service.stop()
    shares = sorted(b / a for a, b in zip(own, served, strict=True))
    return {
        "bundle": {"preset": detector.info.preset, "engine": detector.engine.name},
        "pictures": f"{'good parts' if options.pictures else 'noise'}, JPEG, {height} x {width}",
        "threads": options.threads,
        "pairs": options.pairs,
        "engine_per_second": statistics.median(own),
        "served_per_second": statistics.median(served),
        "share": statistics.median(shares),
        "share_spread": [shares[0], shares[-1]],
        "half_load_median_ms": alone[0],
        "half_load_p95_ms": alone[1],
        "half_load_with_a_shadow_median_ms": shadowed[0],
        "half_load_with_a_shadow_p95_ms": shadowed[1],
        "idle_mb": idle_mb,
        "busy_mb": busy_mb,
    }


# ---------------------------------------------------------------------- overload


DELIVERED: set[str] = set()
"""Ids that the webhook was given."""


class Receiver(BaseHTTPRequestHandler):
    """A webhook."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        DELIVERED.add(self.headers["X-Invad-Id"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Load(threading.Thread):
    """A client that never waits: what is refused is asked again at once, under the same name."""

    def __init__(self, port: int, bodies: list[bytes], own: int, end: float):
        super().__init__(daemon=True)
        self.port, self.bodies, self.own, self.end = port, bodies, own, end
        self.accepted: dict[str, str] = {}
        self.refused = self.lost = 0
        self.times: list[float] = []

    def run(self) -> None:
        connection, number = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60), 0
        while time.monotonic() < self.end:
            name = f"{self.own}-{number}"
            started = time.perf_counter()
            try:
                body = self.bodies[number % len(self.bodies)]
                connection.request("POST", f"{PATH}?request_id={name}", body, KIND)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                self.lost += 1
                connection.close()
                time.sleep(0.05)
                continue
            if answer.status == 200:
                self.accepted[name] = json.loads(content)["id"]
                self.times.append(time.perf_counter() - started)
                number += 1
            else:
                assert answer.status == 503, content
                self.refused += 1
                time.sleep(0.01)


def overload(options: argparse.Namespace) -> dict[str, Any]:
    """Three times what it can, with two kills."""
    with tempfile.TemporaryDirectory() as folder:
        bodies = [path.read_bytes() for path in pictures(Path(folder), 16, 160, 120)]
        receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        line = Path(folder) / "line"
        more = ("--webhook", f"http://127.0.0.1:{receiver.server_port}/", "--queue", options.queue)
        service = Service(options.bundle, line, options.threads, *more, port=port)
        end = time.monotonic() + options.seconds
        clients = [Load(port, bodies, own, end) for own in range(3 * options.queue)]
        for one in clients:
            one.start()
        memory = []
        for _ in range(2):
            time.sleep(options.seconds / 3)
            memory.append(service.resident_mb())
            service.kill()
            service = Service(options.bundle, line, options.threads, *more, port=port)
        for one in clients:
            one.join()
        memory.append(service.resident_mb())
        accepted = {name: id for one in clients for name, id in one.accepted.items()}
        until = time.monotonic() + 120
        while not set(accepted.values()) <= DELIVERED and time.monotonic() < until:
            time.sleep(0.2)
        service.stop()
        with sqlite3.connect(line / FILE) as connection:
            rows = dict(connection.execute("SELECT request_id, id FROM result"))
            count = connection.execute("SELECT count(*), count(DISTINCT id) FROM result").fetchone()
        times = sorted(seconds for one in clients for seconds in one.times)
    return {
        "seconds": options.seconds,
        "clients": len(clients),
        "queue": options.queue,
        "accepted": len(accepted),
        "refused": sum(one.refused for one in clients),
        "lost_connections": sum(one.lost for one in clients),
        "stored": count[0],
        "distinct_ids": count[1],
        "accepted_and_not_stored": sum(rows.get(name) != id for name, id in accepted.items()),
        "accepted_and_not_delivered": len(set(accepted.values()) - DELIVERED),
        "p95_ms": 1000 * times[int(0.95 * len(times))],
        "resident_mb": memory,
    }


# ---------------------------------------------------------------------- history


def fill(path: Path, rows: int, first: int, step: int) -> None:
    """Made-up results, one every `step` milliseconds from `first` on; 2 % flagged, a tenth of those unseen.

    Indices are taken away and made again, as a bulk load does.
    """
    connection = sqlite3.connect(path)
    for line in (
        "synchronous = OFF",
        "journal_mode = MEMORY",
        "cache_size = -1000000",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {line}")
    connection.create_function(
        "ulid", 1, lambda n: text_of((first + n * step) << RANDOM_BITS | n), deterministic=True
    )
    indices = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'result' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indices:
        connection.execute(f"DROP INDEX {name}")
    version = connection.execute("SELECT hash FROM model_version").fetchone()[0]
    values = {
        "id": "ulid(n)",
        "station": "'default'",
        "time": f"{first} + n * {step}",
        "part_id": "'P' || n",
        "lot": "'L' || (n / 5000)",
        "source": "'http'",
        "request_id": "'R' || n",
        "image_sha256": "printf('%064x', n * 2654435761)",
        "image_kept": "0",
        "map_kept": "0",
        "width": "640",
        "height": "480",
        "model": "'widget'",
        "model_version": f"'{version}'",
        "calibration": "1",
        "score": "1.0 + (n * 7919 % 1000) / 1000.0",
        "peak": "2.0",
        "p_value": "0.5",
        "decision": "CASE WHEN n % 50 THEN 'good' WHEN n % 100 THEN 'review' ELSE 'bad' END",
        "verdict": "CASE WHEN n % 50 = 0 AND n % 500 THEN 'good' END",
        **dict.fromkeys(("review_limit", "bad_limit", "map_review_limit", "map_bad_limit"), "3.0"),
        **{f"ms_{stage}": "1.5" for stage in ("queue", "decode", "infer", "store")},
    }
    at_a_time = 500_000
    for begin in range(0, rows, at_a_time):
        last = min(rows, begin + at_a_time) - 1
        connection.execute(
            f"WITH RECURSIVE c(n) AS (SELECT {begin} UNION ALL SELECT n + 1 FROM c WHERE n < {last}) "
            f"INSERT INTO result ({', '.join(values)}) SELECT {', '.join(values.values())} FROM c"
        )
        connection.commit()
    for _, sql in indices:
        connection.execute(sql)
    connection.execute("ANALYZE")
    connection.commit()
    connection.close()


def milliseconds(work: Callable[[], object], times: int = 15) -> list[float]:
    """(median, largest) of the times of a piece of work, the first included: it finds no cache."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - started))
    return [statistics.median(found), max(found)]


def history(options: argparse.Namespace) -> dict[str, Any]:
    """Pages and queue of a long history, and what a year takes."""
    folder = Path(tempfile.mkdtemp())
    try:
        database = Database(folder)
        limits = Calibration(scores=tuple(range(40)), peaks=tuple(range(40)))
        with database.write() as connection:
            stations.add_version(connection, "0" * 64, "widget", {"engine": "none"})
            stations.activate(connection, "default", "0" * 64, {"": limits})
        database.close()
        step = 1000
        first = now_ms() - options.rows * step
        started = time.perf_counter()
        fill(folder / FILE, options.rows, first, step)
        filled = time.perf_counter() - started
        size = (folder / FILE).stat().st_size
        database = Database(folder)

        def page(**query: Any) -> Callable[[], object]:
            def read() -> object:
                with database.read() as connection:
                    return results.page(connection, results.Query(**query))

            return read

        def claim() -> object:
            with database.write() as connection:
                return reviews.claim_next(connection, "somebody", 20, "default")

        def waiting() -> object:
            with database.read() as connection:
                return reviews.waiting(connection)

        middle = first + options.rows // 2 * step
        found = {
            "first_page": milliseconds(page()),
            "page_of_the_middle": milliseconds(page(before=text_of(middle << RANDOM_BITS))),
            "bad_ones": milliseconds(page(decision="bad")),
            "station_and_hour_of_the_middle": milliseconds(
                page(station="default", since=middle, until=middle + 3_600_000)
            ),
            "part": milliseconds(page(part_id=f"P{options.rows // 3}")),
            "lot": milliseconds(page(lot="L7")),
            "unreviewed_bad_ones": milliseconds(page(decision="bad", reviewed=False)),
            "review_queue": milliseconds(claim),
            "number_that_waits": milliseconds(waiting),
        }
        database.close()
    finally:
        shutil.rmtree(folder)
    year = 365 * 24 * 3600
    per_row, picture, its_map = size / options.rows, 48_000, 24_000
    flagged = 0.02
    kept = 7 * 24 * 3600 * (1 - flagged) + year * flagged
    return {
        "rows": options.rows,
        "fill_seconds": filled,
        "bytes_per_row": per_row,
        "median_and_largest_ms": found,
        "slowest_ms": max(largest for _, largest in found.values()),
        "a_year_of_one_part_a_second": {
            "rows": year,
            "rows_gb": year * per_row / 1e9,
            "pictures_kept": round(kept),
            "pictures_gb": kept * (picture + its_map) / 1e9,
            "of": "JPEG of 48 kB, map of 24 kB (480 x 640, drawn gaskets), 2 % flagged, default retention",
        },
    }


# ---------------------------------------------------------------------- drift


def normal_limits(rng: np.random.Generator, n: int) -> Calibration:
    scores = tuple(rng.normal(0, 1, n).tolist())
    return Calibration(scores=scores, peaks=scores)


def undrifted(parts: int, evidence: float, seed: int) -> dict[str, Any]:
    """Notices and alarms of a stream without a change; a monitor begins anew after each notice."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1, parts)
    notices = alarms = 0
    settings = DriftSettings(evidence=evidence)

    def begun() -> Monitor:
        return start(normal_limits(rng, 500), settings, int(rng.integers(1 << 60)))

    monitor = begun()
    for score in scores:
        reading = monitor.update(float(score))
        if reading.notice:
            notices += 1
            alarms += reading.alarm
            monitor = begun()
    return {
        "parts": parts,
        "evidence": evidence,
        "notices": notices,
        "at_most_expected": parts / evidence,
        "alarms": alarms,
    }


Days = list[tuple[float, float]]
"""Mean and spread of normal scores on each day, in spreads of the first day."""


def brighter(bundle: Path, folder: Path, share: float, days: int) -> Days:
    """Of the scores of images that grow brighter by a share of the first day's levels each day."""
    detector = runtime.load(bundle, threads=1)
    paths = sorted(path for path in folder.rglob("*.png"))[:40]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]

    def scores(day: int) -> list[float]:
        gained = [(image * (1 + share * day)).clip(0, 255).astype(np.uint8) for image in images]
        return [detector.predict(image).score for image in gained]

    found = [scores(day) for day in range(days)]
    middle, spread = float(np.mean(found[0])), float(np.std(found[0]))
    return [((float(np.mean(day)) - middle) / spread, float(np.std(day)) / spread) for day in found]


def ramp(seed: int, per_day: int, days: Days) -> dict[str, Any]:
    """Days until the alarm, and until the review rate of a day has doubled."""
    rng = np.random.default_rng(seed)
    limits = normal_limits(rng, 500)
    monitor, limit = start(limits, DriftSettings(), seed), limits.score_limits()[0]
    rate_before = float((rng.normal(0, 1, 100_000) > limit).mean())
    alarm = doubled = None
    for day, (middle, spread) in enumerate(days):
        scores = rng.normal(middle, spread, per_day)
        if doubled is None and float((scores > limit).mean()) > 2 * rate_before:
            doubled = day + 1.0  # known when the day is over
        for number, score in enumerate(scores):
            if alarm is None and monitor.update(float(score)).alarm:
                alarm = day + number / per_day
        if alarm is not None and doubled is not None:
            break
    return {"alarm_day": alarm, "review_rate_doubled_day": doubled}


def ramps(days: Days, streams: int) -> dict[str, Any]:
    """Several of them."""
    found = [ramp(seed, 5000, days) for seed in range(streams)]
    never = float(len(days))
    alarms = [never if one["alarm_day"] is None else one["alarm_day"] for one in found]
    doubled = [one["review_rate_doubled_day"] or never for one in found]
    return {
        "shift_of_each_day": [round(middle, 3) for middle, _ in days[:12]],
        "parts_a_day": 5000,
        "streams": streams,
        "named_before_the_review_rate_doubled": sum(a < b for a, b in zip(alarms, doubled, strict=True)),
        "median_alarm_day": statistics.median(alarms),
        "median_day_of_doubling": statistics.median(doubled),
    }


def burst(seed: int, share: float, parts: int) -> bool:
    """Whether a burst of defects, far above the normal scores, gives an alarm."""
    rng = np.random.default_rng(seed)
    monitor = start(normal_limits(rng, 500), DriftSettings(), seed)
    for number in range(2 * parts):
        is_defect = number >= parts and rng.random() < share
        if monitor.update(float(rng.normal(4 if is_defect else 0, 1))).alarm:
            return True
    return False


def drift(options: argparse.Namespace) -> dict[str, Any]:
    """No change, ramps, a burst."""
    slow = [(day * 0.05, 1.0) for day in range(200)]
    found = {
        "undrifted": [undrifted(options.parts, evidence, 1) for evidence in (1e4, 1e6)],
        "ramp": ramps(slow, options.streams),
        "burst_of_20_percent": {
            "streams": options.streams,
            "alarms": sum(burst(seed, 0.2, 2500) for seed in range(options.streams)),
        },
    }
    if options.bundle and options.pictures:
        found["lamp_2_percent_a_day"] = ramps(
            brighter(options.bundle, options.pictures, 0.02, options.days), options.streams
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True, dest="part")
    of_speed, of_overload = parts.add_parser("speed"), parts.add_parser("overload")
    of_history, of_drift = parts.add_parser("history"), parts.add_parser("drift")
    for one in (of_speed, of_overload):
        one.add_argument("bundle", type=Path)
        one.add_argument("--threads", type=int, default=1)
    of_speed.add_argument("--size", default="480x640", help="height x width of the pictures")
    of_speed.add_argument("--pictures", type=Path, help="folder of good images (.png) in place of noise")
    of_speed.add_argument("--seconds", type=float, default=5, help="of one stretch")
    of_speed.add_argument("--pairs", type=int, default=5)
    of_overload.add_argument("--seconds", type=float, default=600)
    of_overload.add_argument("--queue", type=int, default=16)
    of_history.add_argument("--rows", type=int, default=10_000_000)
    of_drift.add_argument("--parts", type=int, default=200_000)
    of_drift.add_argument("--streams", type=int, default=20)
    of_drift.add_argument("--bundle", type=Path, help="with --pictures: a lamp that grows brighter")
    of_drift.add_argument("--pictures", type=Path, help="folder of good images")
    of_drift.add_argument("--days", type=int, default=12)
    for one in (of_speed, of_overload, of_history, of_drift):
        one.add_argument("--output", type=Path)
    options = parser.parse_args()
    work = {"speed": speed, "overload": overload, "history": history, "drift": drift}[options.part]
    found = {"machine": facts(), **work(options)}
    print(json.dumps(found, indent=1))
    if options.output:
        before = json.loads(options.output.read_text()) if options.output.exists() else {}
        options.output.write_text(json.dumps({**before, options.part: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
