"""Training and prediction on an idle machine and beside one process that never rests.

    python benchmarks/busy.py --output benchmarks/results/busy.json
    python benchmarks/busy.py --subjects onnxruntime,openvino ...     # these rows anew, the others stay

Each way of waiting has a process of its own, in which idle and busy stretches alternate; the busy neighbour
is started and ended with each stretch. Ways: `spinning`, what PyTorch and ONNX Runtime do unasked; `asleep`,
what the command `invad` does; `library`, what `invad.Detector` does where torch was loaded before it.
`others_idle` and `others_busy` are the shares of the machine that further processes had: repeat spoiled rows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PRESETS = ("fast", "standard")
WAYS = {
    "training": ("spinning", "asleep", "library"),
    "torch": ("spinning", "asleep", "library"),
    "onnxruntime": ("spinning", "asleep"),
    "openvino": ("asleep",),
}
STRETCHES = 3  # of each kind
STEPS, IMAGES = 8, 24  # of a stretch; the first two are not counted
SEED = 0
LONGEST = 120
"""Seconds after which a neighbour ends by itself."""

NEIGHBOUR = f"import time\nend = time.monotonic() + {LONGEST}\nwhile time.monotonic() < end: pass"


class Stretches:
    """Alternates idle and busy stretches of `length` ticks; keeps the seconds of each tick."""

    def __init__(self, length: int):
        self.length, self.ticks, self.neighbour = length, 0, None
        self.seconds: dict[str, list[float]] = {"idle": [], "busy": []}
        self.others: dict[str, list[float]] = {"idle": [], "busy": []}
        self.total = 2 * STRETCHES * length

    def tick(self) -> None:
        """One step or image is done; the first call only starts the clock."""
        now = time.perf_counter()
        stretch, place = divmod(self.ticks - 1, self.length)
        kind = ("idle", "busy")[stretch % 2]
        if self.ticks > 0 and place >= 2:
            self.seconds[kind].append(now - self.last)
        if self.ticks > 0 and place == self.length - 1:
            self.others[kind].append(self._others())
        if self.ticks % self.length == 0:
            self._turn((self.ticks // self.length) % 2 == 1 and self.ticks < self.total)
        self.ticks += 1
        self.last = time.perf_counter()

    def _turn(self, busy: bool) -> None:
        if self.neighbour is not None:
            self.neighbour.kill()
            self.neighbour.wait()
            self.neighbour = None
        if busy:
            self.neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
            time.sleep(0.3)
        self.start = (time.perf_counter(), _used(), _own(self.neighbour))

    def _others(self) -> float:
        since, used, own = self.start
        foreign = (_used() - used) - (_own(self.neighbour) - own)
        return max(0.0, foreign / (time.perf_counter() - since) / (os.cpu_count() or 1))

    def row(self) -> dict[str, float]:
        idle, busy = (statistics.median(self.seconds[kind]) for kind in ("idle", "busy"))
        return {
            "idle_ms": round(1e3 * idle, 1),
            "busy_ms": round(1e3 * busy, 1),
            "busy_mean_ms": round(1e3 * statistics.mean(self.seconds["busy"]), 1),
            "ratio": round(busy / idle, 2),
            "others_idle": round(statistics.median(self.others["idle"]), 2),
            "others_busy": round(statistics.median(self.others["busy"]), 2),
        }


def _used() -> float:
    """Processor seconds of all processes since the machine started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / os.sysconf("SC_CLK_TCK")


def _own(neighbour: "subprocess.Popen[bytes] | None") -> float:
    """Processor seconds of this process and its neighbour."""
    if neighbour is None:
        return time.process_time()
    fields = Path(f"/proc/{neighbour.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return time.process_time() + sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def measure(subject: str, preset: str, way: str, work: Path) -> dict[str, float]:
    """One row, in the process that this is."""
    if way == "asleep":
        from invad.system.waiting import sleep_in_this_process

        sleep_in_this_process()
    elif way == "library":
        import torch  # noqa: F401
    if subject == "training":
        return _training(preset, work)
    return _prediction(subject, preset, way, work)


def _training(preset: str, work: Path) -> dict[str, float]:
    from invad import Detector

    stretches = Stretches(STEPS)

    class Recorder:
        def record(self, stage: str, step: int, values: Mapping[str, float]) -> None:
            stretches.tick()

    steps = stretches.total + 1
    Detector.fit(work / "parts", preset=preset, steps=steps, seed=SEED, device="cpu", recorder=Recorder())
    return stretches.row()


def _prediction(subject: str, preset: str, way: str, work: Path) -> dict[str, float]:
    from invad.data.images import read_image

    pixels = read_image(sorted((work / "parts").rglob("*.png"))[0])
    predict = _predictor(subject, preset, way, work)
    stretches = Stretches(IMAGES)
    predict(pixels)
    for _ in range(stretches.total + 1):
        predict(pixels)
        stretches.tick()
    return stretches.row()


def _predictor(subject: str, preset: str, way: str, work: Path) -> Callable[[Any], Any]:
    from invad import Detector
    from invad.runtime import load

    if subject == "torch":
        return Detector.load(work / preset, device="cpu").predict
    exported = load(work / f"{preset}-{subject}", subject)
    if way == "spinning":
        import onnxruntime as ort

        graph = next((work / f"{preset}-{subject}").glob("*.onnx"))
        exported.engine.session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    return exported.predict


def prepare(work: Path) -> None:
    """Drawn parts, and of each preset a model of a few steps and its bundles: what is measured is time."""
    from invad import Detector
    from invad.data.synthetic import write_dataset

    if not (work / "parts").exists():
        write_dataset(work / "parts", categories=["gasket"], train=60, test_good=1, per_defect=1, seed=SEED)
    for preset in PRESETS:
        if not (work / preset).exists():
            fitted = Detector.fit(work / "parts", preset=preset, steps=4, seed=SEED, device="cpu")
            fitted.save(work / preset)
        for subject, format in (("onnxruntime", "onnx"), ("openvino", "openvino")):
            bundle = work / f"{preset}-{subject}"
            if not bundle.exists():
                command = [sys.executable, "-m", "invad", "export", work / preset, "--output", bundle]
                subprocess.run([*command, "--format", format, "--size", "256x256"], check=True)


def rows(subjects: list[str], work: Path) -> Iterator[dict[str, Any]]:
    unset = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    for subject in subjects:
        for preset in PRESETS:
            for way in WAYS[subject]:
                # OpenMP's own default, said aloud: the detector would have its threads sleep.
                asked = {"GOMP_SPINCOUNT": "300000"} if way == "spinning" else {}
                child = subprocess.run(
                    [sys.executable, __file__, "--child", subject, preset, way, "--work", str(work)],
                    env={**unset, **asked},
                    stdout=subprocess.PIPE,
                    check=True,
                )
                row = {"subject": subject, "preset": preset, "waiting": way, **json.loads(child.stdout)}
                print(json.dumps(row), flush=True)
                yield row


@contextmanager
def kept(output: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows of the file; those added take the places of those of the same name."""
    from invad.evaluation.machine import facts

    before = json.loads(output.read_text())["rows"] if output.exists() else []
    new: list[dict[str, Any]] = []
    try:
        yield new
    finally:
        named = {(row["subject"], row["preset"], row["waiting"]): row for row in [*before, *new]}
        command = "python benchmarks/busy.py --output benchmarks/results/busy.json"
        found = {"command": command, "seed": SEED, "machine": facts(), "rows": list(named.values())}
        output.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("busy.json"))
    parser.add_argument("--subjects", default=",".join(WAYS), help="some of " + ", ".join(WAYS))
    parser.add_argument("--work", type=Path, default=Path("busy"), help="folder for parts and models")
    parser.add_argument("--prepare", action="store_true", help="make parts and models, measure nothing")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(*given.child, given.work)))
        return
    prepare(given.work)
    if not given.prepare:
        with kept(given.output) as new:
            new.extend(rows(given.subjects.split(","), given.work))


if __name__ == "__main__":
    main()
