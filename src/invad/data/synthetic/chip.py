"""The soldered chip: board, legs, body and laser mark. Its defects come from `hurt` only."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from invad.data.synthetic.fields import Field, Rng, spectral
from invad.data.synthetic.scenes import Scene, cover_of, frame, mix, rounded_box, shadow_of, tint

_LABEL = (  # strokes of the laser mark on the chip: rows of polylines in cells of 1 x 0.6
    ((0, 0), (1, 0), (1, 0.5)), ((0, 0.5), (0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 0)),
    ((0, 0), (0, 0.5), (1, 0)),
    ((1, 0), (0, 0.25), (1, 0.5)), ((0, 0.5), (0, 0), (0.5, 0), (0.5, 0.5), (1, 0.5), (1, 0)),
    ((0, 0), (1, 0), (0.5, 0.25), (1, 0.5), (0, 0.5)),
)  # fmt: skip


def _label(size: int, v: Field, u: Field) -> Field:
    """Cover of the chip's laser mark, in the chip's own frame: two lines of text along its long side."""
    near = (np.abs(v) < 0.15) & (np.abs(u) < 0.08)
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    v, u = v[box], u[box]
    distance = np.full(v.shape, 9.0, np.float32)
    for index, stroke in enumerate(_LABEL * 2):
        line, column = divmod(index, 6)
        for (ar, ac), (br, bc) in pairwise(stroke):
            av, au = 0.045 * column - 0.125 + 0.045 * ac, 0.028 - 0.065 * line - 0.032 * (ar - 0.5)
            bv, bu = 0.045 * column - 0.125 + 0.045 * bc, 0.028 - 0.065 * line - 0.032 * (br - 0.5)
            dv, du = bv - av, bu - au
            t = np.clip(((v - av) * dv + (u - au) * du) / (dv * dv + du * du), 0, 1)
            distance = np.minimum(distance, np.hypot(v - av - t * dv, u - au - t * du))
    label = np.zeros((size, size), np.float32)
    label[box] = np.clip(0.5 - (distance - 0.0028) * size, 0, 1)
    return label


def solder_chip(rng: Rng, size: int, defect: str, hurt: Rng) -> Scene:
    """A chip with seven legs a side, soldered to a green board."""
    bv, bu = frame(rng, size, 0.01, 1.0)
    cv, cu, turn = rng.normal(0, 0.0025), rng.normal(0, 0.0025), rng.normal(0, 0.008)
    if defect == "misplaced":
        cu, turn = cu + hurt.choice([-1, 1]) * hurt.uniform(0.006, 0.022), turn + hurt.normal(0, 0.03)
    v, u = (bv - cv) - turn * (bu - cu), (bu - cu) + turn * (bv - cv)
    weave, grain = spectral(rng, size, 0.9), spectral(rng, size, 0.3)
    traces = np.minimum(
        np.abs((bu * 1.0 + 0.5) % 0.115 - 0.05) - 0.007, rounded_box(bv - 0.43, bu, 0.02, 0.6)
    )
    copper = cover_of(np.maximum(traces, 0.3 - np.abs(bu)).astype(np.float32))
    albedo = tint(0.2 * (1 + 0.06 * weave + 0.05 * grain), 0.22, 0.85, 0.42)
    albedo = albedo * (1 + 0.45 * copper[..., None])
    height, gloss = 0.0015 * copper + 0.0003 * grain, 0.05 + 0.0 * grain
    board = Scene(albedo, height.astype(np.float32), gloss.astype(np.float32), copper)
    faulty = int(hurt.integers(14))
    for number in range(14):
        side, place = (-1, 1)[number // 7], (number % 7 - 3) * 0.088
        fault = defect if number == faulty else "good"
        rows = slice(max(0, int((0.36 + place) * size)), int((0.64 + place) * size))
        box = (rows, slice(0, size // 2) if side < 0 else slice(size // 2, size))
        _solder_leg(
            rng, size, place, side, (bv[box], bu[box], v[box], u[box]), _part_of(board, box), fault, hurt
        )
    return _with_body(rng, size, v, u, grain, board)


def _part_of(scene: Scene, box: tuple[slice, slice]) -> Scene:
    """A window on the scene: views, so that writing to it writes to the scene."""
    return Scene(scene.albedo[box], scene.height[box], scene.gloss[box], scene.part[box])


def _solder_leg(
    rng: Rng,
    size: int,
    place: float,
    side: int,
    frames: tuple[Field, Field, Field, Field],
    scene: Scene,
    fault: str,
    hurt: Rng,
) -> None:
    """Draw a pad, its solder and its leg into a window of the scene; `frames`: v, u of the board and chip."""
    bv, bu, v, u = frames
    tin = np.asarray([0.56, 0.56, 0.54], np.float32)
    wet, skew, length, tone = (
        rng.normal(0, 0.0015),
        rng.normal(0, 0.0012),
        rng.normal(0, 0.002),
        rng.normal(1, 0.03),
    )
    pad = rounded_box(bv - place, bu - side * 0.275, 0.027 + wet, 0.052 + wet, 0.012)
    joint = np.sqrt(np.clip(-pad / 0.02, 0, 1)) * 0.008
    if fault == "solder_bridge":
        middle = place + (0.044 if place < 0.2 else -0.044)
        bridge = bu - side * hurt.uniform(0.262, 0.29)
        lump = np.hypot((bv - middle) / 0.04, bridge / hurt.uniform(0.01, 0.022)) - 1
        pad, joint = np.minimum(pad, 0.01 * lump), np.maximum(joint, 0.009 * np.sqrt(np.clip(-lump, 0, 1)))
    cover = np.clip(0.5 - pad * size, 0, 1)
    _lay_tin(scene, tone * tin, 0.4, cover, joint)
    if fault == "missing_leg":
        return
    if fault == "bent_leg":
        skew = skew + hurt.choice([-1, 1]) * hurt.uniform(0.008, 0.026)
    lateral = skew * np.clip((np.abs(u) - 0.18) / 0.06, 0, 1.3)
    leg = rounded_box(v - place - lateral, u - side * 0.22, 0.0165, 0.08 + length, 0.004)
    ramp = 0.05 * np.clip((0.245 - np.abs(u)) / 0.03, 0, 1) + 0.012
    raised = ramp + 0.004 * np.sqrt(np.clip(-leg / 0.012, 0, 1))
    _lay_tin(scene, 1.15 * tin, 0.5, np.clip(0.5 - leg * size, 0, 1), raised)


def _lay_tin(scene: Scene, colour: Field, gloss: float, cover: Field, height: Field) -> None:
    scene.albedo[...] = mix(scene.albedo, colour, cover)
    scene.gloss[...] += (gloss - scene.gloss) * cover
    scene.height[...] = np.maximum(scene.height, height * cover)


def _with_body(rng: Rng, size: int, v: Field, u: Field, grain: Field, board: Scene) -> Scene:
    """The moulded body over the legs: bevelled, matt, with a dot at pin 1 and a laser mark."""
    body = rounded_box(v, u, 0.325, 0.175, 0.008)
    cover = cover_of(body)
    black = tint(0.06 * (1 + 0.08 * grain), 1.0, 1.0, 1.03)
    mark = np.maximum(
        _label(size, v, u),
        cover_of(np.hypot(v + 0.27, u + 0.125).astype(np.float32) - np.float32(0.018)) * 0.5,
    )
    black = black + (mark * rng.normal(0.14, 0.008))[..., None]
    top = 0.07 * np.clip(-body / 0.02, 0, 1) + 0.0006 * grain
    height = np.where(cover > 0.5, np.maximum(top, 0.03), board.height)
    shadow = shadow_of(cover, 0.011) * (1 - cover)
    albedo = mix(board.albedo * (1 - 0.5 * shadow[..., None]), black, cover)
    return Scene(albedo, height.astype(np.float32), board.gloss * (1 - cover) + 0.03 * cover, cover)
