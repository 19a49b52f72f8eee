"""One inspection picture with its exact defect mask."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from invad.data.synthetic.categories import CATEGORIES, defects_of
from invad.data.synthetic.fields import Field, Rng
from invad.data.synthetic.scenes import expose, render
from invad.errors import ConfigError

# smallest change of linear intensity that counts as changed; about one deviation of the noise
_VISIBLE = 0.012


def draw(
    category: str, defect: str = "good", *, seed: int, size: int = 256
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one inspection picture: uint8 `size` x `size` x 3, and a bool mask of the changed pixels.

    The part depends on (category, seed, size) alone, so that a defective picture equals the good one of the
    same seed, noise included, wherever the mask is False. The mask is where the defect changes the noise-free
    picture visibly, with gaps of a few pixels closed; it is empty for "good" and never empty otherwise.
    Raises ConfigError for an unknown category or defect, a negative seed or a size below 32.
    """
    names = defects_of(category)
    if defect != "good" and defect not in names:
        raise ConfigError(
            f"unknown defect {defect!r} of {category}; choose good or one of {', '.join(names)}"
        )
    if size < 32 or seed < 0:
        raise ConfigError(f"cannot draw with size {size} and seed {seed}; size is 32 or more, seed 0 or more")
    good = _picture(category, "good", seed, size, 0)
    mask = np.zeros((size, size), bool)
    picture = good
    if defect != "good":
        for attempt in range(20):
            flawed = _picture(category, defect, seed, size, attempt)
            mask = _changed(good, flawed, CATEGORIES[category].flaws[defect].gap)
            if mask.sum() >= max(4, 3e-4 * size * size):
                break
        assert mask.any(), (category, defect, seed, size)
        picture = np.where(mask[..., None], flawed, good)
    return expose(picture, _stream(category, seed, "sensor")), mask


def _stream(category: str, seed: int, *purpose: str | int) -> Rng:
    """An independent stream of random numbers for each purpose."""
    words = zlib.crc32(repr((category, *purpose)).encode())
    return np.random.default_rng([seed, words])


def _picture(category: str, defect: str, seed: int, size: int, attempt: int) -> Field:
    """The noise-free picture."""
    kind, hurt = CATEGORIES[category], _stream(category, seed, defect, attempt)
    scene = kind.build(_stream(category, seed, "part"), size, defect, hurt)
    if defect != "good":
        scene = kind.flaws[defect].hurt(hurt, scene)
    return render(scene, _stream(category, seed, "light"))


def _changed(good: Field, flawed: Field, gap: float) -> NDArray[np.bool_]:
    """H x W mask of visible change: gaps closed, crumbs dropped."""
    size = good.shape[0]
    change = np.abs(np.clip(flawed, 0, 1) - np.clip(good, 0, 1)).max(axis=2) > _VISIBLE
    reach = max(1, round(gap * size))
    rows, columns = np.flatnonzero(change.any(axis=1)), np.flatnonzero(change.any(axis=0))
    mask: NDArray[np.bool_] = np.zeros_like(change, bool)
    if not len(rows):
        return mask
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    near = ndimage.distance_transform_edt(~np.pad(change[box], reach + 1)) <= reach
    closed = ndimage.distance_transform_edt(near)[reach + 1 : -reach - 1, reach + 1 : -reach - 1] > reach
    filled = ndimage.binary_fill_holes(closed | change[box])
    pieces, _ = ndimage.label(filled, structure=np.ones((3, 3)))
    large = np.bincount(pieces.ravel()) >= max(3, 1e-4 * size * size)
    large[0] = False
    mask[box] = large[pieces]
    return mask
