"""Distil the features of one or several frozen teachers into the small student behind `invad-s`.

Pictures are cropped hard and changed in light, colour and sharpness; the teachers' maps at strides 4, 8
and 16 of those very crops are the targets, standardised per channel (wide maps are first rotated and cut
to their leading principal components, so that the student predicts what carries variance). The loss is
the mean squared error, averaged over channels and strides. Crops are drawn in pools that are reused a
few times, because on a CPU the teachers cost as much as the student.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from invad.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from invad.backbones.student import Student, StudentConfig
from invad.data.images import read_image
from invad.data.listing import list_images
from invad.data.synthetic import random_picture
from invad.errors import ConfigError, DataError, TrainingError

STRIDES = (4, 8, 16)

SAMPLE = 512
"""Crops that the projections are fitted to, and as many others that the result is measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """How long and on what to distil.

    crop: side of the square crops in pixels. pool: crops per pool. reuse: passes over a pool.
    synthetic: share of crops that are drawn procedurally. components: principal components kept of a
    teacher's map at strides 4, 8, 16. seed: of crops, order and initial weights.
    """

    pools: int = 10
    pool: int = 4096
    reuse: int = 3
    batch: int = 32
    crop: int = 128
    synthetic: float = 0.25
    components: tuple[int, ...] = (32, 64, 96)
    lr: float = 3e-3
    weight_decay: float = 0.02
    warmup: int = 100
    seed: int = 0
    student: StudentConfig = field(default_factory=lambda: StudentConfig(widths=(48, 96, 160)))

    def __post_init__(self) -> None:
        for name in ("pools", "reuse", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"distill.{name} = {getattr(self, name)}: give an integer of at least 1")
        if self.pool < self.batch:
            raise ConfigError(f"distill.pool = {self.pool}: give at least distill.batch = {self.batch} crops")
        if self.steps < 2:
            raise ConfigError(f"distill.pools = {self.pools}: give more pools, reuse or pool; it is one step")
        if self.crop < 32 or self.crop % 16:
            raise ConfigError(f"distill.crop = {self.crop}: give a multiple of 16 pixels, at least 32")
        if len(self.components) != len(STRIDES):
            raise ConfigError(
                f"distill.components = {self.components}: give one for each stride of {STRIDES}"
            )

    @property
    def steps(self) -> int:
        return self.pools * self.reuse * (self.pool // self.batch)


@dataclass(frozen=True, slots=True)
class Projection:
    """Affine map from a teacher's channels to standardised targets: (x - mean) @ rotation, K <= C columns."""

    mean_C: Tensor
    rotation_CK: Tensor

    def __call__(self, map_BChw: Tensor) -> Tensor:
        centred = map_BChw - self.mean_C.view(1, -1, 1, 1)
        return torch.einsum("bchw,ck->bkhw", centred, self.rotation_CK)


def fit_projection(map_BChw: Tensor, components: int) -> Projection:
    """Standardise each channel, or the leading principal components when there are more than `components`."""
    x_NC = map_BChw.permute(0, 2, 3, 1).reshape(-1, map_BChw.shape[1]).double()
    mean = x_NC.mean(0)
    if x_NC.shape[1] <= components:
        rotation = torch.diag(1 / x_NC.std(0).clamp_min(1e-6))
    else:
        # Components of the *standardised* channels: one loud channel must not own the first of them.
        std = x_NC.std(0).clamp_min(1e-6)
        values, vectors = torch.linalg.eigh(torch.cov(((x_NC - mean) / std).T))
        top = slice(-components, None)
        rotation = (vectors[:, top] / values[top].clamp_min(1e-9).sqrt()).flip(1) / std[:, None]
    return Projection(mean.float(), rotation.float())


def _augment(crop: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Light, colour and sharpness changes on a H x W x 3 picture in [0, 1]."""
    if rng.random() < 0.3:
        crop = np.repeat(crop @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=2)
    gain = rng.uniform(0.6, 1.4) * (rng.uniform(0.85, 1.15, 3) if rng.random() < 0.3 else 1.0)
    mean = crop.mean((0, 1))
    crop = (crop - mean) * rng.uniform(0.5, 1.5) + mean * gain
    lit = np.clip(crop, 0, 1) ** rng.uniform(0.7, 1.4)
    if rng.random() < 0.3:
        lit = lit + rng.normal(0, rng.uniform(0.005, 0.05), lit.shape)
    if rng.random() < 0.05:
        lit = 1 - lit
    out: NDArray[np.float32] = np.clip(lit, 0, 1).astype(np.float32)
    return out


def _crop(picture: NDArray[np.uint8], side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random square of a picture, a fifth to the whole of its short side, resized to `side` x `side`."""
    h, w = picture.shape[:2]
    size = min(h, w, max(16, int(min(h, w) * rng.uniform(0.2, 1.0))))
    y, x = rng.integers(0, h - size + 1), rng.integers(0, w - size + 1)
    patch = torch.from_numpy(picture[y : y + size, x : x + size].copy()).permute(2, 0, 1)[None].float() / 255
    patch = F.interpolate(patch, (side, side), mode="bilinear", antialias=True, align_corners=False)
    flipped = rng.random() < 0.5
    turns = int(rng.integers(4)) if rng.random() < 0.3 else 0
    out: NDArray[np.float32] = patch[0].clamp(0, 1).permute(1, 2, 0).numpy()
    turned: NDArray[np.float32] = np.rot90(out[:, ::-1] if flipped else out, turns)
    return turned


def crops(
    pictures: Sequence[NDArray[np.uint8]], config: DistillConfig, seed: int, count: int
) -> NDArray[np.uint8]:
    """`count` augmented crops, count x side x side x 3 uint8."""
    rng = np.random.default_rng([config.seed, seed])
    out = np.empty((count, config.crop, config.crop, 3), np.uint8)
    for i in range(count):
        if rng.random() < config.synthetic:
            source = random_picture(rng, 160)
        else:
            source = pictures[int(rng.integers(len(pictures)))]
        out[i] = np.round(_augment(_crop(source, config.crop, rng), rng) * 255)
    return out


def _to_batch(crops_BHW3: NDArray[np.uint8]) -> Tensor:
    return (
        torch.from_numpy(crops_BHW3)
        .permute(0, 3, 1, 2)
        .float()
        .div_(255)
        .contiguous(memory_format=torch.channels_last)
    )


def _teacher_maps(teacher: Backbone, x_B3HW: Tensor) -> list[Tensor]:
    """The teacher's maps at strides 4, 8 and 16."""
    by_stride = {round(x_B3HW.shape[-1] / m.shape[-1]): m for m in teacher(x_B3HW)}
    missing = [s for s in STRIDES if s not in by_stride]
    if missing:
        raise ConfigError(f"teacher {teacher.info.name}: no map at stride {missing}; choose another teacher")
    return [by_stride[s] for s in STRIDES]


@torch.no_grad()
def _targets(
    teachers: Sequence[Backbone], projections: Sequence[Sequence[Projection]], pool: NDArray[np.uint8]
) -> list[Tensor]:
    """Targets of a pool per stride, N x K x h x w, half precision."""
    parts: list[list[Tensor]] = [[] for _ in STRIDES]
    for i in range(0, len(pool), 32):
        x = _to_batch(pool[i : i + 32])
        maps = [_teacher_maps(t, x) for t in teachers]
        for level in range(len(STRIDES)):
            made = [p[level](m[level]) for p, m in zip(projections, maps, strict=True)]
            parts[level].append(torch.cat(made, 1).half())
    return [torch.cat(p) for p in parts]


@torch.no_grad()
def fit_projections(
    teachers: Sequence[Backbone], sample: NDArray[np.uint8], config: DistillConfig
) -> list[list[Projection]]:
    """One projection per teacher and stride, from a sample of crops."""
    fitted = []
    for teacher in teachers:
        maps = [_teacher_maps(teacher, _to_batch(sample[i : i + 32])) for i in range(0, len(sample), 32)]
        levels = zip(*maps, strict=True)
        fitted.append(
            [fit_projection(torch.cat(m), k) for m, k in zip(levels, config.components, strict=True)]
        )
    return fitted


def load_pictures(folder: Path) -> list[NDArray[np.uint8]]:
    """All pictures of a folder as uint8 arrays. Raises DataError when there is none."""
    paths = list_images(folder)
    if not paths:
        raise DataError(f"{folder}: no pictures to distil on; give a folder of photographs")
    pictures = []
    for path in paths:
        pixels = read_image(path)
        if pixels.dtype != np.uint8:
            raise DataError(f"{path}: {pixels.dtype} pictures cannot be distilled on; convert it to 8 bit")
        pictures.append(pixels)
    return pictures


def _batches(count: int, config: DistillConfig, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(config.seed * 100_003 + seed)
    for _ in range(config.reuse):
        order = torch.randperm(count, generator=generator)
        yield from order[: count // config.batch * config.batch].split(config.batch)  # type: ignore[no-untyped-call]


def _student(config: StudentConfig, start: Student | None) -> Student:
    """A fresh student, or one with the trunk of `start` and fresh heads."""
    student = Student(config)
    if start is not None:
        if replace(start.config, heads=()) != replace(config, heads=()):
            raise ConfigError(f"start: is {start.config}; go on from a student of shape {config}")
        trunk = {k: v for k, v in start.state_dict().items() if not k.startswith("heads.")}
        student.load_state_dict(trunk, strict=False)
    return student


def distill(
    teachers: Sequence[Backbone],
    pictures: Sequence[NDArray[np.uint8]],
    config: DistillConfig,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    start: Student | None = None,
) -> tuple[Student, dict[str, object]]:
    """Train a student; returns it in evaluation mode with a record of what was done.

    `on_step(step, loss)` observes. start: a student of the same shape to go on from; its heads, which are not
    saved, are learned anew. The record holds the config, seconds, and the share of target variance explained
    per stride on SAMPLE fresh crops. Raises ConfigError when `start` has another shape, TrainingError for a
    loss that is not a number.
    """
    torch.manual_seed(config.seed)
    projections = fit_projections(teachers, crops(pictures, config, 10**6, SAMPLE), config)
    heads = tuple(sum(p[level].rotation_CK.shape[1] for p in projections) for level in range(len(STRIDES)))
    student = _student(replace(config.student, heads=heads), start)
    student.to(memory_format=torch.channels_last).train()
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    decay = [p for p in student.parameters() if p.ndim > 1]
    plain = [p for p in student.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.lr,
    )
    # Its rise must end after the first step and before the last.
    rise = max(1.5, min(config.warmup, config.steps / 2)) / config.steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=config.steps, pct_start=rise
    )
    started, step = time.perf_counter(), 0
    for round_ in range(config.pools):
        pool = crops(pictures, config, round_, config.pool)
        targets = _targets(teachers, projections, pool)
        for index in _batches(len(pool), config, round_):
            maps = student((_to_batch(pool[index.numpy()]) - mean) / std)
            losses = [F.mse_loss(m, t[index].float()) for m, t in zip(maps, targets, strict=True)]
            loss = torch.stack(losses).mean()
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"step {step + 1}: the loss is {loss.item()}; lower distill.lr ({config.lr})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            on_step(step, loss.item())
    student.eval()
    record = {
        "config": asdict(config),
        "teachers": [asdict(t.info) for t in teachers],
        "pictures": len(pictures),
        "steps": step,
        "seconds": round(time.perf_counter() - started, 1),
        "explained_variance": explained_variance(student, teachers, projections, pictures, config),
    }
    return student, record


@torch.no_grad()
def explained_variance(
    student: Student,
    teachers: Sequence[Backbone],
    projections: Sequence[Sequence[Projection]],
    pictures: Sequence[NDArray[np.uint8]],
    config: DistillConfig,
) -> list[float]:
    """1 - MSE / variance of the targets per stride, on fresh crops."""
    pool = crops(pictures, config, 10**6 + 1, SAMPLE)
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    made = [student((_to_batch(pool[i : i + 32]) - mean) / std) for i in range(0, len(pool), 32)]
    wanted = _targets(teachers, projections, pool)
    return [
        round(1 - (F.mse_loss(torch.cat(level), t.float()) / t.float().var()).item(), 4)
        for level, t in zip(zip(*made, strict=True), wanted, strict=True)
    ]
