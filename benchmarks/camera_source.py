"""A camera that is lost ten times: seconds until it is back, frames counted twice, and memory.

    python benchmarks/camera_source.py BUNDLE --output benchmarks/results/camera_source.json

BUNDLE: of `invad export`. A camera of our own shows 640 x 480 pixels as MJPEG over HTTP, `--rate` times a
second, each frame a picture of its own, and begins every connection with the frame that it showed last, as
some do. It is cut in three ways in turn: its connection ends, it is off for two seconds, it is silent for
eight. Reconnecting is measured from the moment at which it is there again until three new results are stored.
memory: of the process of the service, once a second.
"""

import argparse
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from invad.evaluation.machine import facts

SIZE = (480, 640)
OFF_SECONDS, SILENT_SECONDS, TIMEOUT = 2.0, 8.0, 3.0


class Camera:
    """MJPEG over HTTP; all who watch see the same frames."""

    def __init__(self, rate: float):
        rng = np.random.default_rng(0)
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        base = 110 + 60 * np.sin(x / 40) + 30 * np.cos(y / 30)
        self._base = (base + rng.normal(0, 4, SIZE)).clip(0, 255).astype(np.uint8)
        self.rate, self.silent, self.generation = rate, False, 0
        self.digests: dict[str, int] = {}
        self.shown = threading.Condition()
        self.number, self.frame = -1, b""
        self.port = 0
        self.listen()
        threading.Thread(target=self._show, daemon=True).start()

    def _show(self) -> None:
        due = time.monotonic()
        while True:
            number = self.number + 1
            pixels = self._base.copy()
            for bit in range(24):  # the number, which no two frames share
                pixels[:16, 16 * bit : 16 * bit + 16] = 255 * (number >> bit & 1)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "JPEG", quality=90)
            with self.shown:
                self.number, self.frame = number, stream.getvalue()
                self.digests[sha256(self.frame).hexdigest()] = number
                self.shown.notify_all()
            due = max(due + 1 / self.rate, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def listen(self) -> None:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.serve(self)

            def log_message(self, *words: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *of: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        generation, last = self.generation, -1
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        while generation == self.generation:
            with self.shown:
                number, frame = self.number, self.frame
                if number == last or self.silent:
                    self.shown.wait(1)
                    continue
            last = number
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
            request.wfile.write(head.encode() + frame + b"\r\n")

    def cut(self) -> None:
        self.generation += 1

    def leave(self) -> None:
        self.cut()
        self.server.shutdown()
        self.server.server_close()


class Service:
    """A process with one station."""

    def __init__(self, folder: Path, bundle: Path, url: str, policy: str):
        table = {"kind": "camera", "url": url, "policy": policy, "timeout": TIMEOUT}
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        head = f'[[station]]\nname = "a"\nmodel = {json.dumps(str(bundle.resolve()))}\n[station.source]\n'
        (folder / "line.toml").write_text(head + "\n".join(lines) + "\n")
        log = folder / "out"
        command = [sys.executable, "-m", "invad", "serve", folder / "line.toml", "--data", folder / "line"]
        command += ["--port", "0", "--no-auth", "--reserve", "0", "--threads", "1"]
        log.write_text("")
        with log.open("w") as out, (folder / "err").open("a") as err:
            self.process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=err, env=os.environ)
        while not (found := re.search(r"http://\S+?:\d+", log.read_text())):
            assert self.process.poll() is None, (folder / "err").read_text()[-2000:]
            time.sleep(0.05)
        self.http = httpx.Client(base_url=found[0], timeout=60, trust_env=False)

    def source(self) -> dict[str, Any]:
        return dict(self.http.get("/api/v1/stations").json()["stations"][0]["source"])

    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 2**20

    def digests(self) -> list[str]:
        found, before = [], None
        while True:
            wanted = {"station": "a", "limit": 1000} | ({"cursor": before} if before else {})
            page = self.http.get("/api/v1/results", params=wanted).json()
            found += [one["image_sha256"] for one in page["results"]]
            before = page["next"]
            if before is None:
                return found

    def end(self) -> None:
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def lose(camera: Camera, service: Service, way: str) -> dict[str, Any]:
    """Cut the camera off in one way, and measure how it comes back."""
    if way == "cut":
        taken = service.source()["taken"]
        camera.cut()
    elif way == "off":
        camera.leave()
        time.sleep(OFF_SECONDS)
        taken = service.source()["taken"]
        camera.listen()
    else:
        camera.silent = True
        time.sleep(SILENT_SECONDS)
        taken = service.source()["taken"]
        camera.silent = False
    there = time.monotonic()
    # Two may have been under way when it was cut.
    while (state := service.source())["taken"] < taken + 3:
        if time.monotonic() - there > 120:
            raise SystemExit(state["problem"] or "no more frames come")
        time.sleep(0.01)
    return {"way": way, "seconds": round(time.monotonic() - there, 2)}


def run(bundle: Path, seconds: float, cuts: int, rate: float, policy: str) -> dict[str, Any]:
    camera = Camera(rate)
    with tempfile.TemporaryDirectory() as scratch:
        service = Service(Path(scratch), bundle, f"http://127.0.0.1:{camera.port}/video", policy)
        memory: list[float] = []
        lost: list[dict[str, Any]] = []
        begun = time.monotonic()
        while (now := time.monotonic() - begun) < seconds:
            if len(lost) < cuts and now >= (len(lost) + 1) * seconds / (cuts + 1):
                lost.append(lose(camera, service, ("cut", "off", "silent")[len(lost) % 3]))
            memory.append(service.memory_mb())
            time.sleep(1)
        state = service.source()
        found = service.digests()
        service.end()
    quarter = max(1, len(memory) // 4)
    known = [camera.digests[one] for one in found if one in camera.digests]
    return {
        "seconds": seconds,
        "policy": policy,
        "rate": rate,
        "shown": camera.number + 1,
        "taken": state["taken"],
        "skipped": state["skipped"],
        "failed": state["failed"],
        "results": len(found),
        "unknown": len(found) - len(known),
        "counted_twice": len(known) - len(set(known)),
        "lost": lost,
        "reconnect_median_s": statistics.median(one["seconds"] for one in lost),
        "reconnect_largest_s": max(one["seconds"] for one in lost),
        "memory_mb": {
            "second_quarter": round(statistics.median(memory[quarter : 2 * quarter]), 1),
            "last_quarter": round(statistics.median(memory[-quarter:]), 1),
            "largest": round(max(memory), 1),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--rate", type=float, default=25)
    parser.add_argument("--policy", choices=("every", "latest"), default="latest")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    made = {
        "what": __doc__.partition("\n")[0],
        "machine": facts(),
        "timeout_s": TIMEOUT,
        **run(options.bundle, options.seconds, options.cuts, options.rate, options.policy),
    }
    print(json.dumps({key: value for key, value in made.items() if key != "machine"}, indent=1), flush=True)
    options.output.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
