"""An inspection scene, the pieces it is built of, its light and its sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from invad.data.synthetic.fields import Field, Rng, grid


@dataclass(frozen=True, eq=False)
class Scene:
    """What lies under the camera, before light: all fields H x W, heights in units of the picture's side."""

    albedo: Field  # H x W x 3, 0..1
    height: Field
    gloss: Field  # 0..1, strength of the specular reflection
    part: Field  # 0..1 cover of the part itself (defects sit where it is 1)


def cover_of(distance: Field) -> Field:
    """Anti-aliased cover, 0..1, of the region where the signed distance (in sides) is negative."""
    covered: Field = np.clip(0.5 - distance * distance.shape[0], 0, 1).astype(np.float32)
    return covered


def frame(rng: Rng, size: int, shift: float, turn_degrees: float) -> tuple[Field, Field]:
    """Coordinates v, u of a part that lies near the middle, a little shifted and turned (pose jitter)."""
    y, x = grid(size)
    cy, cx = 0.5 + rng.normal(0, shift, 2)
    angle = np.deg2rad(rng.normal(0, turn_degrees))
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y, x = y - np.float32(cy), x - np.float32(cx)
    return c * y - s * x, c * x + s * y


def haze(field: Field, reach: float) -> Field:
    """A wide blur, `reach` in sides: two box filters, several times faster than the Gaussian."""
    width = 2 * round(1.2 * reach * field.shape[0]) + 1
    hazy: Field = ndimage.uniform_filter(
        ndimage.uniform_filter(field, width, mode="nearest"), width, mode="nearest"
    )
    return hazy


def shadow_of(cover: Field, reach: float) -> Field:
    """Soft shadow of a part, thrown away from the lamp: down and to the right."""
    shift = round(reach * cover.shape[0])
    thrown: Field = np.roll(haze(cover, reach), (shift, shift), (0, 1))
    return thrown


def rounded_box(v: Field, u: Field, half_v: float, half_u: float, corner: float = 0.0) -> Field:
    """Signed distance to a rounded rectangle centred on v = u = 0."""
    dv, du = np.abs(v) - (half_v - corner), np.abs(u) - (half_u - corner)
    outside = np.hypot(np.maximum(dv, 0), np.maximum(du, 0))
    distance: Field = (outside + np.minimum(np.maximum(dv, du), 0) - corner).astype(np.float32)
    return distance


def tint(field: Field, *colour: float) -> Field:
    tinted: Field = field[..., None] * np.asarray(colour, np.float32)
    return tinted


def mix(low: Field, high: Field | NDArray[np.float32], cover: Field) -> Field:
    """`high` laid over `low` (both ... x 3) where `cover` is 1."""
    mixed: Field = low + cover[..., None] * (high - low)
    return mixed


def render(scene: Scene, rng: Rng) -> Field:
    """Lambert and specular shading under one lamp of slightly uneven light; the optics blur a little."""
    size = scene.height.shape[0]
    y, x = grid(size)
    azimuth, sharpness = np.deg2rad(225 + rng.normal(0, 6)), 0.22
    tilt_y, tilt_x = rng.normal([-0.18, -0.1], 0.05)
    light = rng.normal(1.0, 0.025) * (1 + tilt_y * (y - 0.5) + tilt_x * (x - 0.5))
    light = light - rng.uniform(0.15, 0.25) * ((y - 0.5) ** 2 + (x - 0.5) ** 2)
    down, right = np.gradient(scene.height * size)
    to_lamp = -(np.sin(azimuth) * down + np.cos(azimuth) * right)
    across = np.cos(azimuth) * down - np.sin(azimuth) * right
    diffuse = 0.3 + 0.7 * np.maximum(1 + 0.9 * to_lamp, 0) / np.sqrt(1 + down**2 + right**2)
    lobe = ((to_lamp - 0.3) ** 2 + across**2) / sharpness**2
    hollow = np.clip((haze(scene.height, 0.02) - scene.height) * 14, 0, 0.5)
    shaded = scene.albedo * (diffuse * (1 - hollow) * light)[..., None]
    shaded = shaded + (scene.gloss * np.exp(-lobe) * light)[..., None]
    blur = (0.55 + 0.1 * rng.random()) * size / 256
    return np.asarray(ndimage.gaussian_filter(shaded, (blur, blur, 0), truncate=3.0), np.float32)


def expose(picture: Field, rng: Rng) -> NDArray[np.uint8]:
    """The sensor, pixel by pixel: shot and read noise, tone curve, eight bits."""
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    noise += rng.standard_normal((*picture.shape[:2], 1), dtype=np.float32)
    signal = np.clip(picture, 0, 1)
    signal = signal + noise * np.sqrt(0.006**2 + 0.00012 * signal)
    levels: NDArray[np.uint8] = (np.clip(signal, 0, 1) ** (1 / 1.6) * 255 + 0.5).astype(np.uint8)
    return levels
