"""A whole benchmark: train, calibrate and test every category and seed, and write the tables.

The output folder is the state of the run. A category and seed is finished when its prediction file is there;
the metrics are made from these files, so other definitions cost no second run. Every file is written whole.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from invad.backbones.base import Backbone
from invad.data.content import file_digest
from invad.data.datasets import not_taken, read_dataset, selected
from invad.data.layouts.base import Dataset
from invad.detector.detector import Detector
from invad.detector.folder import CONFIG
from invad.errors import ConfigError, DataError, InvadError
from invad.evaluation.definitions import definitions_named
from invad.evaluation.machine import facts
from invad.evaluation.predictions import read_predictions, write_predictions
from invad.evaluation.results import PREDICTIONS, ROWS, result, rows_of_file
from invad.evaluation.rows import Row
from invad.evaluation.tables import write_outputs
from invad.evaluation.testset import below, predict_category
from invad.fit.run import Run
from invad.model.settings import Preset, preset_named
from invad.observer import Observer, Silent
from invad.records import Sample
from invad.system.files import fitting_name, make_folder, write_atomically
from invad.system.lock import LOCK, sole_writer
from invad.system.plain import read_json, to_plain

SETTINGS = ("unified", "single")
"""One model for all categories, or one for each."""

RUN, MODELS, UNFINISHED = "run.json", "models", ".training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run. layout, split: see `load_dataset`; the other options are those of `Detector.fit`.

    definitions: metric definitions, see `invad.evaluation.definitions`. keep_models: leave the trained models
    in the output folder, where they are otherwise removed as soon as they are tested.
    """

    root: Path
    layout: str = "auto"
    split: str | None = None
    setting: str = "unified"
    categories: tuple[str, ...] | None = None
    preset: str | Preset = "standard"
    backbone: str | None = None
    weights: Path | None = None
    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    definitions: tuple[str, ...] = ("exact",)
    strict: bool = False
    device: str | None = None
    keep_models: bool = False

    def __post_init__(self) -> None:
        if self.setting not in SETTINGS:
            raise ConfigError(f"setting {self.setting!r} is unknown; choose one of {', '.join(SETTINGS)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds {self.seeds}: give different whole numbers from 0, such as 0,1,2")
        definitions_named(self.definitions)
        if isinstance(self.preset, str):
            preset_named(self.preset)

    def told(self, read_as: str | None = None) -> dict[str, Any]:
        """The run as plain data, for prediction files and tables. read_as: the layout that was recognised,
        where the set was read."""
        return {
            "data": self.root.absolute().name,
            "layout": self.layout,
            **({} if read_as is None else {"read_as": read_as}),
            "split": self.split,
            "setting": self.setting,
            "preset": self.preset if isinstance(self.preset, str) else "custom",
            "backbone": self.backbone,
            "weights": self.weights.name if self.weights is not None else None,
            "steps": self.steps,
        }


@dataclass(frozen=True, slots=True)
class _Unit:
    """One model and the categories that it is trained and tested on."""

    name: str
    seed: int
    dataset: Dataset
    digests: Mapping[str, str]


def run(plan: Plan, output: str | Path, observer: Observer | None = None) -> dict[str, Any]:
    """Run what is missing of a benchmark in `output` and write its tables; returns a `results.result`.

    A model or category that fails is named under `failed`, and the others go on. Raises DataError for a
    data set or folder that cannot be used, ConfigError for options that do not exist or differ from those
    that the folder was begun with.
    """
    observer, output = observer or Silent(), Path(output)
    dataset = _dataset(plan, observer)
    _make(output)
    with sole_writer(output, "benchmark"):
        _begin(output / RUN, _identity(plan, dataset))
        return _run(plan, dataset, output, observer)


def _run(plan: Plan, dataset: Dataset, output: Path, observer: Observer) -> dict[str, Any]:
    failed: dict[str, str] = {}
    units = list(_units(plan, dataset))
    todo = [[c for c in unit.dataset.categories if not _finished(output, unit, c)] for unit in units]
    for number, (unit, missing) in enumerate(zip(units, todo, strict=True), start=1):
        observer.note(f"model {number} of {len(units)}: {unit.name}{'' if missing else ', finished before'}")
        detector: Detector | None = None
        with _noting(failed, unit.name, observer):
            for category in missing:
                detector = detector or _detector(plan, unit, output, observer)
                with _noting(failed, f"{category}, seed {unit.seed}", observer):
                    _test(plan, unit, category, detector, output, observer)
                with _noting({}, "tables", observer):  # they are written again at the end
                    write_outputs(output, _measured(plan, dataset, output, failed))
        if not plan.keep_models and all(
            _file(output, c, unit.seed).exists() for c in unit.dataset.categories
        ):
            _discard(output, unit)
    measured = _measured(plan, dataset, output, failed)
    with _noting(measured["failed"], "tables", observer):
        write_outputs(output, measured)
    return measured


@contextmanager
def _noting(failed: dict[str, str], what: str, observer: Observer) -> Iterator[None]:
    """Keep an error of the data, the training or the machine for the end; one of the options ends the run."""
    try:
        yield
    except ConfigError:
        raise
    except InvadError as error:
        failed[what] = str(error)
        observer.note(f"failed: {what}: {error}")


def _measured(plan: Plan, dataset: Dataset, output: Path, failed: Mapping[str, str]) -> dict[str, Any]:
    """Measure what is finished; a `results.result`."""
    rows: list[Row] = []
    files = [_file(output, category, seed) for category in dataset.categories for seed in plan.seeds]
    for file in files:
        if file.exists():
            rows += rows_of_file(file, output / ROWS / f"{file.stem}.json", plan.definitions)
    measured = result(rows, {**plan.told(dataset.layout), "machine": facts()}, len(files), failed)
    others = sorted(
        {file.stem for file in (output / PREDICTIONS).glob("*.npz")} - {file.stem for file in files}
    )
    if others:
        measured["notes"].append(f"In the folder but not asked for, so left out: {', '.join(others)}.")
    return measured


def _dataset(plan: Plan, observer: Observer) -> Dataset:
    whole = read_dataset(plan.root, layout=plan.layout, split=plan.split)
    for line in not_taken(whole):
        observer.note(line)
    dataset = selected(whole, plan.categories)
    dataset.sound_test()
    for part, needed in (("train", "good training images"), ("test", "test images")):
        have = {sample.category for sample in getattr(dataset, part)}
        lacking = [category for category in dataset.categories if category not in have]
        if lacking:
            raise DataError(
                f"{plan.root}: no {needed} of {', '.join(lacking)}; add them or leave the category out with "
                "--categories"
            )
    return dataset


def _units(plan: Plan, dataset: Dataset) -> Iterator[_Unit]:
    if plan.setting == "unified":
        digests = _digests(dataset)
        yield from (_Unit(f"seed-{seed}", seed, dataset, digests) for seed in plan.seeds)
        return
    parts = {category: dataset.only(category) for category in dataset.categories}
    digests = {category: _digests(part)[category] for category, part in parts.items()}
    for seed in plan.seeds:
        for category, part in parts.items():
            yield _Unit(_stem(category, seed), seed, part, digests)


def _detector(plan: Plan, unit: _Unit, output: Path, observer: Observer) -> Detector:
    """The model of a unit: trained, or loaded when it was trained before on the same images."""
    folder, mark = _model_folder(output, unit)
    images = _digest(unit.dataset, unit.dataset.train).hexdigest()
    if not mark.exists() or mark.read_text() != images:
        shutil.rmtree(folder, ignore_errors=True)
        mark.parent.mkdir(exist_ok=True)
        write_atomically(mark, images.encode())
    if (folder / CONFIG).exists():
        return Detector.load(folder, device=plan.device)
    detector = Detector.fit(
        unit.dataset.train,
        preset=plan.preset,
        backbone=_backbone(plan),
        steps=plan.steps,
        seed=unit.seed,
        strict=plan.strict,
        device=plan.device,
        run=Run(work=folder / UNFINISHED, observer=observer),
    )
    detector.save(folder)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    return detector


def _backbone(plan: Plan) -> Backbone | str | None:
    if plan.weights is None:
        return plan.backbone
    settings = preset_named(plan.preset) if isinstance(plan.preset, str) else plan.preset
    return settings.load_backbone(plan.backbone, plan.weights)


def _test(
    plan: Plan, unit: _Unit, category: str, detector: Detector, output: Path, observer: Observer
) -> None:
    meta = {
        "category": category,
        "seed": unit.seed,
        "run": plan.told(unit.dataset.layout),
        "machine": facts(),
        "data_digest": unit.digests[category],
    }
    samples = unit.dataset.only(category).test
    predictions = predict_category(detector, samples, plan.root, meta, strict=plan.strict, observer=observer)
    write_predictions(_file(output, category, unit.seed), predictions)
    observer.note(f"tested: {category}, seed {unit.seed}")


def _model_folder(output: Path, unit: _Unit) -> tuple[Path, Path]:
    """Where the model is while it is needed, and the file beside it that says of which images it is."""
    return output / MODELS / unit.name, output / MODELS / f"{unit.name}.images"


def _discard(output: Path, unit: _Unit) -> None:
    folder, mark = _model_folder(output, unit)
    shutil.rmtree(folder, ignore_errors=True)
    mark.unlink(missing_ok=True)
    with suppress(OSError):
        (output / MODELS).rmdir()  # stays while another model is in it


def _finished(output: Path, unit: _Unit, category: str) -> bool:
    """Whether there is a prediction file. Raises DataError when it was made of other images."""
    file = _file(output, category, unit.seed)
    if not file.exists():
        return False
    if read_predictions(file).meta.get("data_digest") != unit.digests[category]:
        raise DataError(
            f"{file}: made of other images than those in {unit.dataset.root} now; remove it to test anew, or "
            "give another --output"
        )
    return True


def _make(output: Path) -> None:
    """Make the folder. Raises DataError when it holds something else or cannot be written."""
    inside = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if inside - {LOCK, PREDICTIONS, ROWS} and RUN not in inside:
        raise DataError(f"{output}: is not empty and holds no benchmark; give --output a new or empty folder")
    for folder in (output, output / PREDICTIONS, output / ROWS):
        make_folder(folder)


def _begin(begun: Path, identity: dict[str, Any]) -> None:
    """Note what is run, or find it noted. Raises ConfigError when it was something else."""
    if not begun.exists():
        write_atomically(begun, (json.dumps(identity, indent=1) + "\n").encode())
        return
    before = read_json(begun, DataError, "give --output a new folder")
    for key in sorted(identity.keys() | before.keys()):
        if before.get(key) != identity.get(key):
            raise ConfigError(
                f"{begun.parent}: holds a benchmark with {key} {_brief(before.get(key))}, not "
                f"{_brief(identity.get(key))}; use the same or give another --output"
            )


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else "of other values"


def _identity(plan: Plan, dataset: Dataset) -> dict[str, Any]:
    """What must stay the same for a run to be continued; a unified model depends on its categories."""
    preset = preset_named(plan.preset) if isinstance(plan.preset, str) else plan.preset
    told = {key: value for key, value in plan.told().items() if key != "data"}
    told |= {"categories": list(dataset.categories)} if plan.setting == "unified" else {}
    plain: dict[str, Any] = json.loads(json.dumps({**told, "settings": to_plain(preset)}))
    return plain


def _digests(dataset: Dataset) -> dict[str, str]:
    """By category: of the images that are trained on, and of those that are tested and their masks."""

    trained = _digest(dataset, dataset.train)
    by_category = {}
    for category in dataset.categories:
        digest = trained.copy()
        digest.update(_digest(dataset, [s for s in dataset.test if s.category == category]).digest())
        by_category[category] = digest.hexdigest()[:16]
    return by_category


def _digest(dataset: Dataset, samples: Iterable[Sample]) -> "hashlib._Hash":
    """Of what the files hold, masks too, and of where they lie in the set."""
    digest = hashlib.sha256()
    for s in samples:
        mask = file_digest(s.mask_path) if s.mask_path else None
        line = f"{below(dataset.root, s.path)} {file_digest(s.path)} {s.defect} {mask}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest


def _file(output: Path, category: str, seed: int) -> Path:
    return output / PREDICTIONS / f"{_stem(category, seed)}.npz"


def _stem(category: str, seed: int) -> str:
    """A file name for any category; two never share one."""
    longest = ".images"  # of the endings it is given
    return fitting_name(quote(category, safe=" "), f"-seed-{seed}{longest}").removesuffix(longest)
