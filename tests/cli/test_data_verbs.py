"""invad data check, list, verify, convert; and the other verbs on layouts other than folders of MVTec AD."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import miniatures
from invad.data.check import check_dataset
from invad.data.datasets import load_dataset
from invad.data.known import KNOWN, Count, verify


@pytest.fixture
def bottle(tmp_path):
    """A miniature to spoil."""
    return miniatures.write("mvtec", tmp_path) / "bottle"


@pytest.mark.parametrize("name", sorted(set(miniatures.MINIATURES) - {"manifest_parquet"}))
def test_nothing_is_wrong_with_the_miniatures(name, tmp_path):
    found = check_dataset(miniatures.write(name, tmp_path))
    assert found.problems == ()


def test_check_says_what_it_found(bottle, run, tmp_path):
    result = run("data", "check", bottle.parent, "--json", tmp_path / "found.json")
    assert result.exit_code == 0
    assert "layout mvtec, 2 categories" in result.stdout
    assert "bottle  3      2          4               4" in result.stdout
    assert "Nothing is wrong." in result.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["layout"], found["problems"]) == ("mvtec", [])
    row = {"train": 3, "test_good": 2, "test_defective": 2, "masks": 2, "left_out": 0}
    assert found["counts"]["carpet"] == row


def spoil(path, values):
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def three_levels(bottle):
    levels = np.zeros((12, 10))
    levels[2:4], levels[5:7] = 100, 255
    spoil(bottle / "ground_truth/contamination/001_mask.png", levels)


def truncated(bottle):
    path = bottle / "train/good/001.png"
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            three_levels,
            "001_mask.png: has 3 levels (0, 100, 255), not two; those above 0 are taken as defective",
        ),
        (truncated, "001.png: cannot be decoded"),
        (
            lambda b: spoil(b / "ground_truth/contamination/000_mask.png", np.full((10, 12), 255)),
            "mask is 12 x 10 pixels, its image 10 x 12",
        ),
        (
            lambda b: spoil(b / "ground_truth/contamination/000_mask.png", np.zeros((12, 10))),
            "no defect is marked",
        ),
        (lambda b: (b / "ground_truth/contamination/000_mask.png").unlink(), "contamination without a mask"),
        (
            lambda b: shutil.copy(b / "train/good/002.png", b / "test/good/copy.png"),
            "copy.png: has the pixels of",
        ),
        (
            # Equal pixels in another format: the bytes of the files differ.
            lambda b: Image.open(b / "train/good/002.png").save(b / "test/good/dup.bmp"),
            "002.png, which is trained on",
        ),
    ],
)
def test_check_finds_damage(damage, words, bottle, run):
    damage(bottle)
    result = run("data", "check", bottle)
    assert result.exit_code == 1
    lines = [line for line in result.stdout.splitlines() if line.startswith("problem: ")]
    assert [line for line in lines if words in line], result.stdout
    assert "Traceback" not in result.stderr


def test_check_names_every_absent_file(run, tmp_path):
    root = miniatures.write("visa", tmp_path)
    shutil.rmtree(root / "pcb1")
    result = run("data", "check", root, "--json", "-")
    assert result.exit_code == 1
    problems = json.loads(result.stdout)["problems"]
    assert len(problems) == 8
    assert all("no such file" in problem for problem in problems)


def test_mixed_sizes_are_noted_and_no_problem(bottle, run):
    spoil(bottle / "train/good/009.png", np.eye(20, 30) * 255)
    result = run("data", "check", bottle)
    assert result.exit_code == 0
    assert "note: bottle: 2 image sizes (width x height): 10 x 12 (9), 30 x 20 (1)" in result.stdout


def test_sheet(bottle, run, tmp_path):
    truncated(bottle)
    for name in ("sheet.png", "sheet.html"):
        assert run("data", "check", bottle.parent, "--sheet", tmp_path / name).exit_code == 1
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert picture.shape == (8 + 2 * (120 + 32 + 16), 8 + 8 * 128, 3)
    assert ((picture == (235, 20, 140)).all(axis=-1)).sum() > 4 * 30  # outlines of masks
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("<figure>") == 14
    assert "train: unreadable" in page


def test_sheet_into_a_missing_folder(bottle, run):
    result = run("data", "check", bottle, "--sheet", "/no/such/folder/sheet.png")
    assert result.exit_code == 2
    assert "no folder" in result.stderr


def test_list(run):
    result = run("data", "list", "--json", "-")
    sets = json.loads(result.stdout)["datasets"]
    assert set(sets) == set(KNOWN)
    assert all(row["licence"] and row["source"].startswith("https://") for row in sets.values())
    said = run("data", "list").stdout
    assert "visa: VisA, 12 categories, 8,659 training and 2,162 test images (1,200 defective)" in said


def test_published_totals():
    """Sums of the tables beside the totals of the publications."""
    totals = {name: (k.total.train, k.total.test, k.total.defective) for name, k in KNOWN.items()}
    assert totals["mvtec"] == (3629, 1725, 1258)
    assert totals["visa"] == (8659, 962 + 1200, 1200)
    assert totals["mpdd"] == (888, 458, 282)
    assert totals["btad"] == (1799, 741, 290)
    assert sum(totals["real_iad"][:2]) == 151_050
    assert totals["bmad"] == (
        7500 + 1542 + 4297 + 26315 + 8000 + 5088,
        3715 + 1493 + 1805 + 968 + 17194 + 1997,
        None,
    )
    assert [len(k.categories) for k in KNOWN.values()] == [15, 12, 6, 3, 30, 6, 1, 1]


def test_verify_says_what_differs(run, one_line, bottle):
    result = run("data", "verify", "mvtec", bottle.parent)
    assert result.exit_code == 1
    assert "category cable is missing" in result.stdout
    assert "bottle: 3 training images, published are 209" in result.stdout
    unknown = run("data", "verify", "mvtek", bottle.parent)
    assert unknown.exit_code == 2
    one_line(unknown, "data set 'mvtek' is unknown; choose one of mvtec")


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("kolektor_sdd", Count(train=13, test=2, defective=2)),
        ("kolektor_sdd2", Count(train=3, test=4, defective=2)),
    ],
)
def test_verify_of_a_complete_set(name, total, tmp_path, monkeypatch):
    """With the numbers of the miniature for the published ones."""
    from dataclasses import replace

    dataset = load_dataset(miniatures.write(name, tmp_path))
    assert verify(name, dataset)
    monkeypatch.setitem(KNOWN, name, replace(KNOWN[name], total=total))
    assert verify(name, dataset) == []


def test_convert(bottle, run, tmp_path, one_line):
    before = sorted(bottle.parent.rglob("*"))
    for name in ("list.csv", "list.json"):
        result = run("data", "convert", bottle.parent, "--output", tmp_path / name)
        assert result.exit_code == 0
        assert "16 images of layout mvtec" in result.stdout
        assert load_dataset(tmp_path / name).test == load_dataset(bottle.parent).test
    table = tmp_path / "list.csv"
    table.write_text(table.read_text().replace(",test,good,", ",val,good,", 1))
    result = run("data", "convert", table, "--output", tmp_path / "shorter.csv")
    assert "15 images of layout manifest" in result.stdout
    assert "1 row is of the split val and not taken" in result.stderr
    assert sorted(bottle.parent.rglob("*")) == before
    one_line(run("data", "convert", bottle / "absent", "--output", tmp_path / "x.csv"), "no such folder")
    assert not (tmp_path / "x.csv").exists()


def test_check_needs_no_torch(bottle):
    code = (
        "import sys\nfrom invad.cli.app import app\n"
        f"app(['data', 'check', {str(bottle)!r}, '--sheet', {str(bottle.parent / 's.png')!r}], "
        "standalone_mode=False)\nprint({'torch', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_other_verbs_take_any_layout(parts, model, own_model, run, tmp_path, one_line):
    """Evaluate and calibrate on a list of the same images; every verb refuses a layout that does not fit."""
    listed = tmp_path / "parts.csv"
    assert run("data", "convert", parts, "--output", listed).exit_code == 0
    tested = json.loads(run("evaluate", model, listed, "--layout", "manifest", "--json", "-").stdout)
    assert (tested["n_normal"], tested["n_anomalous"]) == (4, 5)
    assert tested["pixel_auroc"] is not None
    # It reads them: they are those that it was trained on.
    one_line(run("calibrate", own_model, listed, "--layout", "manifest"), "trained on", "at least 2 others")
    for verb in (
        ["train", listed, "--output", tmp_path / "new"],
        ["evaluate", model, listed],
        ["calibrate", own_model, listed],
        ["demo", "--data", listed, "--output", tmp_path / "new"],
    ):
        one_line(run(*verb, "--layout", "visa"), "is a list, no folder of layout visa")
    one_line(run("train", parts, "--output", tmp_path / "new", "--split", "dev"), "has no split 'dev'")
    assert not (tmp_path / "new").exists()


def test_a_sheet_that_cannot_be_written_costs_no_findings(run, parts, tmp_path, one_line):
    (tmp_path / "full").symlink_to("/dev/full")
    result = run("data", "check", parts, "--sheet", tmp_path / "full", "--json", tmp_path / "c.json")
    assert result.exit_code == 1
    one_line(result, "full", "No space left on device")
    told = json.loads((tmp_path / "c.json").read_text())
    assert (told["problems"], told["sheet"]) == ([], None)


def test_what_is_wrong_with_the_test_part_stops_only_those_who_test(
    own_parts, model, own_model, run, one_line, tmp_path
):
    (own_parts / "gasket/test/scratch").mkdir()
    shutil.copy(own_parts / "gasket/test/good/000.png", own_parts / "gasket/test/stray.png")
    new = tmp_path / "new"
    trained = run("train", own_parts, "--output", new, "--preset", "none such")  # ends after the reading
    one_line(trained, "none such")
    assert "the test part, which training does not read, has 2 problems, the first: " in trained.stderr
    one_line(run("calibrate", own_model, own_parts), "trained on", "at least 2 others")
    for verb in (
        ["evaluate", model, own_parts],
        ["benchmark", "run", "auto", own_parts, "--output", new],
        ["data", "convert", own_parts, "--output", tmp_path / "list.csv"],
        ["demo", "--data", own_parts, "--output", new],
        ["paper", "ablate", "steps", own_parts, "--output", new],
    ):
        one_line(run(*verb), "stray.png: is it normal?", "'invad data check' lists 1 more")
    assert not new.exists()
    problems = json.loads(run("data", "check", own_parts, "--json", "-").stdout)["problems"]
    assert [p for p in problems if "stray.png: is it normal" in p]
    assert [p for p in problems if "scratch: no images directly in it" in p]


def test_training_images_that_are_not_taken_are_named(own_parts, own_model, run):
    (own_parts / "gasket/train/good/monday").mkdir()
    for name in ("train/good/monday/1.png", "train/good/2.psd"):
        shutil.copy(own_parts / "gasket/test/good/000.png", own_parts / "gasket" / name)
    said = [
        run("train", own_parts, "--output", own_parts / "m", "--preset", "none such").stderr,
        run("calibrate", own_model, own_parts).stderr,
        run("data", "check", own_parts).stdout,
    ]
    for text in said:
        assert "1 image was not taken, the first" in text
        assert "monday/1.png: layout mvtec reads none there" in text
        assert "1 file was not taken (.psd 1)" in text


def test_formats_that_are_mixed_are_noted(bottle, run):
    Image.open(bottle / "train/good/000.png").save(bottle / "train/good/000.jfif", "JPEG")
    (bottle / "train/good/000.png").unlink()
    assert "note: bottle: images of 2 kinds: .jfif 1, .png 8" in run("data", "check", bottle).stdout
