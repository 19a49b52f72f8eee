"""What is read, judged and passed over of labelled images."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from invad.data.labelled import Unreadable, judge_labelled
from invad.errors import DataError
from invad.observer import Silent

LEVELS = np.zeros((64, 64), np.uint8)
LEVELS[10:20, 10:20] = 40
LEVELS[12:16, 12:16] = 200


@pytest.fixture
def samples(write_parts, tmp_path):
    """A good image and three defective ones: with a mask, with one that has a level, and without."""
    good = write_parts(tmp_path / "good", 1)
    bad = write_parts(tmp_path / "bad", 3, first=10, defect=True)
    masks = [tmp_path / f"{name}.png" for name in ("plain", "ruled")]
    for mask in masks:
        Image.fromarray(LEVELS).save(mask)
    ruled = replace(bad[1], mask_path=masks[1], mask_above=100)
    return [*good, replace(bad[0], mask_path=masks[0]), ruled, bad[2]]


def judged(samples, **options):
    unreadable = Unreadable()
    mean = lambda sample, pixels: float(pixels.mean())  # noqa: E731
    made = list(judge_labelled(samples, mean, unreadable, stage="t", observer=Silent(), **options))
    return made, unreadable


def test_masks_follow_the_rule_of_their_set(samples):
    made, unreadable = judged(samples)
    assert [one.sample for one in made] == samples
    assert [None if (m := one.mask((64, 64))) is None else int(m.sum()) for one in made] == [0, 100, 16, None]
    assert made[2].mask((32, 32)).sum() == 4
    assert (unreadable.images, unreadable.masks) == ([], [])
    assert all(one.seconds > 0 and one.size_hw == (64, 64) for one in made)
    assert made[0].answer == float(np.asarray(Image.open(samples[0].path)).mean())


def test_masks_that_can_hardly_be_meant_so_are_kept_for_the_caller(samples):
    for sample, level in zip(samples[1:3], (255, 0), strict=True):
        Image.fromarray(np.full((64, 64), level, np.uint8)).save(sample.mask_path)
    _, unreadable = judged(samples)
    assert [path for path, _ in unreadable.doubtful] == [s.mask_path for s in samples[1:3]]
    (line,) = unreadable.doubts()
    assert line.startswith(f"{samples[1].mask_path}: marks 100% of the whole picture")
    assert line.endswith("; 1 more in doubt, which 'invad data check' lists")


def test_without_masks_no_mask_is_opened(samples):
    samples[1].mask_path.write_bytes(b"junk")
    made, unreadable = judged(samples, masks=False)
    assert [one.mask_codes for one in made] == [None] * 4
    assert not unreadable.masks


def test_what_cannot_be_read_is_named_or_fails_when_strict(samples):
    samples[0].path.write_bytes(b"junk")
    samples[1].mask_path.write_bytes(b"junk")
    made, unreadable = judged(samples)
    assert [one.sample for one in made] == samples[1:]
    assert made[0].mask((64, 64)) is None
    assert (unreadable.images, unreadable.masks) == ([samples[0].path], [samples[1].mask_path])
    for part in (samples, samples[1:]):
        with pytest.raises(DataError):
            judged(part, strict=True)
    with pytest.raises(DataError, match="none of 1 test images could be read"):
        judged(samples[:1])
