"""The whole path in one call: images, training, test, report; on drawn parts or a user's own images."""

import json
import random
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invad.data.datasets import load_dataset
from invad.data.samples import read_sample
from invad.data.synthetic import write_dataset
from invad.detector.detector import Detector
from invad.errors import DataError
from invad.evaluation.evaluate import Evaluation, evaluate
from invad.evaluation.told import describe
from invad.fit.run import Run
from invad.observer import Observer, Silent
from invad.records import Sample, ScoredSample
from invad.report import save_overlay, write_report
from invad.scoring.calibration import for_category
from invad.scoring.holding import hold_out
from invad.system.files import fitting_name, write_atomically, writing

CATEGORIES = ("gasket", "brushed_metal", "fabric", "solder_chip")
TRAIN, TEST_GOOD, PER_DEFECT = 100, 30, 8
"""Drawn images per category: good ones to learn from, good ones to test, and of each kind of defect.

Each of the first is held out once: 99 are the fewest that can vouch for a false-alarm rate of 1 %.
"""

MARK = ".invad-demo"
OWN = ("data", "model", "overlays", "line", "report.html", "summary.json")
"""What a demo and its service write, and all that the next one removes."""

OVERLAYS_PER_CATEGORY = 3
GOOD_FOR_ONE_DEFECT = 8
"""On the line that a service shows."""

FEWEST_NORMALS = 10
"""Without a test set fewer good images leave nothing to set aside."""

SYNTHETIC_NOTE = (
    "The images are synthetic, drawn by invad itself. The figures show that the path works, not how well it "
    "does on real parts."
)
NO_DEFECTS_NOTE = (
    "There were no defective images, so nothing says how many defects would be found; the good images that "
    "were not trained on show the false alarms."
)


def run_demo(
    output: str | Path,
    *,
    data: str | Path | None = None,
    layout: str = "auto",
    seed: int = 0,
    steps: int | None = None,
    device: str | None = None,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Write model, report, overlays and `summary.json` into `output`; returns what the summary says.

    data, layout: a folder of images (see `load_dataset`), by default drawn parts of four categories.
    Without test images a fifth of the good ones is set aside. steps: training steps, by default the
    preset's. An earlier demo in `output` is replaced, any other content refused.
    Raises DataError for unusable images or output folders, and what `Detector.fit` and `evaluate` raise.
    """
    observer = observer or Silent()
    output = Path(output)
    if data is None:
        _claim(output)
        train, test = _draw(output / "data", seed, observer)
    else:
        _require_outside(Path(data), output)
        train, test = _split(Path(data), layout, seed)
        _claim(output)
    detector = Detector.fit(
        train, preset="standard", steps=steps, seed=seed, device=device, run=Run(observer=observer)
    )
    detector.save(output / "model")
    evaluation = evaluate(detector, test, observer=observer)
    overlays = _overlays(detector, evaluation, output / "overlays")
    report = _report(output / "report.html", None if data is None else Path(data), detector, evaluation)
    summary = {
        **evaluation.metrics,
        "synthetic": data is None,
        "data": str(output / "data" if data is None else data),
        "model": str(output / "model"),
        "report": str(report),
        "overlays": [str(path) for path in overlays],
        "preset": detector.info.preset,
        "seed": seed,
        "steps": detector.info.fit.steps,
        "normals": detector.info.fit.normals,
        "train_seconds": detector.info.fit.seconds,
    }
    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    write_atomically(output / "summary.json", text.encode())
    return summary


def line_parts(summary: Mapping[str, Any], layout: str = "auto") -> list[Sample]:
    """Parts of the demo's test as a line may bring them: all good ones, few defective ones, in random order.

    summary: as `run_demo` returned it.
    """
    folder = Path(summary["data"])
    seed = summary["seed"]
    test = load_dataset(folder).test if summary["synthetic"] else _split(folder, layout, seed)[1]
    drawn = random.Random(seed)
    good = [one for one in test if not one.is_anomalous]
    defective = [one for one in test if one.is_anomalous]
    parts = good + drawn.sample(defective, min(len(defective), 1 + len(good) // GOOD_FOR_ONE_DEFECT))
    drawn.shuffle(parts)
    return parts


def _report(path: Path, data: Path | None, detector: Detector, evaluation: Evaluation) -> Path:
    notes = [] if data else [SYNTHETIC_NOTE]
    if not evaluation.metrics["n_anomalous"]:
        notes.append(NO_DEFECTS_NOTE)
    return write_report(
        path,
        title=f"Demonstration on {data.absolute().name if data else 'drawn parts'}",
        scored=evaluation.scored,
        metrics=evaluation.metrics,
        map_limits=evaluation.map_limits,
        facts={"images": str(data or "drawn by invad"), **describe(detector, evaluation)},
        notes=[*notes, *evaluation.metrics["warnings"]],
    )


def _require_outside(data: Path, output: Path) -> None:
    """The earlier demo in `output` is removed, so the images must not be part of it."""
    if output.resolve() in (data.resolve(), *data.resolve().parents):
        raise DataError(f"{output}: holds the images of {data}; give --output another folder")


def _claim(output: Path) -> None:
    """Make the folder, or empty it of an earlier demo. Raises DataError when it holds anything else."""
    ours = (output / MARK).is_file()
    if output.exists() and not ours and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output}: is not empty and not an earlier demo; give --output a new folder")
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        (output / MARK).write_text("Made by 'invad demo', which replaces its files here when run again.\n")
        for name in OWN:
            path = output / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        (output / "overlays").mkdir()


def _draw(folder: Path, seed: int, observer: Observer) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Draw the parts category by category, so that there is progress to see."""
    observer.stage("drawing parts", len(CATEGORIES))
    for category in CATEGORIES:
        with tempfile.TemporaryDirectory(prefix=".drawing-", dir=folder.parent) as scratch:
            made = write_dataset(
                Path(scratch) / "data",
                categories=[category],
                train=TRAIN,
                test_good=TEST_GOOD,
                per_defect=PER_DEFECT,
                seed=seed,
            )
            folder.mkdir(exist_ok=True)
            (made / category).replace(folder / category)
        observer.advance(category)
    drawn = load_dataset(folder)
    return drawn.train, drawn.test


def _split(data: Path, layout: str, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """The folder's own test images, else a fifth of every category's good ones."""
    dataset = load_dataset(data, layout=layout)
    if dataset.sound_test():
        return dataset.train, dataset.test
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in dataset.train:
        groups[sample.category].append(sample)
    train: list[Sample] = []
    test: list[Sample] = []
    for category, group in groups.items():
        if len(group) < FEWEST_NORMALS:
            raise DataError(
                f"{data}: {len(group)} good images of {category} and no test images; the demo needs "
                f"{FEWEST_NORMALS} or more"
            )
        kept, held = hold_out(len(group), seed, minimum=2)
        train += [group[i] for i in kept]
        test += [group[i] for i in held]
    return tuple(train), tuple(test)


def _overlays(detector: Detector, evaluation: Evaluation, folder: Path) -> list[Path]:
    return [
        _overlay(
            detector,
            s.sample,
            folder / fitting_name(f"{number:02d}_{s.sample.category}_{s.sample.defect}", ".png", folder),
        )
        for number, s in enumerate(_chosen(evaluation), start=1)
    ]


def _name(number: int, sample: Sample, folder: Path) -> str:
    return fitting_name(f"{number:02d}_{sample.category}_{sample.defect}", ".png", folder)


def _chosen(evaluation: Evaluation) -> list[ScoredSample]:
    """Images worth a look, per category: most and least suspicious defect, most suspicious good."""
    groups: dict[str, list[ScoredSample]] = defaultdict(list)
    for scored in sorted(evaluation.scored, key=lambda s: s.score):
        groups[scored.sample.category].append(scored)
    chosen: list[ScoredSample] = []
    for group in groups.values():
        defects = [s for s in group if s.sample.is_anomalous]
        good = [s for s in group if not s.sample.is_anomalous]
        ends = [defects[-1], defects[0]] if len(defects) > 1 else defects
        chosen += [*ends, *reversed(good)][:OVERLAYS_PER_CATEGORY]
    return chosen


def _overlay(detector: Detector, sample: Sample, path: Path) -> Path:
    known = sample.category if sample.category in detector.calibrations else None
    pixels = read_sample(sample)
    prediction = detector.predict(pixels, category=known)
    return save_overlay(
        path,
        pixels,
        prediction.anomaly_map,
        for_category(detector.calibrations, known).map_limits(),
        decision=prediction.decision,
        score=prediction.score,
        p_value=prediction.p_value,
    )
