import math
import shutil
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import invad.fit.features
import invad.fit.fit
import invad.fit.run
from invad.backbones.base import Backbone, BackboneInfo
from invad.data.images import read_image
from invad.diffusion.empirical import EmpiricalConfig
from invad.errors import DataError, TrainingError
from invad.fit.features import balance, extract_features
from invad.fit.fit import fit
from invad.fit.plan import plan
from invad.fit.run import Run
from invad.model.settings import Preset, TrainConfig
from invad.observer import Silent
from invad.records import Sample
from invad.scoring.holding import turns


class Patches(Backbone):
    """One stride, as a vision transformer has."""

    def __init__(self, patch):
        super().__init__(BackboneInfo(name="patches", source="test", licence="none"), size_multiple=patch)
        self.net = nn.Conv2d(3, 4, patch, patch)

    def features(self, x_B3HW):
        return [self.net(x_B3HW)] * 2


class Notes(Silent):
    def __init__(self):
        self.notes, self.stages, self.steps = [], [], 0

    def note(self, text):
        self.notes.append(text)

    def stage(self, name, total):
        self.stages.append((name, total))

    def advance(self, detail=""):
        self.steps += 1


def assert_same(fitted, other):
    ours, theirs = fitted.model.denoiser.state_dict(), other.model.denoiser.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    assert torch.equal(fitted.held_maps_NLhw, other.held_maps_NLhw)
    assert fitted.record.final_loss == other.record.final_loss


# Sizes


@pytest.mark.parametrize(
    ("size", "grid_stride", "input_hw", "grid_hw"),
    [
        ((64, 64), 16, (64, 64), (4, 4)),
        ((128, 64), 16, (48, 96), (3, 6)),
        ((64, 64), 8, (64, 64), (8, 8)),
        ((64, 64), 32, (64, 64), (2, 2)),
        ((900, 20), 16, (32, 128), (2, 8)),
    ],
)
def test_input_and_grid_of_a_convolutional_network(
    write_parts, tmp_path, tiny_preset, make_backbone, size, grid_stride, input_hw, grid_hw
):
    samples = write_parts(tmp_path, 2, size=size)
    made = plan(samples, replace(tiny_preset, grid_stride=grid_stride), make_backbone(), strict=False)
    assert (made.preprocess.input_hw, made.grid_hw) == (input_hw, grid_hw)


@pytest.mark.parametrize(
    ("patch", "area_side", "input_hw", "grid_hw"),
    [
        (14, 256, (252, 252), (18, 18)),
        (14, 224, (224, 224), (16, 16)),
        (16, 256, (256, 256), (16, 16)),
        (8, 64, (64, 64), (4, 4)),
    ],
)
def test_the_grid_of_a_transformer_is_its_own(write_parts, tmp_path, patch, area_side, input_hw, grid_hw):
    made = plan(write_parts(tmp_path, 2), Preset(area_side=area_side), Patches(patch), strict=False)
    assert (made.preprocess.input_hw, made.grid_hw) == (input_hw, grid_hw)


def test_square_ignores_the_aspect(write_parts, tmp_path, tiny_preset, make_backbone):
    samples = write_parts(tmp_path, 2, size=(128, 64))
    made = plan(samples, replace(tiny_preset, square=True), make_backbone(), strict=False)
    assert made.preprocess.input_hw == (64, 64)


def test_categories_of_very_different_shapes_get_input_sizes_of_their_own(
    write_parts, tmp_path, tiny_preset, make_backbone
):
    samples = write_parts(tmp_path / "square", 3, category="square")
    samples += write_parts(tmp_path / "wide", 3, category="wide", size=(80, 64))
    samples += write_parts(tmp_path / "tall", 2, category="tall", size=(64, 192))
    made = plan(samples, tiny_preset, make_backbone(), strict=False)
    assert (made.preprocess.input_hw, made.preprocess.other_hw) == ((64, 64), ((112, 32),))
    assert made.grid_hw == (4, 4)
    shapes = {s.category: made(read_image(s.path)).shape for s in samples}
    assert len(set(shapes.values())) == 1


def test_a_category_of_mixed_shapes_has_one_input_size(write_parts, tmp_path, tiny_preset, make_backbone):
    samples = write_parts(tmp_path / "a", 3) + write_parts(tmp_path / "b", 2, size=(64, 192))
    assert plan(samples, tiny_preset, make_backbone(), strict=False).preprocess.other_hw == ()


def test_images_are_probed_over_the_whole_set(write_parts, tmp_path, tiny_preset, make_backbone):
    """The first 64 of 100 are square; the last ones, of another category, have 16 bits."""
    samples = write_parts(tmp_path / "a", 80)
    for i in range(20):
        path = tmp_path / f"b{i}.png"
        Image.fromarray(np.full((64, 64), 1000 + i, np.uint16)).save(path)
        samples.append(Sample(path=path, category="b"))
    window = plan(samples, tiny_preset, make_backbone(), strict=False).preprocess.window
    assert window[1] < 0.02


def test_no_readable_image(tmp_path, tiny_preset, make_backbone):
    (tmp_path / "a.png").write_bytes(b"junk")
    samples = [Sample(path=tmp_path / "a.png", category="a")]
    with pytest.raises(DataError, match="no readable image among the normals"):
        plan(samples, tiny_preset, make_backbone(), strict=False)
    with pytest.raises(DataError, match=r"a\.png"):
        plan(samples, tiny_preset, make_backbone(), strict=True)
    with pytest.raises(DataError, match="no readable image"):
        plan([], tiny_preset, make_backbone(), strict=False)


# Categories


def test_small_categories_are_repeated_until_all_count_the_same():
    groups = ["a", "b", "b", "b", "a", "b", "c", "c"]
    made = balance(groups)
    assert [sum(groups[i] == name for i in made) for name in "abc"] == [4, 4, 4]
    assert sorted(set(made.tolist())) == list(range(8))
    assert balance(["a"] * 5).tolist() == [0, 1, 2, 3, 4]


def test_a_lone_image_is_not_repeated_beyond_all_measure():
    made = balance(["a"] * 99 + ["b", "c"])
    assert len(made) <= 2 * 101
    assert (made == 99).sum() == (made == 100).sum() == 51


def test_training_draws_small_categories_as_often(
    write_parts, tmp_path, tiny_preset, make_backbone, monkeypatch
):
    """The rows that the network is trained on: 48 parts, and 12 of the other kind four times."""
    seen = []
    usual = invad.fit.fit.train_denoiser
    monkeypatch.setattr(
        invad.fit.fit,
        "train_denoiser",
        lambda net, x, rows, *a, **k: seen.append(rows) or usual(net, x, rows, *a, **k),
    )
    samples = write_parts(tmp_path / "a", 60, category="a")
    samples += write_parts(tmp_path / "b", 20, first=100, category="b")
    fit(samples, tiny_preset, make_backbone())
    counts = np.bincount(seen[0])
    assert counts.sum() == 2 * 48
    assert sorted(counts.tolist()) == [1] * 48 + [4] * 12


# Features


def test_features_on_disk_equal_those_in_memory(good_parts, tiny_preset, make_backbone, monkeypatch):
    extract, notes = plan(good_parts, tiny_preset, make_backbone(), strict=False), Notes()
    with ExitStack() as stack:
        memory = extract_features(good_parts[:9], extract, strict=False, run=Run(observer=notes), stack=stack)
        monkeypatch.setattr(invad.fit.run, "MEMORY_LIMIT", 0)
        disk = extract_features(good_parts[:9], extract, strict=False, run=Run(observer=notes), stack=stack)
        assert isinstance(disk.z_NChw, np.memmap)
        path = disk.z_NChw.filename
        np.testing.assert_array_equal(memory.z_NChw, disk.z_NChw)
        for i in range(9):
            np.testing.assert_array_equal(memory.z_NChw[i], extract_one(extract, good_parts[i]))
    assert not path.parent.exists()
    assert ["in memory" in note for note in notes.notes] == [True, False]
    assert "9 images" in notes.notes[1]


def extract_one(extract, sample):
    return extract(np.asarray(Image.open(sample.path)))[0].numpy()


def test_a_fit_with_features_on_disk_is_the_same(good_parts, tiny_preset, make_backbone, monkeypatch):
    first = fit(good_parts, tiny_preset, make_backbone())
    monkeypatch.setattr(invad.fit.run, "MEMORY_LIMIT", 0)
    assert_same(first, fit(good_parts, tiny_preset, make_backbone()))


def test_a_disk_without_room_is_said_before(good_parts, tiny_preset, make_backbone, monkeypatch):
    monkeypatch.setattr(invad.fit.run, "MEMORY_LIMIT", 0)
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(TrainingError, match=r"no room for .* MB of features; .*TMPDIR"):
        fit(good_parts, tiny_preset, make_backbone())


# Fits


def test_sixty_normals_hold_a_fifth_out(good_parts, tiny_preset, make_backbone):
    notes = Notes()
    fitted = fit(good_parts, tiny_preset, make_backbone(), run=Run(observer=notes))
    assert (fitted.record.normals, fitted.record.held_out, fitted.record.folds) == (
        {"part": 64},
        {"part": 13},
        1,
    )
    maps = len(tiny_preset.score_rule.weights)
    assert fitted.held_maps_NLhw.shape == (13, maps, 4, 4)
    assert fitted.held_categories == ("part",) * 13
    assert notes.stages == [("features", 64), ("denoiser", 4)]
    assert notes.steps == 68
    assert math.isfinite(fitted.record.final_loss)


def test_the_held_out_images_do_not_train(write_parts, tmp_path, tiny_preset, make_backbone):
    """Spoiling all of them but in size changes neither network nor standardiser."""
    # Groups of their own, because spoiled images would be found to belong together.
    samples = [replace(sample, group=str(i)) for i, sample in enumerate(write_parts(tmp_path, 64))]
    first = fit(samples, tiny_preset, make_backbone())
    held = [i for i in range(64) if i in held_out_of(64)]
    for i in held:
        Image.fromarray(255 - read_image(samples[i].path)).save(samples[i].path)
    second = fit(samples, tiny_preset, make_backbone())
    ours, theirs = first.model.denoiser.state_dict(), second.model.denoiser.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    assert torch.equal(first.model.space.standardiser.mean_C, second.model.space.standardiser.mean_C)
    assert not torch.equal(first.held_maps_NLhw, second.held_maps_NLhw)


def held_out_of(n):
    from invad.scoring.holding import hold_out

    return set(hold_out(n, 0)[1].tolist())


def test_fewer_are_each_held_out_once(good_parts, tiny_preset, make_backbone):
    notes = Notes()
    fitted = fit(good_parts[:10], tiny_preset, make_backbone(), run=Run(observer=notes))
    assert (fitted.record.held_out, fitted.record.folds) == ({"part": 10}, 4)
    assert len(fitted.held_maps_NLhw) == 10
    names = [name for name, _ in notes.stages]
    assert names == ["features", *[f"fold {k} of 4" for k in (1, 2, 3, 4)], "denoiser"]


def test_without_a_network_all_are_held_out_in_turn(write_parts, tmp_path, tiny_preset, make_backbone):
    """What the last fold holds out leaves the model that is kept as it is, and changes how it is read."""
    known = replace(tiny_preset, denoiser=None, top_fractions=None, second_space=None)
    samples = [replace(sample, group=str(i)) for i, sample in enumerate(write_parts(tmp_path, 60))]
    notes = Notes()
    first = fit(samples, known, make_backbone(), run=Run(observer=notes))
    assert notes.stages == [("features", 60), ("models", 5)]
    assert (first.record.held_out, first.record.folds) == ({"part": 60}, 5)
    assert sorted(str(sample.path) for sample in first.held_samples) == [str(s.path) for s in samples]
    assert len(first.record.trained) == 48
    last = first.held_samples[-12:]
    for sample in last:
        Image.fromarray(255 - read_image(sample.path)).save(sample.path)
    second = fit(samples, known, make_backbone())
    for one, other in zip(first.model.banks, second.model.banks, strict=True):
        assert torch.equal(one.empirical.bank, other.empirical.bank)
    same = [bool(torch.equal(a, b)) for a, b in zip(first.held_maps_NLhw, second.held_maps_NLhw, strict=True)]
    assert not any(same)
    assert second.record.trained == first.record.trained


def test_no_fold_sees_its_own_images(write_parts, tmp_path, tiny_preset, make_backbone):
    """Another image 0 leaves unchanged how the images of its fold are read: that model never saw it."""
    samples = write_parts(tmp_path, 8)
    first = fit(samples, tiny_preset, make_backbone())
    Image.fromarray(np.full((64, 64, 3), 255, np.uint8)).save(samples[0].path)
    second = fit(samples, tiny_preset, make_backbone())
    same = [bool(torch.equal(a, b)) for a, b in zip(first.held_maps_NLhw, second.held_maps_NLhw, strict=True)]
    assert same.count(True) == 1  # folds of two: its neighbour
    assert same.count(False) == 7


def test_several_categories_share_one_model(write_parts, tmp_path, tiny_preset, make_backbone):
    samples = [*write_parts(tmp_path / "a", 45), *write_parts(tmp_path / "b", 20, category="other")]
    notes = Notes()
    fitted = fit(samples, tiny_preset, make_backbone(), run=Run(observer=notes))
    assert fitted.record.held_out == {"other": 8, "part": 9}
    assert ("denoiser", 4) in notes.stages
    assert sorted(fitted.held_categories) == ["other"] * 8 + ["part"] * 9


def test_the_banks_of_several_categories_are_larger(write_parts, tmp_path, tiny_preset, make_backbone):
    small = replace(tiny_preset, empirical=EmpiricalConfig(cells=20))
    one = write_parts(tmp_path / "a", 12)
    several = [*one, *(s for c in "bcd" for s in write_parts(tmp_path / c, 12, category=c))]
    for samples, size in ((one, 20), (several, 40)):
        model = fit(samples, small, make_backbone()).model
        assert [len(bank.empirical.bank) for bank in model.banks] == [size] * 4


def test_few_of_several_categories(write_parts, tmp_path, tiny_preset, make_backbone):
    samples = [*write_parts(tmp_path / "a", 6), *write_parts(tmp_path / "b", 6, category="other")]
    notes = Notes()
    fitted = fit(samples, tiny_preset, make_backbone(), run=Run(observer=notes))
    assert fitted.record.held_out == {"other": 6, "part": 6}
    assert {total for name, total in notes.stages if name != "features"} == {4}


def test_steps_grow_with_the_images(good_parts, tiny_preset, make_backbone):
    by_epochs = replace(tiny_preset, train=TrainConfig(epochs=1, min_steps=3, batch=8, warmup=1))
    notes = Notes()
    fitted = fit(good_parts, by_epochs, make_backbone(), run=Run(observer=notes))
    assert notes.stages[1:] == [("denoiser", 6)]  # 51 images in batches of 8
    assert fitted.record.steps == 6


def test_a_broken_image_in_the_middle(write_parts, tmp_path, tiny_preset, make_backbone):
    samples, notes = write_parts(tmp_path, 8), Notes()
    samples[4].path.write_bytes(samples[4].path.read_bytes()[:300])
    fitted = fit(samples, tiny_preset, make_backbone(), run=Run(observer=notes))
    assert fitted.record.skipped == (str(samples[4].path),)
    assert fitted.record.normals == {"part": 7}
    assert any("skipped: " in note and "004.png" in note for note in notes.notes)
    with pytest.raises(DataError, match=r"004\.png"):
        fit(samples, tiny_preset, make_backbone(), strict=True)


def test_one_image_is_too_few(write_parts, tmp_path, tiny_preset, make_backbone):
    samples = write_parts(tmp_path, 2)
    assert len(fit(samples, tiny_preset, make_backbone()).held_maps_NLhw) == 2
    with pytest.raises(DataError, match="1 readable image: training needs at least 2 normal images"):
        fit(samples[:1], tiny_preset, make_backbone())


def test_defective_images_are_refused(write_parts, tmp_path, tiny_preset, make_backbone):
    samples = [*write_parts(tmp_path / "good", 3), *write_parts(tmp_path / "bad", 1, defect=True)]
    with pytest.raises(DataError, match=r"bad/000\.png: is spot; training takes normal images only"):
        fit(samples, tiny_preset, make_backbone())


class Interrupting(Silent):
    def __init__(self, after):
        self.left = after

    def advance(self, detail=""):
        self.left -= bool(detail)
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1, 3, 6, 18])
def test_an_interrupted_fit_continues_to_the_same_result(
    good_parts, tmp_path, tiny_preset, make_backbone, step
):
    """Five trainings of four steps: interrupted in the first fold, in the second, and in the last."""
    samples = good_parts[:8]
    with pytest.raises(KeyboardInterrupt):
        fit(samples, tiny_preset, make_backbone(), run=Run(work=tmp_path, observer=Interrupting(step)))
    resumed = fit(samples, tiny_preset, make_backbone(), run=Run(work=tmp_path))
    assert_same(fit(samples, tiny_preset, make_backbone()), resumed)


def test_checkpoints_of_another_command_are_refused(good_parts, tmp_path, tiny_preset, make_backbone):
    samples = good_parts[:8]
    fit(samples, tiny_preset, make_backbone(), run=Run(work=tmp_path))
    longer = replace(tiny_preset, train=replace(tiny_preset.train, steps=5))
    for changed in (
        (samples, longer, make_backbone()),
        (samples[:7], tiny_preset, make_backbone()),
        (samples, tiny_preset, make_backbone(1)),
    ):
        with pytest.raises(TrainingError, match="belongs to other data or options"):
            fit(*changed, run=Run(work=tmp_path))


def test_other_pictures_under_the_same_names_are_refused(write_parts, tmp_path, tiny_preset, make_backbone):
    """BMP files of one camera have one size; that of a file's own bytes is what tells them apart."""

    def picture(i, first):
        path = tmp_path / "parts" / f"{i}.bmp"
        Image.open(write_parts(tmp_path / "drawn", 1, first=first + i)[0].path).save(path)
        return Sample(path=path, category="part")

    (tmp_path / "parts").mkdir()
    samples = [picture(i, 0) for i in range(6)]
    work = Run(work=tmp_path / "work")
    fit(samples, tiny_preset, make_backbone(), run=work)
    moved = [replace(s, path=s.path.rename(s.path.with_name(f"moved-{s.path.name}"))) for s in samples]
    assert fit(moved, tiny_preset, make_backbone(), run=work).record.normals == {"part": 6}
    sizes = {s.path.stat().st_size for s in moved}
    [s.path.unlink() for s in moved]
    others = [picture(i, 50) for i in range(6)]
    assert {s.path.stat().st_size for s in others} == sizes
    with pytest.raises(TrainingError, match="belongs to other data or options"):
        fit(others, tiny_preset, make_backbone(), run=work)


# Copies


@pytest.mark.parametrize("count", [8, 62])
def test_copies_count_once(good_parts, tmp_path, tiny_preset, make_backbone, count):
    """The fit is that of the distinct images, to the bit, in either way of holding images out."""
    copied = []
    for sample in good_parts[:8]:
        path = tmp_path / f"copy_{sample.path.stem}.bmp"
        Image.open(sample.path).save(path)
        copied.append(replace(sample, path=path))
    notes = Notes()
    fitted = fit([*good_parts[:count], *copied], tiny_preset, make_backbone(), run=Run(observer=notes))
    assert_same(fit(good_parts[:count], tiny_preset, make_backbone()), fitted)
    assert fitted.record.normals == {"part": count}
    assert fitted.record.copies == tuple(str(sample.path) for sample in copied)
    (told,) = [note for note in notes.notes if "copies" in note]
    first = f"{tmp_path}/copy_000.bmp of 000.png"
    assert told.startswith(f"8 of {count + 8} images are copies of others ({first}, ")


def test_one_picture_many_times_is_one_picture(write_parts, tmp_path, tiny_preset, make_backbone):
    samples = write_parts(tmp_path, 5)
    for levels in ([7] * 5, range(5)):
        for sample, level in zip(samples, levels, strict=True):
            Image.fromarray(np.full((64, 64, 3), level, np.uint8)).save(sample.path)
        with pytest.raises(DataError, match="1 different picture: training needs at least 2"):
            fit(samples, tiny_preset, make_backbone())


def test_frames_of_a_few_scenes_are_named(write_parts, tmp_path, tiny_preset, make_backbone):
    notes, samples = Notes(), write_parts(tmp_path, 12)
    fit(samples, tiny_preset, make_backbone(), run=Run(observer=notes))
    assert not [note for note in notes.notes if "copies" in note]
    for i, sample in enumerate(samples):
        frame = read_image(samples[i // 4 * 4].path).copy()
        frame[i, :3] ^= 1
        Image.fromarray(frame).save(sample.path)
    fit(samples, tiny_preset, make_backbone(), run=Run(observer=notes))
    (told,) = [note for note in notes.notes if "copies" in note]
    assert told.startswith("9 of 12 images are nearly copies of others")


@pytest.mark.parametrize("count", [6, 40])
def test_a_picture_of_two_categories_is_not_trained_on_while_it_is_held_out(
    write_parts, tmp_path, tiny_preset, make_backbone, monkeypatch, count
):
    seen = []
    usual = invad.fit.fit.train_denoiser
    monkeypatch.setattr(
        invad.fit.fit,
        "train_denoiser",
        lambda net, x, rows, *a, **k: seen.append(len(x)) or usual(net, x, rows, *a, **k),
    )
    samples = write_parts(tmp_path / "a", count) + write_parts(tmp_path / "b", count, category="b")
    held = fit(samples, tiny_preset, make_backbone()).held_pixels
    if count == 40:
        assert seen == [2 * (40 - len(set(held)))]
    else:
        assert max(seen[:4]) < 9  # of 12, a fold of 3 and their copies


def test_a_fit_leaves_the_random_state_alone(good_parts, tiny_preset, make_backbone):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = fit(good_parts[:4], tiny_preset, make_backbone())
    assert torch.equal(torch.rand(3), expected)
    assert_same(first, fit(good_parts[:4], tiny_preset, make_backbone()))


def test_maps_of_five_models_are_brought_to_the_one_that_is_kept(
    good_parts, tiny_preset, make_backbone, monkeypatch
):
    """Once, for all held-out images together, with the numbers of their models."""
    given = []

    def noted(*asked):
        given.extend(asked)
        return asked[0] + 1

    monkeypatch.setattr("invad.fit.fit.as_the_last_reads", noted)
    known = replace(tiny_preset, denoiser=None, top_fractions=None, second_space=None)
    fitted = fit(good_parts, known, make_backbone())
    how = turns(["part"] * 64, range(64), known.train.seed, once=False)
    assert len(how.parts) == fitted.record.folds == 5
    maps, readers, categories, groups = given
    assert readers == [k for k, (_, out) in enumerate(how.parts, start=1) for _ in out]
    assert (set(categories), len(set(groups))) == ({"part"}, 64)
    assert torch.equal(fitted.held_maps_NLhw, maps + 1)
    own = maps.split([len(out) for _, out in how.parts])
    read = [fitted.model.read(fitted.model.extract(read_image(s.path))) for s in fitted.held_samples[-3:]]
    torch.testing.assert_close(torch.stack(read), own[-1][-3:], rtol=1e-4, atol=1e-3)
