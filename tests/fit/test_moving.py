"""Moved copies of normal images."""

import shutil
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import invad.fit.run
from invad.data.images import read_image
from invad.detector.detector import Detector
from invad.detector.tiled import TiledDetector
from invad.errors import ConfigError, DataError
from invad.fit.features import extract_features
from invad.fit.fit import fit
from invad.fit.moving import Move, draw_moves, largest_turn, moved
from invad.fit.plan import plan
from invad.fit.run import Run
from invad.model.settings import preset_named
from invad.observer import Silent
from invad.records import Sample


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


# The pictures


def test_a_shift_is_a_share_of_the_sides_to_the_right_and_down():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[10, 20] = 200
    made = moved(pixels, Move(0.1, 0.25, 0))
    assert np.argwhere(made[..., 1] > 0).tolist() == [[20, 28]]
    assert made[20, 28].tolist() == [200] * 3


def test_a_turn_is_counterclockwise_and_keeps_shapes_in_pictures_that_are_not_square():
    """A spot 42 pixels right of the centre, turned by 30 degrees, lies 36.4 right of it and 21 above."""
    pixels = np.zeros((60, 120, 3), np.uint8)
    pixels[28:32, 100:104] = 250
    made = moved(pixels, Move(0, 0, 30))[..., 0].astype(float)
    y, x = (np.average(axis, weights=made) for axis in np.mgrid[:60, :120])
    assert (y - 29.5, x - 59.5) == pytest.approx((-21, 36.4), abs=0.1)
    assert made.sum() == pytest.approx(16 * 250, rel=0.05)


def test_what_comes_in_is_the_mirrored_border():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 10, 3), np.uint8)
    made = moved(pixels, Move(0, 0.1, 0))
    assert np.array_equal(made, np.concatenate([pixels[1::-1], pixels[:-2]]))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_pixels_stay_of_their_type_and_those_that_do_not_move_are_the_same(kind):
    rng = np.random.default_rng(0)
    pixels = rng.random((9, 14, 3)).astype(kind) if kind is np.float32 else None
    pixels = (
        rng.integers(0, np.iinfo(kind).max, (9, 14, 3), kind, endpoint=True) if pixels is None else pixels
    )
    made = moved(pixels, Move(0, 0, 0))
    assert made.dtype == kind
    np.testing.assert_allclose(made, pixels, atol=1e-6)
    assert moved(pixels, Move(0.07, -0.05, 3)).dtype == kind


def test_moves_lie_within_what_was_asked_and_come_from_the_seed(good_parts):
    moves = draw_moves(good_parts, 0.05, 3)
    assert moves == draw_moves(good_parts, 0.05, 3) != draw_moves(good_parts, 0.05, 4)
    for name, most in (("right", 0.05), ("down", 0.05), ("turn", largest_turn(0.05))):
        drawn = np.array([getattr(move, name) for move in moves])
        assert 0.8 * most < drawn.max() <= most
        assert -most <= drawn.min() < -0.8 * most
    assert largest_turn(0.02) == pytest.approx(2.29, abs=0.01)


def test_pictures_of_one_part_move_alike(tmp_path):
    def picture(part, member):
        return Sample(path=tmp_path / f"{part}{member}", category=member, member=member, sample_id=part)

    moves = draw_moves([picture("a", "left"), picture("b", "left"), picture("a", "right")], 0.02, 0)
    assert moves[0] == moves[2] != moves[1]


# The training


def test_a_training_is_that_on_copies_written_by_hand(write_parts, tmp_path, tiny_preset, make_backbone):
    """Each in one group with its image; the same network and the same held-out maps."""
    samples = write_parts(tmp_path, 8)
    by_hand = [replace(sample, group=sample.path.stem) for sample in samples]
    for sample, move in zip(samples, draw_moves(samples, 0.1, tiny_preset.train.seed), strict=True):
        path = tmp_path / f"{sample.path.stem}-moved.png"
        Image.fromarray(moved(read_image(sample.path), move)).save(path)
        by_hand.append(replace(sample, path=path, group=sample.path.stem))
    made = fit(samples, replace(tiny_preset, moved=0.1), make_backbone())
    wanted = fit(by_hand, tiny_preset, make_backbone())
    ours, theirs = made.model.denoiser.state_dict(), wanted.model.denoiser.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert torch.equal(made.model.banks[0].empirical.bank, wanted.model.banks[0].empirical.bank)
    assert torch.equal(made.held_maps_NLhw, wanted.held_maps_NLhw)
    assert made.record.steps == wanted.record.steps
    assert made.record.normals == made.record.held_out == made.record.groups == {"part": 8}
    assert [made.held_groups.count(group) for group in set(made.held_groups)] == [2] * 8


@pytest.mark.parametrize("count", [10, 64])
def test_a_held_out_image_is_held_out_with_its_copy(good_parts, tiny_preset, make_backbone, count):
    known = replace(tiny_preset, denoiser=None, top_fractions=None, second_space=None, moved=0.02)
    made = fit(good_parts[:count], known, make_backbone())
    paths = [str(sample.path) for sample in made.held_samples]
    assert {paths.count(path) for path in paths} == {2}
    assert made.record.held_out == {"part": count}
    for path in set(paths):
        assert len({g for g, own in zip(made.held_groups, paths, strict=True) if own == path}) == 1
    assert len(made.record.trained) == {10: 10, 64: 52}[count]


def test_copies_of_what_is_left_out_are_left_out(write_parts, tmp_path, tiny_preset, make_backbone):
    samples = write_parts(tmp_path, 6)
    (tmp_path / "000.png").write_bytes(b"junk")
    (tmp_path / "005.png").write_bytes((tmp_path / "004.png").read_bytes())
    notes, settings = Notes(), replace(tiny_preset, moved=0.02)
    made = fit(samples, settings, make_backbone(), run=Run(observer=notes))
    assert made.record.skipped == (str(tmp_path / "000.png"),)
    assert made.record.copies == (str(tmp_path / "005.png"),)
    assert made.record.normals == {"part": 4}
    assert len(made.held_maps_NLhw) == 8
    assert sum(note.startswith("skipped: ") for note in notes.notes) == 1
    assert "6 images and a moved copy of each" in notes.notes[0]
    with pytest.raises(DataError, match=r"000\.png"):
        fit(samples, settings, make_backbone(), strict=True)


def test_features_in_a_cache_are_those_of_the_same_moves(
    good_parts, tiny_preset, make_backbone, tmp_path, monkeypatch
):
    monkeypatch.setattr(invad.fit.run, "MEMORY_LIMIT", 0)
    samples, backbone, notes = good_parts[:5], make_backbone(), Notes()
    extract = plan(samples, tiny_preset, backbone, strict=False)

    def features(*seed_of_moves):
        with ExitStack() as stack:
            moves = draw_moves(samples, 0.05, *seed_of_moves) if seed_of_moves else ()
            run = Run(cache=tmp_path, observer=notes)
            return np.array(
                extract_features(samples, extract, moves=moves, strict=False, run=run, stack=stack).z_NChw
            )

    plain, first, other, again = features(), features(0), features(1), features(0)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[5:], other[5:])
    assert np.array_equal(first[:5], plain)
    assert np.array_equal(first[:5], other[:5])
    assert len(list(tmp_path.glob("features-*"))) == 3
    assert sum("10 found in" in note for note in notes.notes) == 1


def test_a_part_that_lies_beside_is_called_less_often_after_moved_copies(write_parts, tmp_path):
    """Parts that all lay in the same place, and good ones 4 % beside: far above the limit without copies."""
    samples = write_parts(tmp_path / "parts", 24)
    beside = [moved(read_image(s.path), Move(0.04, 0.04, 0)) for s in write_parts(tmp_path, 12, first=50)]
    settings = replace(preset_named("fast"), area_side=128)
    called = {}
    for share in (0.0, 0.05):
        detector = Detector.fit(samples, preset=settings, moved=share)
        called[share] = sum(detector.predict(pixels).decision != "good" for pixels in beside)
    assert called[0.0] == 12
    assert called[0.05] <= 3


def test_parts_of_several_pictures_count_as_parts(write_parts, tmp_path):
    for sample in write_parts(tmp_path / "drawn", 16):
        pixels = read_image(sample.path)
        for member, own in (("left", pixels), ("right", 255 - pixels)):
            Image.fromarray(own).save(tmp_path / f"{sample.path.stem}_{member}.png")
    shutil.rmtree(tmp_path / "drawn")
    settings = replace(preset_named("fast"), area_side=128, moved=0.05)
    detector = Detector.fit(tmp_path, preset=settings, parts="names")
    assert detector.info.fit.normals == detector.info.fit.held_out == {"left": 16, "right": 16}
    assert (detector.fusion.calibration.n, len(detector.fusion.calibration.scores)) == (16, 32)
    assert {one.decision for one in detector.predict_parts(tmp_path)} <= {"good", "review"}


def test_tiles_refuse_settings_with_copies(write_parts, tmp_path, tiny_preset, make_backbone):
    with pytest.raises(ConfigError, match="whole pictures only"):
        TiledDetector.fit(
            write_parts(tmp_path, 4, size=(256, 256)),
            smallest_defect=4,
            preset=replace(tiny_preset, moved=0.02),
            backbone=make_backbone(),
        )
