"""The table of defects from the command line: what it holds is what the library measures."""

import csv
import json

import pytest

from invad.detector.detector import Detector
from invad.scoring.scale import Scale


@pytest.fixture
def images(own_parts):
    """A good one, one that is cut off, and one with a defect."""
    test = own_parts / "gasket" / "test"
    good, broken = sorted((test / "good").iterdir())[:2]
    broken.write_bytes(broken.read_bytes()[:300])
    return good, broken, next((test / "cut").iterdir())


def expected(model, image, scale=None):
    detector = Detector.load(model)
    return detector.defects(detector.predict(image), scale)


def test_a_row_for_each_defect_and_one_for_an_image_without(run, model, images, tmp_path):
    path = tmp_path / "d.csv"
    done = run("predict", model, *images, "--defects", path, "--scale", "0.05mm")
    assert done.exit_code == 0, done.stderr
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    scale = Scale.parse("0.05mm")
    for image in (images[0], images[2]):
        own = [row for row in rows if row["path"] == str(image)]
        found = expected(model, image, scale)
        assert {row["defects"] for row in own} == {str(len(found))}
        assert len(own) == max(1, len(found))
        for row, one in zip(own, found, strict=False):
            assert float(row["length_mm"]) == one.length_mm == pytest.approx(one.length_px * 0.05)
            assert (float(row["area_mm2"]), int(row["x"])) == (one.area_mm2, one.x)
            assert float(row["length_uncertainty_mm"]) == one.length_uncertainty_mm
    (lost,) = [row for row in rows if row["path"] == str(images[1])]
    assert (lost["decision"], lost["defects"], lost["length_px"]) == ("", "", "")
    assert lost["error"]


def test_other_forms_say_the_same(run, model, images, tmp_path):
    for ending in ("json", "html", "parquet"):
        if ending == "parquet":
            pytest.importorskip("pyarrow", reason="needs invad[tables]")
        done = run("predict", model, *images, "--defects", tmp_path / f"d.{ending}")
        assert done.exit_code == 0, done.stderr
    told = json.loads((tmp_path / "d.json").read_text())["images"]
    found = [expected(model, images[0]), None, expected(model, images[2])]
    assert ["defects" in row for row in told] == [True, False, True]
    assert [one["length_px"] for one in told[2]["defects"]] == [one.length_px for one in found[2]]
    assert not [name for one in told[2]["defects"] for name in one if "_mm" in name]
    page = (tmp_path / "d.html").read_text()
    pictures = sum(bool(one) for one in found)
    assert (page.count("<img "), page.count("<rect ")) == (pictures, sum(len(one or ()) for one in found))
    assert told[1]["error"].split(":")[0] in page
    pq = pytest.importorskip("pyarrow.parquet", reason="needs invad[tables]")

    table = pq.read_table(tmp_path / "d.parquet").to_pylist()
    assert len(table) == sum(max(1, len(one or ())) for one in found)
    assert [row["length_px"] for row in table if row["path"] == str(images[2])] == [
        one.length_px for one in found[2]
    ] or not found[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scale", "0mm"], "has to be above 0"),
        (["--scale", "-1mm"], "has to be above 0"),
        (["--scale", "0.05"], "--scale 0.05: the unit is missing"),
        (["--scale", "1mm", "--homography", "plane.json"], "give one of them"),
        (["--homography", "plane.json"], "plane.json: the homography is singular"),
        (["--homography", "none.json"], "none.json: No such file"),
    ],
    ids=" ".join,
)
def test_a_scale_that_is_none_is_one_line(
    run, model, images, tmp_path, one_line, monkeypatch, options, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plane.json").write_text('{"matrix": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}')
    done = run("predict", model, images[0], "--defects", "d.csv", *options)
    assert done.exit_code in (1, 2)
    assert words in one_line(done)
    assert not (tmp_path / "d.csv").exists()


def test_files_that_cannot_be_are_one_line(run, model, images, tmp_path, one_line):
    for options, words in (
        (["--defects", tmp_path / "d.txt"], "end the name in .csv, .json, .parquet or .html"),
        (["--scale", "1mm"], "--defects FILE or --report FILE, which is missing"),
        (["--defects", tmp_path / "d.csv", "--csv", tmp_path / "d.csv"], "give it one of its own"),
        (["--defects", tmp_path / "d.csv", "--server", "http://127.0.0.1:1"], "--defects needs the maps"),
        (["--defects", "/proc/d.csv"], "/proc/d.csv: cannot be written"),
        (["--defects", "/proc/d.html"], "/proc/d.html: cannot be written"),
    ):
        done = run("predict", model, images[0], *options)
        assert done.exit_code in (1, 2), options
        assert words in one_line(done)


def test_an_image_at_the_horizon_is_one_line(run, model, images, tmp_path, one_line):
    plane = tmp_path / "plane.json"
    plane.write_text('{"matrix": [[1, 0, 0], [0, 1, 0], [-0.05, 0, 1]]}')
    done = run("predict", model, images[0], "--defects", tmp_path / "d.csv", "--homography", plane)
    assert done.exit_code == 1
    assert "reaches the horizon" in one_line(done)


def test_evaluate_writes_the_same_table(run, model, own_parts, tmp_path, one_line):
    path, report = tmp_path / "d.json", tmp_path / "r.html"
    options = ("--defects", path, "--scale", "1mm", "--report", report)
    done = run("evaluate", model, own_parts, *options)
    assert done.exit_code == 0, done.stderr
    told = json.loads(path.read_text())["images"]
    assert len(told) == 9
    for row in told:
        found = expected(model, row["path"], Scale.per_pixel(1))
        assert [one["length_mm"] for one in row["defects"]] == [one.length_mm for one in found]
    assert any(row["defects"] for row in told)
    assert "above the review limit of the map;" in report.read_text()
    done = run("evaluate", model, own_parts, "--defects", path, "--protocol", "paper")
    assert "goes with --protocol calibrated" in one_line(done)
