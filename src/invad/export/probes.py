"""Images on which every export is compared with PyTorch: drawn from a seed, stored in the bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from invad.data.tiling import Tiling
from invad.records import Hw

# name, height and width where the bundle takes any size, kind
PROBES: tuple[tuple[str, Hw, str], ...] = (
    ("wide.png", (120, 320), "colour"),
    ("tall_grey.png", (192, 128), "grey"),
    ("deep.tif", (150, 170), "colour16"),
    ("deep_grey.png", (100, 140), "grey16"),
    ("tiny.png", (5, 3), "colour"),
    ("flat.png", (64, 64), "flat"),
    ("large.png", (600, 800), "colour"),
)


# For a model of tiles: name, height and width in tiles, kind. Each has seams across and along.
TILED_PROBES = (
    ("tiles.png", (1.4, 2.2), "colour"),
    ("tiles_deep.tif", (2.1, 1.3), "colour16"),
    ("tiles_flat.png", (1.0, 1.5), "flat"),
)


def write_probes(
    folder: Path,
    size_hw: Hw | None,
    window: tuple[float, float],
    pixels: str | None = None,
    tiling: Tiling | None = None,
    framed: Hw | None = None,
) -> list[str]:
    """Write the probes as files; returns their names. All have `size_hw` if it is given.

    tiling: of a model of tiles, whose probes are larger than one. framed: the size that its regions are for.

    window: see Preprocess; 16-bit probes reach a little over it on both sides. pixels: uint8 leaves those of
    16 bits away, uint16 draws all with 16.
    """
    folder.mkdir(parents=True)
    names = []
    probes = PROBES
    if tiling is not None:
        side = tiling.tile_px
        size_hw = tiling.picture_hw or framed
        probes = tuple(
            (name, (round(h * side), round(w * side)), kind) for name, (h, w), kind in TILED_PROBES
        )
    for seed, (name, own_hw, kind) in enumerate(probes):
        is_deep = kind.endswith("16")
        if pixels == "uint8" and is_deep:
            continue
        if pixels == "uint16" and not is_deep:
            name, kind = f"{Path(name).stem}.tif", f"{kind}16"
        picture = _draw(seed, size_hw or own_hw, kind, window)
        if name.endswith(".tif"):
            tifffile.imwrite(folder / name, picture, photometric="rgb" if picture.ndim == 3 else "minisblack")
        else:
            Image.fromarray(picture).save(folder / name)
        names.append(name)
    return names


def _draw(seed: int, size_hw: Hw, kind: str, window: tuple[float, float]) -> NDArray[Any]:
    """A disc on a ramp with stripes and noise: flat parts, edges, fine structure."""
    rng = np.random.default_rng(seed)
    h, w = size_hw
    y, x = (np.arange(h)[:, None] + 0.5) / h, (np.arange(w)[None] + 0.5) / w
    disc = np.hypot(y - 0.5, x - 0.4) < 0.3
    stripes = np.sin(40 * (x + y)) > 0.6
    grey = 0.25 + 0.3 * x + 0.3 * disc + 0.1 * stripes * y
    if kind.startswith("flat"):
        flat = np.full((h, w, 3), 128, np.uint8)
        return flat if kind == "flat" else flat * np.uint16(257)
    shades = (1.0, 0.8, 0.6) if kind.startswith("colour") else (1.0,)
    picture = np.stack([shade * grey for shade in shades], axis=2)
    picture = picture + rng.normal(0, 0.03, picture.shape)
    if not kind.startswith("colour"):
        picture = picture[..., 0]
    if kind.endswith("16"):
        low, high = window
        picture = low + (high - low) * (1.2 * picture - 0.1)
        return (65535 * picture.clip(0, 1)).round().astype(np.uint16)
    return (255 * picture.clip(0, 1)).round().astype(np.uint8)
