import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from invad.data.check import check_dataset
from invad.data.datasets import ALIASES, DATASETS, load_dataset, normal_images, not_taken
from invad.data.images import read_image
from invad.data.layouts.base import held_out
from invad.data.masks import read_mask
from invad.errors import ConfigError, DataError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def touch(folder, *names):
    """Empty files: listing must not open them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(samples, root):
    return [sample.path.relative_to(root).as_posix() for sample in samples]


def facts(samples, root):
    """(path, category, defect, mask) of each sample, relative to the root."""
    return [
        (
            sample.path.relative_to(root).as_posix(),
            sample.category,
            sample.defect,
            sample.mask_path and sample.mask_path.relative_to(root).as_posix(),
        )
        for sample in samples
    ]


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def bottle(tmp_path):
    root = tmp_path / "bottle"
    touch(root, "train/good/000.png", "train/good/010.png", "train/good/2.png", "test/good/000.png")
    touch(root, "test/crack/000.png", "test/crack/001.png", "test/hole/000.png")
    touch(root, "ground_truth/crack/001_mask.png", "ground_truth/crack/000_mask.png", "license.txt")
    return root


# mvtec


def test_mvtec_category(bottle):
    dataset = load_dataset(bottle)
    assert (dataset.layout, dataset.root, dataset.categories) == ("mvtec", bottle, ("bottle",))
    assert names(dataset.train, bottle) == ["train/good/000.png", "train/good/2.png", "train/good/010.png"]
    assert facts(dataset.train, bottle)[0] == ("train/good/000.png", "bottle", "good", None)
    assert facts(dataset.test, bottle) == [
        ("test/crack/000.png", "bottle", "crack", "ground_truth/crack/000_mask.png"),
        ("test/crack/001.png", "bottle", "crack", "ground_truth/crack/001_mask.png"),
        ("test/good/000.png", "bottle", "good", None),
        ("test/hole/000.png", "bottle", "hole", None),
    ]
    assert [sample.is_anomalous for sample in dataset.test] == [True, True, False, True]


def test_root_may_be_a_string_or_relative(bottle, monkeypatch):
    monkeypatch.chdir(bottle)
    for root in (str(bottle), ".", "../bottle", "test/.."):
        assert load_dataset(root).categories == ("bottle",)


def test_several_categories(bottle):
    touch(bottle.parent, "Zipper/train/ok/1.BMP", "Zipper/test/KO/1.bmp", "Zipper/ground_truth/KO/1.png")
    touch(bottle.parent, "cable/train/Normal/1.jpg", "split_csv/1cls.csv", ".git/x.png")
    dataset = load_dataset(bottle.parent)
    assert dataset.categories == ("Zipper", "bottle", "cable")
    assert facts([s for s in dataset.test if s.category == "Zipper"], bottle.parent) == [
        ("Zipper/test/KO/1.bmp", "Zipper", "KO", "Zipper/ground_truth/KO/1.png")
    ]
    only = dataset.only(["cable", "Zipper"])
    assert only.categories == ("Zipper", "cable")
    assert only == load_dataset(bottle.parent, categories=("cable", "Zipper"))
    assert load_dataset(bottle.parent, categories="cable").categories == ("cable",)
    assert (len(dataset.train), len(dataset.test)) == (5, 5)


@pytest.mark.parametrize("chosen", [["cabel"], "cabel", ["bottle", "cabel"]])
def test_unknown_category(bottle, chosen):
    with pytest.raises(DataError, match=r"no category cabel; choose from bottle$") as caught:
        load_dataset(bottle, categories=chosen)
    one_line(caught)
    with pytest.raises(DataError, match="no category chosen"):
        load_dataset(bottle, categories=[])


def test_masks_are_matched_by_stem_never_by_order(tmp_path):
    root = tmp_path / "nut"
    touch(root, "train/good/0.png", *(f"test/bad/{i}.JPG" for i in (1, 2, 3, 10)))
    touch(root, "ground_truth/bad/3.bmp", "ground_truth/bad/10_mask.png", "ground_truth/bad/2.png")
    touch(root, "ground_truth/bad/2_mask.tiff", "ground_truth/bad/9.png", "ground_truth/good/0.png")
    assert [(path, mask) for path, _, _, mask in facts(load_dataset(root).test, root)] == [
        ("test/bad/1.JPG", None),
        ("test/bad/2.JPG", "ground_truth/bad/2_mask.tiff"),
        ("test/bad/3.JPG", "ground_truth/bad/3.bmp"),
        ("test/bad/10.JPG", "ground_truth/bad/10_mask.png"),
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["test/bad/a1.png", "ground_truth/bad/b1.png"],
            r"b1\.png: no mask of bad fits an image; name it a1",
        ),
        (
            ["test/bad/1.png", "ground_truth/bad/1/0.png", "ground_truth/bad/1/1.png"],
            r"bad/1: a folder of masks of one image; merge them into 1_mask\.png",
        ),
        (
            ["test/bad/1.png", "ground_truth/bad/1.bmp", "ground_truth/bad/1.png"],
            r"1\.png: a second mask beside 1\.bmp",
        ),
        (["test/1.png"], r"1\.png: is it normal"),
        (["test/good/0.png", "test/ok/1.png"], "has both good and ok"),
        (["test/bad/img/0.png", "test/bad/label/0.png"], "bad: no images directly in it"),
        (["test/a/0.png", "test/b/0.png", "masks/0.png"], r"0\.png: mask of .* or of .*\?"),
        (["ground_truth/a/0.png", "masks/a/0.png", "test/a/0.png"], "has both ground_truth and masks"),
        (["test/good/0.png", "Test/good/0.png"], "has both Test and test"),
        (["test/good/0.png", "test/scratch/"], "scratch: no images directly in it"),
        (["test/good/", "test/bad/0.png"], "good: no images directly in it"),
        (["test/"], "test: no folders in it"),
    ],
)
def test_the_test_part_never_stops_a_training(tmp_path, files, message):
    root = tmp_path / "nut"
    touch(root, "train/good/0.png")
    for name in files:
        if name.endswith("/"):
            (root / name).mkdir(parents=True)
        else:
            touch(root, name)
    assert names(normal_images(root), root) == ["train/good/0.png"]
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(root).sound_test()
    assert one_line(caught) in check_dataset(root).problems


def test_a_category_without_training_images_stops_those_who_test_it(tmp_path):
    touch(tmp_path, "a/train/good/0.png", "a/test/good/0.png", "b/test/good/0.png", "b/test/bad/0.png")
    dataset = load_dataset(tmp_path)
    assert names(dataset.train, tmp_path) == ["a/train/good/0.png"]
    with pytest.raises(DataError, match=r"b: has test but no train.*--categories"):
        dataset.sound_test()
    assert names(dataset.only("a").sound_test(), tmp_path) == ["a/test/good/0.png"]
    assert check_dataset(tmp_path).counts["b"]["test_defective"] == 1


def test_problems_of_defects_beside_good_images(tmp_path):
    touch(tmp_path, *(f"good/{i}.png" for i in range(9)), "bad/a1.png", "masks/bad/b1.png")
    dataset = load_dataset(tmp_path)
    assert 0 < len(dataset.train) < 9
    with pytest.raises(DataError, match="no mask of bad fits an image"):
        dataset.sound_test()


def test_a_test_folder_that_nobody_may_open(tmp_path, monkeypatch):
    touch(tmp_path, "train/good/0.png", "test/good/0.png")
    real = os.scandir

    def closed(folder):
        if os.fspath(folder) == os.fspath(tmp_path / "test"):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", closed)  # root may open all there is
    assert len(load_dataset(tmp_path).train) == 1
    with pytest.raises(DataError, match="Permission denied; allow reading it"):
        load_dataset(tmp_path).sound_test()


def test_images_where_a_layout_reads_none_are_named(bottle):
    assert not_taken(load_dataset(bottle)) == ()
    touch(
        bottle, "train/good/monday/1.png", "spare/2.png", "ground_truth/crack/9_mask.png", "train/good/x.psd"
    )
    others, images = not_taken(load_dataset(bottle))
    assert others.startswith("1 file was not taken (.psd 1)")
    assert images.startswith(f"3 images were not taken, the first {bottle}/ground_truth/crack/9_mask.png")
    (bottle / "train/good/monday").rename(bottle.parent / "tuesday")
    (bottle / "test/good/000.png").unlink()
    (bottle / "test/good/0.png").symlink_to(bottle / "spare/2.png")
    assert not_taken(load_dataset(bottle))[1].startswith("1 image was not taken")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_categories_are_matched_in_either_form_of_an_accent(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    touch(tmp_path, *(f"{unicodedata.normalize(form, name)}/train/good/0.png" for name in ("Schlüssel", "b")))
    wanted = unicodedata.normalize(other, "Schlüssel")
    assert len(load_dataset(tmp_path, categories=wanted).train) == 1
    assert load_dataset(tmp_path).only([wanted]).categories == ("Schlüssel",)


def test_mvtec_without_test_or_ground_truth(tmp_path):
    touch(tmp_path / "nut", "train/good/0.png")
    dataset = load_dataset(tmp_path / "nut", layout="mvtec")
    assert (len(dataset.train), dataset.test) == (1, ())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["train/good/0.png", "train/scratch/0.png"],
            "scratch: training takes normal images only; move it to",
        ),
        (["train/0.png"], "train: has no folder good"),
        (["train/good/0.txt"], "good: no images directly in it"),
        (["train/good/0.png", "train/1.png"], r"1\.png: is it normal"),
        (["train/good/0.png", "train/ok/0.png"], "has both good and ok"),
    ],
)
def test_mvtec_errors(tmp_path, files, message):
    touch(tmp_path / "nut", *files)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(tmp_path / "nut")
    one_line(caught)


def test_layout_mvtec_on_another_folder(tmp_path):
    touch(tmp_path, "1.png")
    with pytest.raises(DataError, match="no category with train/good"):
        load_dataset(tmp_path, layout="mvtec")


@pytest.mark.parametrize("inside", ["train/good/0.png", "good/0.png"])
def test_categories_that_differ_only_in_case(tmp_path, inside):
    touch(tmp_path, f"Nut/{inside}")
    if (tmp_path / "nut").exists():
        pytest.skip("this file system does not tell the two names apart")
    touch(tmp_path, f"nut/{inside}")
    with pytest.raises(DataError, match="categories Nut and nut differ only in case"):
        load_dataset(tmp_path)


# folder


def test_plain_folder(tmp_path):
    root = tmp_path / "widgets"
    touch(root, "img10.png", "img9.PNG", "notes.txt", "empty/readme.md")
    dataset = load_dataset(root)
    assert dataset.layout == "folder"
    assert facts(dataset.train, root) == [
        ("img9.PNG", "widgets", "good", None),
        ("img10.png", "widgets", "good", None),
    ]
    assert dataset.test == ()


@pytest.mark.parametrize("good", ["good", "OK", "Normal"])
def test_folder_with_normals_only(tmp_path, good):
    root = tmp_path / "widget"
    touch(root, *(f"{good}/{day}/{i}.png" for day in ("mon", "tue") for i in range(3)))
    dataset = load_dataset(root)
    assert (dataset.layout, dataset.categories) == ("folder", ("widget",))
    assert len(dataset.train) == 6
    assert {sample.defect for sample in dataset.train} == {"good"}
    assert dataset.test == ()


def widget(root, count=100, good="good"):
    touch(root, *(f"{good}/{i:03}.png" for i in range(count)), "scratch/7.png", "dent/7.png", "dent/8.png")
    return root


def test_folder_with_defects_holds_out_a_fifth(tmp_path):
    root = widget(tmp_path / "widget", 1000)
    dataset = load_dataset(root)
    held_out = [sample for sample in dataset.test if not sample.is_anomalous]
    assert 150 < len(held_out) < 250
    assert len(dataset.train) + len(held_out) == 1000
    assert not set(dataset.train) & set(dataset.test)
    assert [(s.path.parent.name, s.defect) for s in dataset.test if s.is_anomalous] == [
        ("dent", "dent"),
        ("dent", "dent"),
        ("scratch", "scratch"),
    ]
    assert load_dataset(root) == dataset


def test_split_depends_on_names_only(tmp_path):
    """The split of these very names is frozen: another one would leak between versions and machines."""
    split = load_dataset(widget(tmp_path / "here", 30))
    chosen = [sample.path.name for sample in split.test if not sample.is_anomalous]
    assert chosen == [f"{i:03}.png" for i in (2, 3, 4, 22, 25, 29)]  # by sha256sum of the names
    moved = load_dataset(widget(tmp_path / "elsewhere" / "renamed", 30, good="OK"))
    assert [sample.path.name for sample in moved.test if not sample.is_anomalous] == chosen


@given(st.sets(st.integers(0, 10**6), min_size=2, max_size=40), st.sets(st.integers(0, 10**6), max_size=40))
def test_adding_images_never_moves_a_trained_one_into_the_test_set(before, after):
    good = Path("good")
    first = held_out([good / f"{i}.png" for i in before], good)
    trained = {good / f"{i}.png" for i in before} - first
    later = held_out([good / f"{i}.png" for i in before | after], good)
    assert first
    if len(before) > 5:  # fewer can all fall in the lowest fifth, and one of them has to be trained on
        assert not trained & later


def test_split_is_blind_to_unicode_form():
    good = Path("good")
    composed = [good / f"é{i}.png" for i in range(50)]
    decomposed = [good / f"e\u0301{i}.png" for i in range(50)]
    positions = [{paths.index(path) for path in held_out(paths, good)} for paths in (composed, decomposed)]
    assert positions[0] == positions[1]
    assert len(positions[0]) > 1


def test_names_that_all_fall_in_the_lowest_fifth(tmp_path):
    touch(tmp_path / "widget", "good/002.png", "good/003.png", "scratch/1.png")
    dataset = load_dataset(tmp_path / "widget")
    assert len(dataset.train) == sum(not sample.is_anomalous for sample in dataset.test) == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tiny_sets_keep_an_image_to_train_on(tmp_path, count):
    dataset = load_dataset(widget(tmp_path / "widget", count))
    assert len(dataset.train) >= 1
    assert sum(not sample.is_anomalous for sample in dataset.test) == min(count - 1, 1)


@pytest.mark.parametrize(
    "masks", ["ground_truth/scratch/7_mask.png", "masks/scratch/7.bmp", "Masks/7_mask.png"]
)
def test_folder_masks(tmp_path, masks):
    root = widget(tmp_path / "widget", 5)
    touch(root, masks)
    if "/7_mask" in masks and "scratch" not in masks:
        (root / "dent/7.png").unlink()
    test = {(sample.defect, sample.path.name): sample.mask_path for sample in load_dataset(root).test}
    assert test["scratch", "7.png"] == root / masks
    assert test["dent", "8.png"] is None


def test_folder_of_folder_categories(tmp_path):
    widget(tmp_path / "widget", 5)
    touch(tmp_path, "gadget/ok/1.png", "notes/readme.txt")
    dataset = load_dataset(tmp_path)
    assert dataset.categories == ("gadget", "widget")
    assert {s.defect for s in dataset.test if s.category == "gadget"} == set()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a/0.png", "b/0.png"], "is sub-folder a normal or defective"),
        (["0.png", "bad/0.png"], "is sub-folder bad normal or defective"),
        (["a/good/0.png", "b/0.png"], "is sub-folder b normal or defective"),
        (["good/0.png", "1.png"], r"1\.png: is it normal"),
        (["good/0.txt", "bad/0.png"], "good: no images in it"),
        (["good/0.png", "test/bad/0.png"], "test: a split beside good"),
        (["notes.txt"], "no images; give a folder with"),
        (["good/0.png", "normal/0.png"], "has both good and normal"),
    ],
)
def test_folder_errors(tmp_path, files, message):
    touch(tmp_path / "x", *files)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(tmp_path / "x")
    assert str(tmp_path / "x") in one_line(caught)


# any layout


def test_root_errors(tmp_path):
    touch(tmp_path, "x.png")
    with pytest.raises(DataError, match="no such folder"):
        load_dataset(tmp_path / "missing")
    with pytest.raises(DataError, match="is a file; give a folder"):
        load_dataset(tmp_path / "x.png")
    with pytest.raises(ConfigError, match="'mvtek' is unknown; choose auto, visa, real_iad, bmad"):
        load_dataset(tmp_path, layout="mvtek")


def test_registry_is_frozen():
    assert list(DATASETS) == [
        *("visa", "real_iad", "bmad", "kolektor_sdd", "kolektor_sdd2"),
        *("btad", "mpdd", "mvtec", "manifest", "meta", "folder"),
    ]
    assert ALIASES == {"mvtec_ad": "mvtec"}


def test_nothing_is_written(bottle):
    widget(bottle.parent / "other" / "widget", 5)
    before = sorted((path, path.stat().st_mtime_ns) for path in bottle.parent.rglob("*"))
    load_dataset(bottle)
    load_dataset(bottle.parent / "other")
    normal_images(bottle)
    assert sorted((path, path.stat().st_mtime_ns) for path in bottle.parent.rglob("*")) == before


def test_normal_images(bottle):
    assert normal_images(bottle) == load_dataset(bottle).train
    assert normal_images(bottle / "train/good") == load_dataset(bottle).train
    (one,) = normal_images(bottle / "test/good/000.png")
    assert facts([one], bottle) == [("test/good/000.png", "bottle", "good", None)]
    root = widget(bottle.parent / "widget", 20)
    assert normal_images(root) == load_dataset(root).train
    assert {sample.category for sample in normal_images(root / "good")} == {"widget"}
    touch(bottle, "notes.txt")
    with pytest.raises(DataError, match="not an image file"):
        normal_images(bottle / "notes.txt")
    with pytest.raises(DataError, match="no such folder"):
        normal_images(bottle / "missing.png")


def test_listed_files_can_be_read(tmp_path):
    """The whole way with real files: list, read image and mask, sizes agree."""
    root = tmp_path / "nut"
    for name in ("train/good/0.png", "test/bad/0.png", "ground_truth/bad/0_mask.png"):
        (root / name).parent.mkdir(parents=True)
        Image.fromarray(np.eye(6, 9, dtype=np.uint8)).save(root / name)
    (sample,) = load_dataset(root).test
    pixels = read_image(sample.path)
    assert read_mask(sample.mask_path, size_hw=pixels.shape[:2]).sum() == 6


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the real image sets are not on this machine")
def test_real_sets():
    names = ("aws_cookie", "brain_mri", "elpv_mono", "kolektor_sdd", "magnetic_tile")
    dataset = load_dataset(SHARED / "data", categories=names)
    assert dataset.categories == names
    counts = {
        name: (
            len(part.train),
            sum(not s.is_anomalous for s in part.test),
            sum(s.is_anomalous for s in part.test),
        )
        for name, part in ((name, dataset.only([name])) for name in dataset.categories)
    }
    assert counts == {
        "aws_cookie": (31, 14, 32),
        "brain_mri": (59, 28, 60),
        "elpv_mono": (200, 80, 80),
        "kolektor_sdd": (150, 60, 50),
        "magnetic_tile": (240, 90, 150),
    }
    masked = {sample.category for sample in dataset.test if sample.mask_path}
    assert masked == {"aws_cookie", "kolektor_sdd", "magnetic_tile"}
    for sample in [s for s in dataset.test if s.mask_path][::40]:
        mask = read_mask(sample.mask_path, size_hw=read_image(sample.path).shape[:2])
        assert 0 < mask.mean() < 0.9


def test_a_mask_that_was_drawn_before_the_image_was_turned_is_noted(tmp_path):
    for i, part in enumerate(("train/good", "test/cut")):
        (tmp_path / part).mkdir(parents=True)
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        exif = Image.Exif()
        exif[274] = 3
        Image.fromarray(pixels).save(tmp_path / part / "0.jpg", exif=exif)
    levels = np.zeros((8, 8), np.uint8)
    levels[:2, :3] = 255
    mask = tmp_path / "ground_truth" / "cut" / "0_mask.png"
    mask.parent.mkdir(parents=True)
    Image.fromarray(levels).save(mask)
    (note,) = [line for line in check_dataset(tmp_path).notes if "EXIF" in line]
    assert note.startswith("1 image is turned upright by EXIF and the mask is not, the first")
    Image.fromarray(levels).save(mask, exif=exif)
    assert not [line for line in check_dataset(tmp_path).notes if "EXIF" in line]
