"""Receivers that are away under load: what is lost, doubled or out of order, and when the backlog shows.

    python benchmarks/sinks.py BUNDLE IMAGES --seconds 60 --output benchmarks/results/sinks.json

BUNDLE: of `invad export`. IMAGES: a folder, whose images are sent again and again. Two stations, each with
all outputs, are sent a picture in turn, so many a second. One output after the other loses its receiver for
--seconds: the webhook's port is closed, the broker (Debian's mosquitto) is killed, the folder of the files is
moved away. seen_s: until GET /api/v1/stations says that results wait and why. drained_s: from the moment the
receiver is back until nothing waits.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from invad.data.formats import IMAGE_SUFFIXES
from invad.evaluation.machine import facts

STATIONS = ("a", "b")
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
GATHER = 5.0
FIRST = 10.0
"""Seconds of load before the first outage and between two."""


class Webhook:
    """A receiver on a port that stays."""

    def __init__(self) -> None:
        self.port, self.seen = 0, list[tuple[str, int]]()
        self.begin()

    def begin(self) -> None:
        seen = self.seen

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                one = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append((one["station"], int(one["part_id"])))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Answering)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Broker:
    """mosquitto, and a subscriber whose session outlives the broker."""

    def __init__(self, folder: Path):
        self.port, self.folder, self.seen = free_port(), folder, list[tuple[str, int]]()
        folder.mkdir()
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 1000000"]
        lines += ["persistence true", f"persistence_location {folder}/", "autosave_interval 1"]
        lines += ["autosave_on_changes true", *(["user root"] if os.getuid() == 0 else [])]
        (folder / "conf").write_text("\n".join(lines) + "\n")
        self.begin()
        self.reader = reader = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="reader", protocol=paho.MQTTv5
        )
        ready = threading.Event()
        reader.on_connect = lambda client, *rest: client.subscribe("invad/+/+/result", 1)
        reader.on_subscribe = lambda *rest: ready.set()
        reader.on_message = lambda client, data, one: self.take(json.loads(one.payload))
        reader.reconnect_delay_set(1, 1)
        kept = Properties(PacketTypes.CONNECT)
        kept.SessionExpiryInterval = 36000
        reader.connect("127.0.0.1", self.port, clean_start=False, properties=kept)
        reader.loop_start()
        assert ready.wait(30)

    def take(self, one: dict[str, Any]) -> None:
        self.seen.append((one["station"], int(one["part_id"])))

    def begin(self) -> None:
        with (self.folder / "log").open("a") as log:
            command = [str(MOSQUITTO), "-c", str(self.folder / "conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(300):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise SystemExit((self.folder / "log").read_text())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Folders:
    """Where the files go, which may be away."""

    def __init__(self, folder: Path):
        self.folder, self.away = folder / "out", folder / "away"
        self.folder.mkdir()

    def begin(self) -> None:
        self.away.rename(self.folder)

    def end(self) -> None:
        self.folder.rename(self.away)

    def lines(self) -> list[tuple[str, int]]:
        import csv

        found = []
        for path in sorted(self.folder.glob("*.csv")):
            with path.open(newline="") as stream:
                found += [(row["station"], int(row["part_id"])) for row in csv.DictReader(stream)]
        return found

    def rows(self) -> list[tuple[str, int]]:
        found = []
        for path in sorted(self.folder.glob("*/*.parquet")):
            table = pq.read_table(path, columns=["station", "part_id"]).to_pylist()
            found += [(row["station"], int(row["part_id"])) for row in table]
        return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def started(folder: Path, bundle: Path, hook: Webhook, broker: Broker, out: Path) -> tuple[Any, str]:
    outputs = [
        {"kind": "webhook", "url": f"http://127.0.0.1:{hook.port}/"},
        {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{broker.port}"},
        {"kind": "csv", "path": str(out)},
        {"kind": "parquet", "path": str(out), "every": GATHER},
    ]
    lines = []
    for station in STATIONS:
        lines += ["[[station]]", f'name = "{station}"', f"model = {json.dumps(str(bundle.resolve()))}"]
        for output in outputs:
            lines += ["[[station.output]]", *(f"{key} = {json.dumps(one)}" for key, one in output.items())]
    (folder / "line.toml").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "invad", "serve", folder / "line.toml", "--data", folder / "line"]
    command += ["--port", "0", "--no-auth", "--reserve", "0", "--threads", "1"]
    with (folder / "said").open("w") as out_stream, (folder / "log").open("w") as log:
        process = subprocess.Popen([str(c) for c in command], stdout=out_stream, stderr=log, env=os.environ)
    while not (found := re.search(r"http://\S+?:\d+", (folder / "said").read_text())):
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        time.sleep(0.05)
    return process, found[0]


def states(http: httpx.Client, kind: str) -> list[dict[str, Any]]:
    """Of the outputs of that kind."""
    found = http.get("/api/v1/stations").json()["stations"]
    return [one for of in found for one in of["outputs"].values() if one["kind"] == kind]


def until(
    http: httpx.Client, kinds: Iterable[str], true: Callable[[dict[str, Any]], bool]
) -> dict[str, float]:
    """Seconds until it is true of all outputs of a kind, for each of these kinds."""
    began, left, took = time.monotonic(), list(kinds), dict[str, float]()
    while left:
        for kind in [kind for kind in left if all(true(one) for one in states(http, kind))]:
            took[kind] = round(time.monotonic() - began, 1)
            left.remove(kind)
        if time.monotonic() - began > 900:
            raise SystemExit(f"{left}: {[states(http, kind) for kind in left]}")
        time.sleep(0.1)
    return took


def usual(one: dict[str, Any], rate: float) -> float:
    """What waits in passing, at most; tables gather on purpose."""
    return 2 * GATHER * rate if one["kind"] == "parquet" else 3


def account(seen: list[tuple[str, int]], sent: dict[str, int]) -> dict[str, int]:
    """What came against what was sent; order counts what is first seen after a later one of its station."""
    first: dict[str, dict[int, None]] = defaultdict(dict)
    for station, number in seen:
        first[station].setdefault(number)
    distinct = sum(len(numbers) for numbers in first.values())
    disorder = 0
    for numbers in first.values():
        largest = -1
        for number in numbers:
            disorder += number < largest
            largest = max(largest, number)
    return {
        "sent": sum(sent.values()),
        "delivered": distinct,
        "lost": sum(sent.values()) - distinct,
        "out_of_order": disorder,
        "doubled": len(seen) - distinct,
    }


def run(bundle: Path, images: list[Path], seconds: float, rate: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        hook, broker, files = Webhook(), Broker(folder / "broker"), Folders(folder)
        process, url = started(folder, bundle, hook, broker, files.folder)
        http = httpx.Client(base_url=url, timeout=120, trust_env=False)
        sent, over = dict.fromkeys(STATIONS, 0), threading.Event()

        def load() -> None:
            with httpx.Client(base_url=url, timeout=120, trust_env=False) as own:
                contents = [path.read_bytes() for path in images]
                number, began = 0, time.monotonic()
                while not over.wait(max(0.0, began + number / rate - time.monotonic())):
                    station = STATIONS[number % len(STATIONS)]
                    answer = own.post(
                        f"/api/v1/stations/{station}/inspect",
                        params={"part_id": str(sent[station])},
                        content=contents[number % len(contents)],
                        headers={"Content-Type": "image/png"},
                    )
                    answer.raise_for_status()
                    sent[station] += 1
                    number += 1

        loading = threading.Thread(target=load)
        loading.start()
        began, times = time.monotonic(), dict[str, dict[str, float]]()
        for receiver, kinds in ((hook, ["webhook"]), (broker, ["mqtt"]), (files, ["csv", "parquet"])):
            time.sleep(FIRST)
            receiver.end()
            away = time.monotonic()
            seen = until(http, kinds, lambda one: bool(one["problem"] and one["waiting"]))
            time.sleep(max(0.0, away + seconds - time.monotonic()))
            waiting = {kind: sum(one["waiting"] for one in states(http, kind)) for kind in kinds}
            receiver.begin()
            drained = until(
                http, kinds, lambda one: one["problem"] is None and one["waiting"] <= usual(one, rate)
            )
            for kind in kinds:
                times[kind] = {"seen_s": seen[kind], "waited": waiting[kind], "drained_s": drained[kind]}
                print(kind, times[kind], flush=True)
        over.set()
        loading.join()
        until(http, ("webhook", "mqtt", "csv", "parquet"), lambda one: one["waiting"] == 0)
        took = time.monotonic() - began
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        process.wait()
        broker.reader.disconnect()
        hook.end()
        broker.end()
        return {
            "outage_s": seconds,
            "parts_per_second": round(sum(sent.values()) / took, 1),
            **{
                kind: {**times[kind], **account(seen, sent)}
                for kind, seen in (
                    ("webhook", hook.seen),
                    ("mqtt", broker.seen),
                    ("csv", files.lines()),
                    ("parquet", files.rows()),
                )
            },
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=8, help="Parts a second.")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    images = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)[:50]
    made = {
        "what": __doc__.partition("\n")[0],
        "machine": facts(),
        "rate_asked": options.rate,
        **run(options.bundle, images, options.seconds, options.rate),
    }
    print(json.dumps(made, indent=1), flush=True)
    options.output.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
