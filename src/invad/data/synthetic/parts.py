"""The simple parts. A builder draws the good part from `rng`; the defects it knows come from `hurt` only."""

from __future__ import annotations

import numpy as np

from invad.data.synthetic.fields import Field, Rng, smooth, spectral
from invad.data.synthetic.scenes import Scene, cover_of, frame, mix, rounded_box, shadow_of, tint


def gasket(rng: Rng, size: int, defect: str, hurt: Rng) -> Scene:
    """A black rubber ring with six bolt holes on a pale table."""
    v, u = frame(rng, size, 0.012, 5.0)
    radius, theta = np.hypot(v, u), np.arctan2(v, u)
    outer, inner = rng.normal(0.37, 0.003), rng.normal(0.235, 0.003)
    wave = sum(rng.normal(0, 0.0012) * np.cos(k * theta + rng.uniform(0, 6.3)) for k in range(2, 6))
    ring = np.maximum(radius - outer, inner - radius) + wave
    angles = np.arange(6) * np.pi / 3 + rng.normal(0, 0.008, 6)
    places = [(0.355 * float(np.sin(a)), 0.355 * float(np.cos(a)), rng.normal(0.028, 0.0008)) for a in angles]
    bolts = [np.hypot(v - a, u - b) for a, b, _ in places]
    lobes = np.minimum.reduce(bolts) - 0.062
    melt = np.clip(0.5 + 0.5 * (lobes - ring) / 0.03, 0, 1)
    distance = lobes + (ring - lobes) * melt - 0.03 * melt * (1 - melt)
    absent = int(hurt.integers(6)) if defect == "missing_hole" else -1
    for index, (bolt, (_, _, hole)) in enumerate(zip(bolts, places, strict=True)):
        if index != absent:
            distance = np.maximum(distance, hole - bolt)
    distance = _nicked_edge(distance, v, u, outer, inner, defect, hurt)
    grain, dust = spectral(rng, size, 0.35), spectral(rng, size, 0.25) > rng.normal(4.0, 0.15)
    table, cloth = spectral(rng, size, 0.9, 6.0), spectral(rng, size, 1.8)
    cover = cover_of(distance.astype(np.float32))
    rubber = tint(0.075 * (1 + 0.09 * grain + 0.06 * cloth), 1.0, 1.0, 1.06)
    bead = np.exp(-(((radius - 0.5 * (outer + inner)) / 0.011) ** 2))
    height = 0.02 * np.sqrt(np.clip(-distance / 0.018, 0, 1)) + 0.006 * bead * cover + 0.0004 * grain
    shadow = shadow_of(cover, 0.012)
    ground = tint((0.5 + 0.012 * table + 0.008 * cloth) * (1 - 0.55 * shadow), 1.0, 0.985, 0.94)
    albedo = mix(ground, rubber, cover) + 0.16 * (smooth(dust.astype(np.float32), 0.7))[..., None]
    return Scene(albedo, (height * cover).astype(np.float32), 0.09 * cover, cover)


def _nicked_edge(
    distance: Field, v: Field, u: Field, outer: float, inner: float, defect: str, hurt: Rng
) -> Field:
    """The ring with a cut into an edge or with surplus rubber (a burr) on it."""
    if defect not in ("cut", "burr"):
        return distance
    angle, edge = hurt.uniform(0, 2 * np.pi), hurt.choice([outer - 0.004, inner + 0.004])
    lean = angle + hurt.normal(0, 0.5)
    depth = (v - edge * np.sin(angle)) * np.sin(lean) + (u - edge * np.cos(angle)) * np.cos(lean)
    side = (u - edge * np.cos(angle)) * np.sin(lean) - (v - edge * np.sin(angle)) * np.cos(lean)
    if defect == "cut":
        length, width = hurt.uniform(0.03, 0.11), hurt.uniform(0.004, 0.012)
        notch = np.maximum(
            np.abs(depth) - length, np.abs(side) - width * np.clip(1 - np.abs(depth) / length, 0, 1)
        )
        cut: Field = np.maximum(distance, -notch)
        return cut
    bulge = np.hypot(side / hurt.uniform(1.0, 3.0), depth) - hurt.uniform(0.01, 0.028)
    bulge = bulge + 0.004 * spectral(hurt, v.shape[0], 1.3)
    burred: Field = np.minimum(distance, bulge)
    return burred


def brushed_metal(rng: Rng, size: int, defect: str, hurt: Rng) -> Scene:
    """A sheet of brushed steel that fills the picture, with a highlight across it."""
    v, u = frame(rng, size, 0.02, 2.0)
    angle = rng.normal(0, 0.03)
    coarse = spectral(rng, size, 0.8, 40.0, angle)
    fine = spectral(rng, size, 0.25, 25.0, angle)
    sheen = np.exp(-(((v + 0.25 * u - rng.normal(0.0, 0.05)) / rng.normal(0.3, 0.02)) ** 2))
    tone = 0.3 + 0.028 * coarse + 0.03 * fine + 0.2 * sheen * (1 + 0.06 * coarse)
    height = 0.00016 * fine + 0.0006 * spectral(rng, size, 2.0)
    full = np.ones((size, size), np.float32)
    return Scene(tint(tone, 0.97, 1.0, 1.03), height, full * 0.12, full)


def fabric(rng: Rng, size: int, defect: str, hurt: Rng) -> Scene:
    """Plain weave: warp and weft yarns, each with its own thickness, place and tone."""
    v, u = frame(rng, size, 0.05, 1.2)
    count, tangle = 26, spectral(rng, size, 1.6)
    b, a = (v + 0.5) * count + 0.05 * tangle, (u + 0.5) * count + 0.05 * np.roll(tangle, size // 3, 1)
    nb, na = np.floor(b).astype(int), np.floor(a).astype(int)
    spread = 0.05 * rng.standard_normal((4, 64), dtype=np.float32)
    weft_wide, warp_wide = 0.94 + spread[0][nb % 64], 0.9 + spread[1][na % 64]
    weft_tone, warp_tone = 1 + 1.3 * spread[2][nb % 64], 1 + 1.3 * spread[3][na % 64]
    if defect in ("broken_yarn", "slub"):
        row, middle, half = int(hurt.integers(5, 21)), hurt.uniform(6, 20), hurt.uniform(1.2, 5)
        fade = np.clip((half - np.abs(a - middle) + 0.3 * tangle) * 2, 0, 1) * (nb == row)
        change = -1.0 if defect == "broken_yarn" else hurt.uniform(0.25, 0.6)
        weft_wide = weft_wide * np.maximum(1 + change * fade, 0.02)
        weft_tone = weft_tone * (1 + 0.3 * max(change, 0) * fade)
    parity = (1 - 2 * ((nb + na) % 2)).astype(np.float32)
    over_warp, over_weft = np.abs(np.sin(np.pi * b)) * parity, -np.abs(np.sin(np.pi * a)) * parity
    weft = (1 - ((2 * (b % 1) - 1) / weft_wide) ** 2).astype(np.float32)
    warp = 1 - ((2 * (a % 1) - 1) / warp_wide) ** 2
    z_weft = np.where(weft > 0, np.sqrt(np.maximum(weft, 0)) + 0.55 * over_weft, -0.6)
    z_warp = np.where(warp > 0, np.sqrt(np.maximum(warp, 0)) + 0.55 * over_warp, -0.6)
    top = z_weft > z_warp
    fibre = np.where(top, spectral(rng, size, 0.4, 5.0), spectral(rng, size, 0.4, 5.0, np.pi / 2))
    z = np.maximum(z_weft, z_warp)
    gap = np.clip(0.45 + 0.6 * z, 0.15, 1.0)
    shade = gap * (1 + 0.07 * fibre + 0.04 * spectral(rng, size, 1.5))
    weft_colour, warp_colour = (
        tint(weft_tone * shade, 0.42, 0.41, 0.37),
        tint(warp_tone * shade, 0.2, 0.24, 0.31),
    )
    albedo = mix(warp_colour, weft_colour, top.astype(np.float32))
    height = (0.006 * z + 0.0008 * fibre).astype(np.float32)
    full = np.ones((size, size), np.float32)
    return Scene(albedo, height, 0.015 * full, full)


def tablet(rng: Rng, size: int, defect: str, hurt: Rng) -> Scene:
    """A speckled oblong tablet with a score line, on a blue tray."""
    v, u = frame(rng, size, 0.015, 7.0)
    half_u, half_v = rng.normal(0.39, 0.003), rng.normal(0.215, 0.002)
    distance = rounded_box(v, u, half_v, half_u, half_v - 0.002)
    grain, speck = spectral(rng, size, 0.5), spectral(rng, size, 0.55)
    cloud, tray = spectral(rng, size, 1.6), spectral(rng, size, 0.8)
    chip, bite = np.full_like(distance, 1.0), distance
    if defect == "chipped":
        cy, cx = half_v * hurt.choice([-1.04, 1.04]), (half_u - half_v) * hurt.uniform(-1.3, 1.3)
        chip = np.hypot(v - cy, (u - cx) * hurt.uniform(0.5, 1.0)) - hurt.uniform(0.03, 0.08)
        chip = chip + 0.006 * spectral(hurt, size, 1.4)
        bite = np.maximum(distance, -(chip + hurt.uniform(0.03, 0.08)))
    cover, core = cover_of(bite.astype(np.float32)), cover_of(chip.astype(np.float32))
    dome = 0.075 * np.sqrt(np.clip(1 - (1 - np.clip(-distance / 0.16, 0, 1)) ** 2, 0, 1))
    score = np.exp(-(((u - rng.normal(0, 0.002)) / 0.011) ** 2)) * np.clip(-distance / 0.03, 0, 1)
    depth = 0.011 * (1 - hurt.uniform(0.6, 1.0)) if defect == "faint_score" else 0.011
    height = dome - depth * score + 0.0003 * grain
    height = height - core * (0.3 * np.maximum(-chip, 0) + 0.0012 * grain + 0.001)
    coat = 0.56 * (1 + 0.015 * grain + 0.02 * cloud) - 0.1 * np.clip(speck - 1.6, 0, 1)
    coat = coat * (1 - 12 * depth * score)
    shadow = shadow_of(cover, 0.02)
    ground = tint(0.16 * (1 + 0.05 * tray) * (1 - 0.7 * shadow), 0.45, 0.7, 1.15)
    albedo = mix(
        ground, mix(tint(coat, 1.0, 0.93, 0.78), tint(0.6 + 0.03 * grain, 1.0, 0.98, 0.93), core), cover
    )
    return Scene(albedo, (height * cover).astype(np.float32), 0.1 * cover * (1 - core), cover)
