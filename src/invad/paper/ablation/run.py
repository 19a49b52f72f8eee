"""Runs a study over categories and seeds; what is in the output already is not run again."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from invad.backbones.registry import load_backbone
from invad.data.content import file_digest
from invad.data.datasets import load_dataset
from invad.data.labelled import Unreadable, judge_labelled
from invad.data.layouts.base import Dataset
from invad.data.preprocess import resize_map
from invad.errors import ConfigError, DataError
from invad.fit.fit import train_apart
from invad.fit.run import Run
from invad.fit.training import Execution, fingerprint
from invad.metrics.exact import image_metrics, mean_ad, pixel_metrics
from invad.model.reading import Model
from invad.model.settings import Preset, preset_named
from invad.observer import Observer, Silent
from invad.paper.ablation.scorings import Terms, score
from invad.paper.ablation.studies import STUDIES, Network, Variant
from invad.paper.ablation.tables import chart, markdown
from invad.records import Sample
from invad.scoring.typicality import paper_terms
from invad.system.devices import choose_device
from invad.system.files import make_folder, write_all
from invad.system.lock import sole_writer
from invad.system.plain import from_plain, read_json, to_plain
from invad.system.version import __version__

BATCH = 8
AGAIN = "remove it or choose another output"
NO_PIXELS: dict[str, float | None] = dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What to run. values: those of the study unless given. pixels: pixel metrics, too, which take longer.

    execution: how the networks are trained.
    """

    study: str
    root: Path
    preset: str = "paper-s"
    seeds: tuple[int, ...] = (0,)
    categories: tuple[str, ...] | None = None
    values: tuple[str, ...] | None = None
    steps: int | None = None
    pixels: bool = False
    device: str | None = None
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        if self.study not in STUDIES:
            raise ConfigError(f"study {self.study!r} is unknown; choose one of {', '.join(STUDIES)}")
        if not self.seeds:
            raise ConfigError("seeds: give at least one, such as 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A row of STUDY.json: metrics of one reading of one network."""

    category: str
    seed: int
    network: str
    value: str
    series: str
    evaluations: int
    scoring: str
    image_auroc: float | None
    image_ap: float | None
    image_f1max: float | None
    pixel_auroc: float | None
    pixel_ap: float | None
    pixel_f1max: float | None
    pixel_aupro: float | None
    mad: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """STUDY.json. pictures: a mark of the files by category; older results lack it."""

    study: str
    about: str
    preset: str
    pixels: bool
    data: str
    settings: Preset
    precision: str | None = None
    mark: str
    pictures: dict[str, str] = field(default_factory=dict)
    invad: str
    torch: str
    threads: int
    date: str
    rows: tuple[_Row, ...]


@dataclass(frozen=True, slots=True)
class Tests:
    """Test images of a category as a network sees them. masks: in the input frame, None where unknown."""

    samples: tuple[Sample, ...]
    z_NChw: NDArray[np.float32]
    masks: tuple[NDArray[np.bool_] | None, ...]


def ablate(plan: Ablation, output: Path, observer: Observer | None = None) -> dict[str, Any]:
    """Run a study; writes STUDY.json, STUDY.md and STUDY.svg into `output` after every network.

    Trained networks stay in `output`/networks: another study with the same preset takes them from there.
    Raises ConfigError for values the study does not have or an output of other settings, DataError without
    test images of both kinds.
    """
    observer = observer or Silent()
    base = preset_named(plan.preset)
    base = base if plan.steps is None else replace(base, train=replace(base.train, steps=plan.steps))
    study = STUDIES[plan.study]
    networks = study.networks(base, plan.values or study.values)
    dataset = load_dataset(plan.root, categories=plan.categories)
    dataset.sound_test()
    make_folder(output)
    with sole_writer(output, "ablation"):
        return _ablated(plan, dataset, base, networks, output, observer)


def _ablated(
    plan: Ablation,
    dataset: Dataset,
    base: Preset,
    networks: Sequence[Network],
    output: Path,
    observer: Observer,
) -> dict[str, Any]:
    path = output / f"{plan.study}.json"
    pictures = {category: _pictures(dataset.only(category)) for category in dataset.categories}
    document = _started(path, plan, base, pictures)
    for category in dataset.categories:
        own = dataset.only(category)
        _require_both_kinds(own, category)
        for seed in plan.seeds:
            for network in networks:
                key = {"category": category, "seed": seed, "network": network.name}
                missing = _missing(document["rows"], key, network.variants)
                if not missing:
                    continue
                observer.note(f"{category}, seed {seed}{', ' + network.name if network.name else ''}")
                rows = _run(own, network, missing, seed, plan, output / "networks", observer)
                document["rows"] += [{**key, **row} for row in rows]
                _write(path, document)
    return document


def _pictures(dataset: Dataset) -> str:
    """A mark of what the files of one category hold."""
    files = [(s.path, s.mask_path) for s in (*dataset.train, *dataset.test)]
    return fingerprint([(p.name, file_digest(p), m and file_digest(m)) for p, m in files])


def _started(path: Path, plan: Ablation, base: Preset, pictures: dict[str, str]) -> dict[str, Any]:
    what = {
        "study": plan.study,
        "about": STUDIES[plan.study].about,
        "preset": plan.preset,
        "pixels": plan.pixels,
    }
    precision = plan.execution.precision
    # Older results say nothing of it.
    mark = fingerprint(plan.study, plan.pixels, to_plain(base), *([precision] if precision else []))
    if not path.exists():
        return {
            **what,
            "data": plan.root.absolute().name,
            "settings": to_plain(base),
            "precision": precision,
            "mark": mark,
            "pictures": pictures,
            "invad": __version__,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "date": date.today().isoformat(),
            "rows": [],
        }
    document = read_json(path, DataError, AGAIN)
    result = from_plain(_Result, document, str(path), DataError, AGAIN)
    before = document.setdefault("pictures", {})
    others = {name for name, now in pictures.items() if before.setdefault(name, now) != now}
    begun = result.mark, result.data
    if others or begun != (mark, plan.root.absolute().name):
        raise ConfigError(f"{path}: holds results of other data or settings; choose another output")
    return document


def _require_both_kinds(dataset: Dataset, category: str) -> None:
    if not dataset.train or len({s.is_anomalous for s in dataset.test}) < 2:
        raise DataError(
            f"{dataset.root}: category {category} lacks training images, or good or defective test images"
        )


def _missing(
    rows: Sequence[dict[str, Any]], key: dict[str, Any], variants: Sequence[Variant]
) -> list[Variant]:
    done = {(r["value"], r["series"]) for r in rows if all(r[k] == v for k, v in key.items())}
    return [v for v in variants if (v.value, v.series) not in done]


def _run(
    dataset: Dataset,
    network: Network,
    variants: Sequence[Variant],
    seed: int,
    plan: Ablation,
    networks: Path,
    observer: Observer,
) -> list[dict[str, Any]]:
    settings = replace(network.settings, train=replace(network.settings.train, seed=seed))
    backbone = load_backbone(
        settings.backbone, weights=network.weights, strides=settings.strides, image_size=settings.area_side
    ).to(choose_device(plan.device))
    trained = [file_digest(sample.path) for sample in dataset.train]
    mark = fingerprint(
        to_plain(settings),
        str(network.weights),
        dataset.categories,
        trained,
        plan.execution.precision_on(backbone.mean.device),
    )
    run = Run(work=networks / mark, execution=plan.execution, observer=observer)
    model, held = train_apart(dataset.train, settings, backbone, run=run)
    tests = read_tests(model, dataset.test, plan.pixels, observer)
    observer.stage("readings", len(variants))
    rows = []
    for variant in variants:
        read = reader(model, variant)
        rows += [
            {"value": variant.value, "series": variant.series, "evaluations": variant.evaluations, **row}
            for row in measured(read(tests.z_NChw), read(held), tests, settings)
        ]
        observer.advance()
    return rows


def reader(model: Model, variant: Variant) -> Callable[[NDArray[np.float32]], Terms]:
    @torch.inference_mode()
    def read(z_NChw: NDArray[np.float32]) -> Terms:
        parts = []
        for start in range(0, len(z_NChw), BATCH):
            x = model.space(torch.from_numpy(z_NChw[start : start + BATCH]).to(model.extract.device))
            parts.append(paper_terms(variant.walk(model.network.predict_noise, x).float().cpu()))
        return Terms(*(torch.cat(part) for part in zip(*parts, strict=True)))

    return read


def read_tests(model: Model, samples: Sequence[Sample], pixels: bool, observer: Observer) -> Tests:
    input_hw = model.extract.preprocess.input_hw

    def features(_: Sample, pixels: NDArray[Any]) -> NDArray[np.float32]:
        z_Chw: NDArray[np.float32] = model.extract(pixels)[0].cpu().numpy()
        return z_Chw

    unreadable = Unreadable()
    tested = [
        (one.sample, one.answer, one.mask(input_hw) if pixels else None)
        for one in judge_labelled(
            samples, features, unreadable, stage="test images", observer=observer, masks=pixels
        )
    ]
    for line in unreadable.doubts():
        observer.note(f"warning: {line}")
    kept, z_NChw, masks = zip(*tested, strict=True)
    if len({s.is_anomalous for s in kept}) < 2:
        raise DataError(f"{samples[0].path.parent}: too few readable test images, good and defective")
    return Tests(kept, np.stack(z_NChw), masks)


def measured(test: Terms, held: Terms, tests: Tests, settings: Preset) -> list[dict[str, Any]]:
    labels = np.array([s.is_anomalous for s in tests.samples])
    known = [i for i, mask in enumerate(tests.masks) if mask is not None]
    masks = [mask for mask in tests.masks if mask is not None]
    localised: dict[int, dict[str, float | None]] = {}
    rows = []
    for scored in score(test, held, settings):
        # Several scorings share one map.
        shared = id(scored.map_Nhw)
        if shared not in localised:
            localised[shared] = dict(NO_PIXELS)
            if any(mask.any() for mask in masks):
                maps = [resize_map(scored.map_Nhw[i].numpy(), masks[0].shape) for i in known]
                localised[shared] = dict(pixel_metrics(maps, masks))
        row = {**image_metrics(scored.scores_N, labels), **localised[shared]}
        rows.append({"scoring": scored.name, **row, "mad": mean_ad(row)})
    return rows


def _write(path: Path, document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    tables = {".json": text, ".md": markdown(document), ".svg": chart(document)}
    write_all({path.with_suffix(ending): table.encode() for ending, table in tables.items()})
