"""Every layout in miniature: what is found, by which name, and what is said of spoilt sets."""

import json
import shutil
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import miniatures
from invad.data.check import check_dataset
from invad.data.datasets import DATASETS, load_dataset, normal_images, not_taken
from invad.data.images import read_image
from invad.data.layouts.manifest import write_manifest
from invad.data.layouts.meta import write_meta
from invad.data.masks import read_mask
from invad.errors import ConfigError, DataError

FOUND = {  # miniature -> layout, category -> (train, good, defective, masks)
    "mvtec": ("mvtec", {"bottle": (3, 2, 4, 4), "carpet": (3, 2, 2, 2)}),
    "mpdd": ("mpdd", {"bracket_black": (3, 2, 4, 4), "tubes": (3, 2, 2, 2)}),
    "btad": ("btad", {"01": (3, 2, 2, 2), "02": (3, 2, 2, 2), "03": (4, 2, 2, 2)}),
    "visa": ("visa", {"candle": (3, 2, 3, 3), "pcb1": (3, 2, 3, 3)}),
    "visa_pytorch": ("visa", {"candle": (3, 2, 2, 2), "pcb1": (3, 2, 2, 2)}),
    "visa_pytorch_splits": ("visa", {"candle": (3, 2, 2, 2), "pcb1": (3, 2, 2, 2)}),
    "real_iad": ("real_iad", {"audiojack": (10, 6, 4, 4), "toy_brick": (10, 6, 4, 4)}),
    "real_iad_beside": ("real_iad", {"audiojack": (10, 6, 4, 4), "toy_brick": (10, 6, 4, 4)}),
    "bmad": (
        "bmad",
        {
            **dict.fromkeys(("brain", "liver", "resc"), (3, 2, 2, 2)),
            **dict.fromkeys(("oct2017", "chest", "camelyon16"), (3, 2, 2, 0)),
        },
    ),
    "kolektor_sdd": ("kolektor_sdd", {"kolektor_sdd": (7, 6, 2, 2)}),
    "kolektor_sdd2": ("kolektor_sdd2", {"kolektor_sdd2": (3, 2, 2, 2)}),
    "folder": ("folder", {"folder": (5, 3, 2, 2)}),
    "manifest_csv": ("manifest", {"gear": (3, 2, 2, 2)}),
    "manifest_parquet": ("manifest", {"gear": (3, 2, 2, 2)}),
    "meta": ("meta", {"nut": (2, 1, 1, 1), "bolt": (2, 1, 1, 1)}),
}
FOUND["bmad_original"] = FOUND["bmad"]


@pytest.fixture(scope="module")
def minis(tmp_path_factory):
    """minis(name): a miniature. Not to be written to."""
    base = tmp_path_factory.mktemp("minis")

    def get(name):
        if name == "manifest_parquet":
            pytest.importorskip("pyarrow")
        root = base / name
        return root if root.exists() else miniatures.write(name, base)

    return get


@pytest.fixture
def own(minis, tmp_path):
    """own(name): a copy to spoil."""
    return lambda name: Path(shutil.copytree(minis(name), tmp_path / name))


def numbers(dataset):
    def row(category):
        part = dataset.only(category)
        bad = sum(s.is_anomalous for s in part.test)
        return len(part.train), len(part.test) - bad, bad, sum(s.mask_path is not None for s in part.test)

    return {category: row(category) for category in dataset.categories}


def tree(root):
    return sorted((path, path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*"))


def message(root, error=DataError, **options):
    with pytest.raises(error) as caught:
        load_dataset(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_miniature_has_its_numbers():
    assert set(FOUND) == set(miniatures.MINIATURES)
    assert {layout for layout, _ in FOUND.values()} == set(DATASETS)


@pytest.mark.parametrize("name", FOUND)
def test_layout_is_recognised_and_read_without_writing(name, minis):
    root = minis(name)
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    before = tree(root)
    for path in folders:
        path.chmod(0o555)
    try:
        start = time.perf_counter()
        dataset = load_dataset(root)
        seconds = time.perf_counter() - start
    finally:
        for path in folders:
            path.chmod(0o755)
    assert (dataset.layout, numbers(dataset)) == FOUND[name]
    assert tree(root) == before
    assert seconds < (5 if name == "manifest_parquet" else 1)  # pyarrow may be imported for the first time
    assert all(not s.is_anomalous for s in dataset.train)
    assert load_dataset(root, layout=dataset.layout) == dataset
    assert not_taken(dataset) == dataset.notes
    if root.is_dir():
        assert normal_images(root) == dataset.train


@pytest.mark.parametrize("name", FOUND)
def test_every_mask_marks_the_twelve_pixels_drawn(name, minis):
    dataset = load_dataset(minis(name))
    for sample in dataset.test:
        size_hw = read_image(sample.path).shape[:2]
        if sample.mask_path is not None:
            assert sample.is_anomalous
            assert read_mask(sample.mask_path, size_hw=size_hw, above=sample.mask_above).sum() == 12


def test_masks_are_split_by_the_rule_of_the_layout(minis):
    """Small whole numbers of VisA count from 1, averaged edges of Real-IAD from 128."""
    visa = [s for s in load_dataset(minis("visa")).test if s.mask_path]
    assert {s.mask_above for s in visa} == {0}
    assert {int(read_image(s.mask_path).max()) for s in visa} == {1, 2}
    real = [s for s in load_dataset(minis("real_iad")).test if s.mask_path]
    assert {s.mask_above for s in real} == {127}
    assert read_mask(real[0].mask_path).sum() > 12  # without the rule, few levels look like labels


def test_splits_of_visa(minis):
    few = load_dataset(minis("visa"), split="2cls_fewshot")
    assert numbers(few)["candle"] == (2, 3, 2, 2)
    assert len(few.left_out) == 2
    assert {s.is_anomalous for s in few.left_out} == {True}
    assert numbers(load_dataset(minis("visa"), split="2cls_highshot"))["pcb1"] == (2, 3, 1, 1)
    prepared = load_dataset(minis("visa_pytorch_splits"), split="2cls_fewshot")
    assert [s.path.name for s in prepared.left_out] == ["900.JPG", "900.JPG"]
    assert "no folder 2cls_highshot" in message(minis("visa_pytorch_splits"), split="2cls_highshot")


def test_views_of_an_object_share_an_id(minis):
    dataset = load_dataset(minis("real_iad"), categories="audiojack")
    objects = {}
    for sample in (*dataset.train, *dataset.test):
        objects.setdefault(sample.sample_id, []).append(sample)
    assert {name: len(views) for name, views in objects.items()} == {
        "audiojack/OK/S0001": 5,
        "audiojack/OK/S0002": 5,
        "audiojack/OK/S0003": 5,
        "audiojack/NG/HS/S0001": 5,
    }
    assert [s.is_anomalous for s in objects["audiojack/NG/HS/S0001"]] == [True] * 4 + [False]


def test_splits_and_roots_of_real_iad(minis):
    root = minis("real_iad")
    assert numbers(load_dataset(root, split="realiad_jsons_sv"))["toy_brick"] == (2, 1, 1, 1)
    noisy = load_dataset(root, split="realiad_jsons_fuiad_0.1", categories="toy_brick")
    assert len(noisy.train) == 15  # defects in the training list are part of that split
    assert load_dataset(root / "realiad_256").train == load_dataset(root).train
    assert "no lists of split" in message(root, split="realiad_jsons_fuiad_0.4")


def test_several_resolutions_are_a_question(own):
    root = own("real_iad")
    shutil.copytree(root / "realiad_256", root / "realiad_512")
    assert "holds realiad_256, realiad_512; give one of them" in message(root)
    assert len(load_dataset(root / "realiad_512").train) == 20


@pytest.mark.parametrize("name", ["bmad", "bmad_original"])
def test_validation_part_of_bmad_is_for_reporting_only(name, minis):
    test, valid = load_dataset(minis(name)), load_dataset(minis(name), split="valid")
    assert valid.train == test.train
    assert {row[1:3] for row in numbers(valid).values()} == {(1, 1)}
    assert not set(valid.test) & {*test.test, *test.train}
    assert not any("val" in part.lower() for s in test.train for part in s.path.parts[-5:])


def test_one_set_of_bmad(minis):
    assert numbers(load_dataset(minis("bmad_original") / "RESC")) == {"resc": (3, 2, 2, 2)}


def test_stray_files_of_kolektor_sdd2_are_not_read(minis):
    dataset = load_dataset(minis("kolektor_sdd2"))
    assert [s.path.name for s in dataset.train] == ["10000.png", "10001.png", "10002.png"]
    assert [s.path.name for s in dataset.left_out] == ["10003.png"]


def test_items_of_kolektor_sdd_are_not_torn_apart(minis):
    dataset = load_dataset(minis("kolektor_sdd"))
    trained = {s.path.parent for s in dataset.train}
    assert not trained & {s.path.parent for s in dataset.test if not s.is_anomalous}


def test_other_splits_of_a_table(minis):
    dataset = load_dataset(minis("manifest_csv"), split="val")
    assert [s.path.name for s in dataset.test] == ["3.png"]
    assert "4 rows are of the split test and not taken" in dataset.notes[0]
    (note,) = not_taken(load_dataset(minis("manifest_csv")))
    assert "1 row is of the split val and not taken" in note
    assert "choose from test, train, val" in message(minis("manifest_csv"), ConfigError, split="dev")
    views = [s.sample_id for s in load_dataset(minis("manifest_csv") / "manifest.csv").test]
    assert views == ["object2", "object2", "object3", "object3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image_path,mask_pth\na.png,\n", "column 'mask_pth' is unknown; is mask_path meant"),
        ("file,label\na.png,good\n", "no column image_path; its columns are file, label"),
        ("image_path,label\n,good\n", "line 2 has no image_path"),
        ("image_path,mask_above\na.png,half\n", "line 2 has mask_above 'half'"),
        ("image_path,label_index\na.png,-1\n", "line 2 has label_index '-1'; give 0"),
        ("image_path,label,label_index\na.png,good,1\n", "line 2 has label 'good' and label_index 1"),
        ("image_path,split\na.png,train\nb.png,\nc.png,test\n", "line 3 has no split"),
        ("image_path,split\na.png,training\nb.png,testing\n", "no row is of the split train or test"),
        ("image_path\nabsent.png\n", "1 files that its list names do not exist, the first"),
        ("", "no column image_path"),
        ("image_path\n", "no images"),
        ("image_path,label\n\xe9.png,good\n", "cannot be read as a table"),
    ],
)
def test_bad_tables(text, words, tmp_path):
    (tmp_path / "list.csv").write_bytes(text.encode("latin-1"))
    assert words in message(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("label_index", "0.0", "1.0"),
        ("label_index", "False", "True"),
        ("label", "0.0", "1.0"),
        ("label", "false", "x"),
    ],
)
def test_truths_and_decimals_say_which_images_are_good(column, good, bad, tmp_path):
    miniatures.images(tmp_path / "a", 3)
    rows = [["a/000.png", "train", good], ["a/001.png", "test", good], ["a/002.png", "test", bad]]
    miniatures.write_csv(tmp_path / "t.csv", ["image_path", "split", column], rows)
    dataset = load_dataset(tmp_path / "t.csv")
    assert len(dataset.train) == 1
    assert [s.defect for s in dataset.test] == ["good", "x" if bad == "x" else "defect"]


def test_a_mask_of_a_good_image_is_to_mark_nothing(tmp_path):
    miniatures.images(tmp_path / "a", 3)
    miniatures.mask(tmp_path / "empty.png", empty=True)
    miniatures.mask(tmp_path / "drawn.png")
    rows = [["a/000.png", "empty.png"], ["a/001.png", "drawn.png"], ["a/002.png", ""]]
    miniatures.write_csv(tmp_path / "t.csv", ["image_path", "mask_path"], rows)
    found = check_dataset(tmp_path / "t.csv")
    (problem,) = found.problems
    assert "drawn.png: marks 10.0%" in problem
    assert "001.png, which is said to be good" in problem
    assert [own["masks"] for own in found.counts.values()] == [0]


def test_table_without_a_split_holds_good_images_out(tmp_path):
    miniatures.images(tmp_path / "a", 12)
    rows = [[f"a/{i:03}.png", "0" if i < 10 else "1"] for i in range(12)]
    miniatures.write_csv(tmp_path / "t.csv", ["image_path", "label_index"], rows)
    (category,) = numbers(load_dataset(tmp_path / "t.csv")).values()
    assert category[0] + category[1] == 10
    assert category[1] >= 1
    assert category[2] == 2


@pytest.mark.parametrize("name", ["mvtec", "real_iad", "visa", "kolektor_sdd2", "manifest_csv"])
@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_written_lists_read_back_as_the_same_set(name, ending, minis, tmp_path):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    dataset = load_dataset(minis(name))
    path = tmp_path / f"list.{ending}"
    (write_meta if ending == "json" else write_manifest)(dataset, path)
    again = load_dataset(path)
    for part in ("train", "test", "left_out"):
        assert sorted(getattr(again, part), key=repr) == sorted(getattr(dataset, part), key=repr)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_lists_in_the_folder_of_the_images_hold_relative_paths(own):
    root = own("mvtec")
    write_meta(load_dataset(root), root / "meta.json")
    text = (root / "meta.json").read_text()
    assert '"img_path": "bottle/train/good/000.png"' in text
    assert str(root) not in text
    assert load_dataset(root).layout == "mvtec"  # the folders themselves come first
    assert numbers(load_dataset(root, layout="meta")) == numbers(load_dataset(root))


def test_a_missing_category_is_named_and_can_be_left_away(own):
    root = own("visa")
    shutil.rmtree(root / "pcb1")
    assert "files that its list names do not exist (in pcb1)" in message(root)
    assert load_dataset(root, categories="candle").categories == ("candle",)


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("visa", "split_csv/1cls.csv", "has no column split, label, image, mask"),
        ("real_iad", "realiad_jsons/realiad_jsons/toy_brick.json", "is no list of Real-IAD"),
        ("meta", "meta.json", "is no list with train and test"),
    ],
)
def test_damaged_lists(name, spoil, words, own):
    root = own(name)
    (root / spoil).write_text("object\n")
    assert words in message(root)


@pytest.mark.parametrize(
    ("name", "gone", "words"),
    [
        ("visa", "candle/Data/Images/Normal/0001.JPG", "1 files that its list names do not exist"),
        ("meta", "pictures/nut_0.png", "nut_0.png"),
        ("kolektor_sdd", "kos01/Part0_label.bmp", "has no label image"),
    ],
)
def test_lists_that_name_absent_training_images(name, gone, words, own):
    root = own(name)
    (root / gone).unlink()
    assert words in message(root)


@pytest.mark.parametrize(
    ("name", "gone", "words"),
    [
        ("visa", "candle/Data/Masks/Anomaly/001.png", "1 files that its list names do not exist"),
        ("real_iad", "realiad_256/toy_brick/NG", "files that its list names do not exist"),
        ("meta", "pictures/nut_3.png", "nut_3.png"),
        ("manifest_csv", "drawn/6.png", "drawn/6.png"),
        ("kolektor_sdd", "kos02/Part1_label.bmp", "has no label image"),
        ("kolektor_sdd2", "test/20000_GT.png", "has no label image"),
        ("kolektor_sdd2", "test", "has no folder test"),
    ],
)
def test_absent_files_of_the_test_part_stop_those_who_test(name, gone, words, own):
    root = own(name)
    train = load_dataset(root).train
    path = root / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert normal_images(root) == train
    with pytest.raises(DataError) as caught:
        load_dataset(root).sound_test()
    assert words in str(caught.value)
    assert check_dataset(root).problems


@pytest.mark.parametrize(
    ("name", "path", "before", "after", "words"),
    [
        ("visa", "split_csv/1cls.csv", "test,anomaly", "test,odd", "has split 'test' and label 'odd'"),
        ("manifest_csv", "manifest.csv", "", ",test,cut,,,\n", "line 10 has no image_path"),
        ("meta", "meta.json", '"anomaly": 1', '"other": 1', "is no list with train and test"),
        ("meta", "meta.json", '"anomaly": 1', '"anomaly": "1"', "anomaly is '1', not 0 or 1"),
        (
            "real_iad",
            "realiad_jsons/realiad_jsons/toy_brick.json",
            '"test"',
            '"tests"',
            "is no list of Real-IAD",
        ),
        ("bmad", "RESC/test/stray.png", None, None, "is below no folder of"),
    ],
)
def test_damaged_rows_of_the_test_part_stop_those_who_test(name, path, before, after, words, own):
    root = own(name)
    train = load_dataset(root).train
    if before is None:
        miniatures.image(next(root.rglob("test")) / "stray.png")
    else:
        text = (root / path).read_text()
        (root / path).write_text(text.replace(before, after) if before else text + after)
    assert load_dataset(root).train == train
    with pytest.raises(DataError) as caught:
        load_dataset(root).sound_test()
    assert words in str(caught.value)


def test_a_layout_or_split_that_does_not_fit(minis, tmp_path):
    assert "layout mvtec has no split '1cls'; it has only one" in message(
        minis("mvtec"), ConfigError, split="1cls"
    )
    assert "choose 1cls, 2cls_fewshot" in message(minis("visa"), ConfigError, split="3cls")
    assert load_dataset(minis("mvtec"), layout="mvtec_ad").layout == "mvtec"
    for layout in ("manifest", "meta", "bmad", "kolektor_sdd", "kolektor_sdd2", "real_iad"):
        assert message(minis("mvtec") / "bottle/test", layout=layout)
    assert "is a list, no folder of layout visa" in message(minis("meta") / "meta.json", layout="visa")


def test_ten_thousand_rows_in_two_seconds(tmp_path):
    """A tenth of the number that the benchmark measures, with room for a busy machine."""
    names = [f"d{i % 20}/{i}.png" for i in range(10_000)]
    for i in range(20):
        (tmp_path / f"d{i}").mkdir()
    for name in names:
        (tmp_path / name).touch()
    rows = [[name, "train" if i % 5 else "test"] for i, name in enumerate(names)]
    miniatures.write_csv(tmp_path / "t.csv", ["image_path", "split"], rows)
    start = time.process_time()
    dataset = load_dataset(tmp_path / "t.csv")
    assert time.process_time() - start < 2
    assert len(dataset.train) + len(dataset.test) == 10_000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["visa", "manifest_csv"])
def test_lists_as_spreadsheets_save_them(name, mark, encoding, own):
    root = own(name)
    before = load_dataset(root)
    path = root / ("split_csv/1cls.csv" if name == "visa" else "manifest.csv")
    path.write_text(path.read_text().replace(",", mark).replace("/", "\\"), encoding)
    after = load_dataset(root)
    assert (after.train, after.test) == (before.train, before.test)
    assert after.problems == ()


def test_a_name_with_the_separator_is_never_cut(tmp_path):
    (tmp_path / "t.csv").write_text("image_path,label\na,1.png,good\n")
    assert "line 2 has more cells than there are columns" in message(tmp_path / "t.csv")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("ending", ["csv", "json"])
def test_lists_and_the_disk_may_write_an_accent_in_two_ways(form, ending, tmp_path):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    names = [unicodedata.normalize(form, f"Maß/é{i}.png") for i in range(2)]
    for name in names:
        miniatures.image(tmp_path / name)
    listed = [unicodedata.normalize(other, name) for name in names]
    if ending == "csv":
        (tmp_path / "l.csv").write_text("\n".join(["image_path", *listed]), "utf-8")
    else:
        rows = [{"img_path": name, "anomaly": 0} for name in listed]
        (tmp_path / "l.json").write_text(json.dumps({"train": {"é": rows}}))
    assert [s.path for s in load_dataset(tmp_path / f"l.{ending}").train] == [tmp_path / n for n in names]


def test_pixels_differ_between_files(minis):
    """The generator must not make duplicates that `data check` would find."""
    pixels = {np.asarray(Image.open(s.path)).tobytes() for s in load_dataset(minis("mvtec")).train}
    assert len(pixels) == 6


@pytest.mark.parametrize(
    "text",
    [
        "image_path;label\na\\000.png;good\n",
        "sep=;\nimage_path;label\na\\000.png;0\n",
        "image_path\tlabel\na/000.png\tgood\n",
    ],
)
def test_tables_of_excel_and_windows(text, tmp_path):
    miniatures.images(tmp_path / "a", 1)
    (tmp_path / "t.csv").write_text(text, encoding="utf-8-sig")
    assert [s.path for s in load_dataset(tmp_path / "t.csv").train] == [tmp_path / "a/000.png"]
