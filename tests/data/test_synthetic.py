"""Drawn inspection pictures: repeatable, exact masks, one layout on disk."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from invad.data.synthetic import CATEGORIES, defects_of, draw, random_picture, write_dataset
from invad.data.synthetic.drawing import _changed
from invad.errors import ConfigError, DataError

EVERY_DEFECT = [(category, defect) for category in CATEGORIES for defect in defects_of(category)]


def test_enough_categories_and_defects() -> None:
    assert len(CATEGORIES) >= 4
    assert all(len(defects_of(category)) >= 3 for category in CATEGORIES)
    assert all("good" not in defects_of(category) for category in CATEGORIES)


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("size", [32, 97, 128])
def test_good_pictures_have_an_empty_mask_and_natural_variation(category: str, size: int) -> None:
    picture, mask = draw(category, seed=3, size=size)
    again, _ = draw(category, seed=3, size=size)
    other, _ = draw(category, seed=4, size=size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    assert mask.shape == (size, size)
    assert mask.dtype == np.bool_
    assert not mask.any()
    np.testing.assert_array_equal(picture, again)
    assert (picture != other).mean() > 0.5
    assert 20 < picture.mean() < 235
    assert (picture == 255).mean() < 0.05


@pytest.mark.parametrize(("category", "defect"), EVERY_DEFECT)
def test_the_mask_is_the_changed_region(category: str, defect: str) -> None:
    """Noise is the same in both pictures: outside the mask nothing differs, inside nearly everything does."""
    for seed in range(3):
        good, _ = draw(category, seed=seed, size=128)
        bad, mask = draw(category, defect, seed=seed, size=128)
        changed = (good != bad).any(axis=2)
        assert mask.any()
        assert not (changed & ~mask).any()
        # the mask of a shifted body also spans the gaps between its legs
        assert changed[mask].mean() > (0.5 if defect == "misplaced" else 0.8)
        rows, columns = np.nonzero(changed)
        where_r, where_c = np.nonzero(mask)
        assert abs(rows.min() - where_r.min()) <= 3
        assert abs(columns.max() - where_c.max()) <= 3


@pytest.mark.parametrize(("category", "defect"), EVERY_DEFECT)
@pytest.mark.parametrize("size", [32, 64])
def test_small_pictures_show_every_defect(category: str, defect: str, size: int) -> None:
    for seed in range(4):
        _, mask = draw(category, defect, seed=seed, size=size)
        assert 0 < mask.mean() < 0.5


@pytest.mark.parametrize(("category", "defect"), EVERY_DEFECT)
def test_defects_repeat_and_vary(category: str, defect: str) -> None:
    picture, mask = draw(category, defect, seed=11, size=96)
    again, mask_again = draw(category, defect, seed=11, size=96)
    _, other = draw(category, defect, seed=12, size=96)
    np.testing.assert_array_equal(picture, again)
    np.testing.assert_array_equal(mask, mask_again)
    assert (mask != other).any()


def test_severity_ranges_from_subtle_to_obvious() -> None:
    def contrast(seed: int) -> float:
        good, _ = draw("brushed_metal", seed=seed, size=128)
        bad, mask = draw("brushed_metal", "stain", seed=seed, size=128)
        return float(np.abs(good.astype(float) - bad)[mask].mean())

    contrasts = [contrast(seed) for seed in range(16)]
    assert max(contrasts) > 2 * min(contrasts)


def test_mask_of_a_known_change() -> None:
    good = np.zeros((128, 128, 3), np.float32)
    flawed = good.copy()
    flawed[20:30, 40:60, 1] = 0.5
    flawed[24:26, 40:60] = 0.0  # a gap of two pixels is closed
    flawed[100:102, 100] = 0.5  # a crumb is dropped
    flawed[60:90, 60:90] = 0.01  # below the threshold
    expected = np.zeros((128, 128), bool)
    expected[20:30, 40:60] = True
    mask = _changed(good, flawed, 0.012)
    assert (mask & ~expected).sum() == 0
    assert (expected & ~mask).sum() <= 8  # a round closing may leave the mouths of the gap open
    assert not _changed(good, good, 0.012).any()


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown synthetic category 'bolt'.*gasket"):
        draw("bolt", seed=0)
    with pytest.raises(ConfigError, match=r"unknown defect 'rust' of gasket.*cut"):
        draw("gasket", "rust", seed=0)
    with pytest.raises(ConfigError, match="size"):
        draw("gasket", seed=0, size=31)
    with pytest.raises(ConfigError, match="seed"):
        draw("gasket", seed=-1)


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_layout_on_disk(tmp_path: Path) -> None:
    root = tmp_path / "new" / "demo"
    plan = {"categories": ["fabric", "tablet"], "train": 3, "test_good": 2, "per_defect": 1, "size": 48}
    assert write_dataset(root, **plan, seed=5) == root
    assert [path.name for path in root.parent.iterdir()] == ["demo"]
    expected = set()
    for category in ("fabric", "tablet"):
        expected |= {f"{category}/train/good/00{i}.png" for i in range(3)}
        expected |= {f"{category}/test/good/00{i}.png" for i in range(2)}
        expected |= {f"{category}/test/{defect}/000.png" for defect in defects_of(category)}
        expected |= {f"{category}/ground_truth/{defect}/000_mask.png" for defect in defects_of(category)}
    found = sorted(path for path in root.rglob("*") if path.is_file())
    assert {path.relative_to(root).as_posix() for path in found} == expected
    pictures = [_read(path) for path in found if "ground_truth" not in path.parts]
    assert all(picture.shape == (48, 48, 3) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    masks = [_read(path) for path in found if "ground_truth" in path.parts]
    assert all(mask.shape == (48, 48) and set(np.unique(mask)) == {0, 255} for mask in masks)

    second = write_dataset(tmp_path / "again", **plan, seed=5)
    assert all(path.read_bytes() == (second / path.relative_to(root)).read_bytes() for path in found)
    third = write_dataset(tmp_path / "other", **plan, seed=6)
    sample = "fabric/train/good/000.png"
    assert (third / sample).read_bytes() != (root / sample).read_bytes()


def test_write_dataset_never_overwrites(tmp_path: Path) -> None:
    few = {"categories": ["tablet"], "train": 1, "test_good": 1, "per_defect": 0, "size": 32}
    empty = tmp_path / "empty"
    empty.mkdir()
    write_dataset(empty, **few)
    with pytest.raises(DataError, match="not an empty folder"):
        write_dataset(empty, **few)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DataError, match="not an empty folder"):
        write_dataset(tmp_path / "file", **few)
    assert (tmp_path / "file").read_text() == "kept"


def test_write_dataset_refuses_bad_plans_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown synthetic category"):
        write_dataset(tmp_path / "a", categories=["bolt"])
    with pytest.raises(ConfigError, match="0 or more"):
        write_dataset(tmp_path / "a", train=-1)
    with pytest.raises(ConfigError, match="size"):
        write_dataset(tmp_path / "a", size=8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [32, 75])
def test_random_pictures_are_varied_and_repeatable(size: int) -> None:
    pictures = [random_picture(np.random.default_rng(seed), size) for seed in range(60)]
    again = [random_picture(np.random.default_rng(seed), size) for seed in range(0, 60, 20)]
    assert all(picture.shape == (size, size, 3) and picture.dtype == np.uint8 for picture in pictures)
    for picture, repeated in zip(pictures[::20], again, strict=True):
        np.testing.assert_array_equal(picture, repeated)
    grey = [bool((picture[..., :1] == picture).all()) for picture in pictures]
    assert 5 < sum(grey) < 40
    means = [picture.mean() for picture in pictures]
    assert np.ptp(means) > 100
    assert np.mean([picture.std() > 10 for picture in pictures]) > 0.7
    assert len({picture.tobytes() for picture in pictures}) == 60


def test_a_scratch_shows_under_the_lights_across_it():
    from invad.data.synthetic import draw_lights

    good, hurt = (draw_lights(3, kind, size=128) for kind in ("good", "scratch"))
    changed = [float(np.abs(good[light].astype(int) - hurt[light]).sum()) for light in good]
    assert max(changed) > 2 * min(changed)
    assert all(np.array_equal(one, draw_lights(3, size=128)[light]) for light, one in good.items())
