"""Defects that can sit on any part: each takes a scene and returns it hurt."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from invad.data.synthetic.fields import Field, Rng, grid, smooth, spectral
from invad.data.synthetic.scenes import Scene, mix, tint


def _spot_on(rng: Rng, where: Field) -> tuple[float, float]:
    """A random place (y, x in sides) well inside the part."""
    size = where.shape[0]
    inner = np.zeros_like(where, bool)
    rim = size // 16
    inner[rim:-rim, rim:-rim] = where[rim:-rim, rim:-rim] > 0.95
    inside = np.flatnonzero(inner)
    place = int(inside[rng.integers(len(inside))]) if len(inside) else size * size // 2
    return (place // size + 0.5) / size, (place % size + 0.5) / size


def _blob(rng: Rng, scene: Scene, radius: float, edge: float = 0.25, ragged: float = 0.35) -> Field:
    """Cover of an irregular spot on the part; `edge` is the softness, `ragged` the roughness of its rim."""
    size = scene.part.shape[0]
    y, x = grid(size)
    cy, cx = _spot_on(rng, scene.part)
    angle, aspect = rng.uniform(0, np.pi), rng.uniform(1.0, 1.9)
    c, s = np.cos(angle), np.sin(angle)
    along, over = (x - cx) * c + (y - cy) * s, (y - cy) * c - (x - cx) * s
    reach = np.hypot(along / aspect, over) / radius + ragged * (
        0.4 * spectral(rng, size, 1.5) + 0.3 * spectral(rng, size, 1.0)
    )
    cover: Field = (np.clip((1 - reach) / edge, 0, 1) * scene.part).astype(np.float32)
    return cover


def _stroke(rng: Rng, scene: Scene, length: float, width: float, bend: float, jagged: float) -> Field:
    """Cover of a line on the part that thins towards its ends.

    Radians a piece: `bend` adds up along the line, `jagged` does not.
    """
    pieces = 12
    size = scene.part.shape[0]
    y, x = grid(size)
    heading = (
        rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, pieces)) + rng.normal(0, jagged, pieces)
    )
    steps = np.stack([np.sin(heading), np.cos(heading)], 1) * length / pieces
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    path = path - path[pieces // 2] + _spot_on(rng, scene.part)
    cover = np.zeros((size, size), np.float32)
    for index, ((ay, ax), (by, bx)) in enumerate(pairwise(path)):
        taper = np.sin(np.pi * (index + 0.75) / (pieces + 0.5))
        half = max(0.5 * width * (0.4 + 0.6 * taper), 0.4 / size)
        top, left = (max(0, int((min(p) - half) * size) - 2) for p in ((ay, by), (ax, bx)))
        low, right = (max(0, int((max(p) + half) * size) + 3) for p in ((ay, by), (ax, bx)))
        py, px = y[top:low] - ay, x[:, left:right] - ax
        dy, dx = by - ay, bx - ax
        t = np.clip((py * dy + px * dx) / max(dy * dy + dx * dx, 1e-9), 0, 1)
        piece = np.clip(0.5 - (np.hypot(py - t * dy, px - t * dx) - half) * size, 0, 1)
        cover[top:low, left:right] = np.maximum(cover[top:low, left:right], piece)
    return cover * scene.part


def scratch(rng: Rng, scene: Scene) -> Scene:
    """A shallow groove with a brighter or duller bottom."""
    line = _stroke(rng, scene, rng.uniform(0.1, 0.5), rng.uniform(0.003, 0.008), 0.08, 0.02)
    tone = rng.uniform(0.15, 0.6) * rng.choice([-0.6, 1.0])
    albedo = np.clip(
        scene.albedo * (1 + tone * line[..., None]) + 0.06 * max(tone, 0) * line[..., None], 0, 1
    )
    return replace(scene, albedo=albedo, height=scene.height - rng.uniform(0.0004, 0.0015) * line)


def crack(rng: Rng, scene: Scene) -> Scene:
    """A dark jagged line."""
    line = _stroke(rng, scene, rng.uniform(0.12, 0.35), rng.uniform(0.004, 0.009), 0.12, 0.5)
    albedo = scene.albedo * (1 - rng.uniform(0.35, 0.85) * line[..., None])
    return replace(scene, albedo=albedo, height=scene.height - 0.002 * line, gloss=scene.gloss * (1 - line))


def dent(rng: Rng, scene: Scene) -> Scene:
    """A shallow dimple, seen only through its shading."""
    size = scene.part.shape[0]
    y, x = grid(size)
    cy, cx = _spot_on(rng, scene.part)
    radius, slope = rng.uniform(0.025, 0.075), rng.uniform(0.1, 0.4)
    reach = np.hypot(y - cy, (x - cx) * rng.uniform(0.75, 1.3)) / radius
    bowl = np.exp(-(reach ** rng.uniform(2.0, 3.5))).astype(np.float32)
    return replace(scene, height=scene.height - slope * radius * bowl * scene.part)


def stain(rng: Rng, scene: Scene) -> Scene:
    """A dried liquid: slightly darker and duller, with a darker rim."""
    blob = _blob(rng, scene, rng.uniform(0.04, 0.11), edge=0.5)
    rim = np.clip(4 * blob * (1 - blob), 0, 1)
    shade = tint(rng.uniform(0.12, 0.5) * (blob + 0.4 * rim), 0.8, 1.0, 1.25)
    return replace(
        scene, albedo=scene.albedo * np.clip(1 - shade, 0, 1), gloss=scene.gloss * (1 - 0.7 * blob)
    )


def contamination(rng: Rng, scene: Scene) -> Scene:
    """Foreign matter on top: a crumbly heap of another colour."""
    size = scene.part.shape[0]
    grain = spectral(rng, size, 0.8)
    blob = _blob(rng, scene, rng.uniform(0.02, 0.06), edge=0.6, ragged=0.5)
    blob = blob * np.clip(0.75 + 0.5 * grain, 0, 1)
    warm = rng.uniform(-0.05, 0.3)
    colour = np.float32(rng.choice([0.15, 0.4, 0.7])) * np.asarray([1 + warm, 1, 1 - warm], np.float32)
    albedo = mix(scene.albedo, colour * (1 + 0.12 * grain[..., None]), rng.uniform(0.45, 1.0) * blob)
    return replace(scene, albedo=albedo, height=scene.height + 0.004 * blob * (1 + 0.3 * grain))


def rust(rng: Rng, scene: Scene) -> Scene:
    """Brown spots that gather in one place."""
    size = scene.part.shape[0]
    spots = np.clip(spectral(rng, size, 1.1) * 1.4 - 0.2, 0, 1)
    cover = _blob(rng, scene, rng.uniform(0.05, 0.13), edge=0.9) * spots
    brown = np.asarray([0.34, 0.17, 0.08], np.float32)
    return replace(
        scene,
        albedo=mix(scene.albedo, brown, rng.uniform(0.35, 0.9) * cover),
        gloss=scene.gloss * (1 - cover),
        height=scene.height + 0.0008 * cover,
    )


def discolouration(rng: Rng, scene: Scene) -> Scene:
    """A soft patch whose colour is off."""
    blob = _blob(rng, scene, rng.uniform(0.05, 0.14), edge=0.8, ragged=0.3)
    shift = rng.uniform(0.12, 0.35) * rng.normal([0.3, -0.2, -0.7], 0.25)
    return replace(scene, albedo=np.clip(scene.albedo * (1 + tint(blob, *shift)), 0, 1))


def loose_thread(rng: Rng, scene: Scene) -> Scene:
    """A fibre lying on top."""
    line = _stroke(rng, scene, rng.uniform(0.15, 0.5), rng.uniform(0.006, 0.012), 0.3, 0.0)
    colour = np.float32(rng.choice([0.12, 0.75])) * np.ones(3, np.float32)
    albedo = mix(scene.albedo, colour, rng.uniform(0.6, 1.0) * line)
    return replace(scene, albedo=albedo, height=scene.height + 0.005 * smooth(line, 1.0))


def hole(rng: Rng, scene: Scene) -> Scene:
    """A tear through the material: nothing but the dark ground, with a frayed rim."""
    blob = _blob(rng, scene, rng.uniform(0.018, 0.045), edge=0.3, ragged=0.5)
    ground = np.asarray([0.035, 0.035, 0.04], np.float32)
    return replace(
        scene,
        albedo=mix(scene.albedo, ground, blob),
        height=scene.height - 0.01 * blob,
        gloss=scene.gloss * (1 - blob),
    )
