"""Large pictures from the command line: trained in tiles, predicted, measured, explained, exported."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from invad.diffusion.empirical import EmpiricalConfig
from invad.model.settings import PRESETS


@pytest.fixture(autouse=True, scope="module")
def small_tiles():
    """Tiles of 64 pixels are as good a test as larger ones."""
    small = replace(PRESETS["fast"], area_side=64, scales=(1.0,), empirical=EmpiricalConfig(cells=200))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "fast", small)
        yield


@pytest.fixture(scope="module")
def model(run, cloth, small_tiles, tmp_path_factory):
    """Not to be written to."""
    folder = tmp_path_factory.mktemp("tiles") / "model"
    result = run("train", cloth, "--output", folder, "--preset", "fast", "--smallest-defect", "8px")
    assert result.exit_code == 0
    assert "160 x 120 pixels: 12 tiles of 64 pixels and the whole in one, about" in result.stderr
    assert "to train here" in result.stderr
    return folder


def test_the_whole_way(run, model, cloth, tmp_path):
    told = run("info", model)
    assert "64 pixels, cells of 16, overlapping by 38%, positions shared" in told.stdout
    table, report = tmp_path / "defects.csv", tmp_path / "report.html"
    spots = cloth / "test/spot"
    found = run("predict", model, spots, "--defects", table, "--output", tmp_path / "shown")
    assert "4 images: 0 good, 0 review, 4 bad" in found.stdout
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {float(row["cell_px"]) for row in rows} == {16.0}
    assert len(list((tmp_path / "shown").iterdir())) == 4
    measured = run("evaluate", model, cloth, "--report", report, "--json", "-")
    assert json.loads(measured.stdout)["image_auroc"] == 1
    assert report.stat().st_size > 10_000
    other = tmp_path / "other"
    other.mkdir()
    for path in (cloth / "test/good").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) + np.uint8(5)).save(other / path.name)
    own = shutil.copytree(model, tmp_path / "own")
    again = run("calibrate", own, other)
    assert again.exit_code == 0
    assert "Calibrated on 4 good images" in again.stdout


def test_a_bundle_needs_no_more_to_be_told(run, model, cloth, tmp_path):
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
    bundle, spots = tmp_path / "bundle", cloth / "test/spot"
    assert run("export", model, "--output", bundle).exit_code == 0
    assert "64 pixels, cells of 16" in run("info", bundle).stdout
    here, there = (run("predict", folder, spots, "--json", "-") for folder in (model, bundle))
    scores = [[row["score"] for row in json.loads(found.stdout)["images"]] for found in (here, there)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)
    region = tmp_path / "region.json"
    ignored = [[0, 30], [160, 30], [160, 60], [0, 60]]
    region.write_text(json.dumps({"frame": [160, 120], "ignore": [ignored]}))
    told, said = (
        json.loads(
            run("calibrate", folder, "--roi", region, "--output", tmp_path / name, "--json", "-").stdout
        )
        for folder, name in ((model, "m"), (bundle, "b"))
    )
    assert set(told) - {"model"} == set(said) - {"bundle"}
    assert (said["limits"], said["region"]) == (told["limits"], told["region"])
    assert said["score_limits"] == pytest.approx(told["score_limits"], rel=1e-3)
    assert "cells beside it do not count" in said["warnings"][-1]
    found = json.loads(run("predict", tmp_path / "b", spots, "--json", "-").stdout)["images"]
    assert all(row["score"] < before / 2 for row, before in zip(found, scores[1], strict=True))
    refused = run("bench", bundle)
    assert refused.exit_code != 0
    assert "cuts pictures into tiles" in refused.stderr


def test_a_region_and_a_smallest_area_take_no_pictures(run, model, cloth, tmp_path, one_line):
    own, region, spots = (
        shutil.copytree(model, tmp_path / "own"),
        tmp_path / "region.json",
        cloth / "test/spot",
    )
    ignored = [[0, 30], [160, 30], [160, 60], [0, 60]]
    region.write_text(json.dumps({"frame": [160, 120], "ignore": [ignored]}))
    tried = json.loads(run("predict", own, spots, "--min-area", "300", "--json", "-").stdout)
    assert tried["min_area"] == 300
    told = json.loads(run("calibrate", own, "--roi", region, "--min-area", "300", "--json", "-").stdout)
    assert (told["n"], told["min_area"], told["region"]["frame"]) == (20, 300, [160, 120])
    assert any("cells beside it do not count" in line for line in told["warnings"])
    assert "smallest defect 300 pixels" in " ".join(run("info", own).stdout.split())
    found = json.loads(run("predict", own, spots, "--json", "-").stdout)["images"]
    for before, after in zip(tried["images"], found, strict=True):
        assert after["score"] < before["score"] / 2  # all spots are in what is ignored
    refused = run("calibrate", own, "--min-area", "9")
    assert refused.exit_code == 2
    one_line(refused, "a cell of the model covers 256 pixels")
    words = ("--roi", "none", "--roi", f"{cloth.name}={region}", "--min-area", "none")
    done = run("calibrate", own, *words, "--json", "-")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["region"], list(told["regions"])) == (None, [cloth.name])
    assert f"region of {cloth.name} 75% of pictures" in " ".join(run("info", own).stdout.split())
    of_all, of_its_own = (
        [
            row["score"]
            for row in json.loads(run("predict", own, spots, *words, "--json", "-").stdout)["images"]
        ]
        for words in ((), ("--category", cloth.name))
    )
    assert all(after < before / 2 for before, after in zip(of_all, of_its_own, strict=True))


def test_parts_of_pictures_in_tiles(run, lit_cloth, draw_lights, tmp_path):
    model, new = tmp_path / "model", tmp_path / "new"
    new.mkdir()
    for seed, spot in ((100, None), (101, (50, 90))):
        for name, pixels in draw_lights(seed, spot).items():
            Image.fromarray(pixels).save(new / f"part{seed}_{name}.png")
    options = ("--output", model, "--preset", "fast", "--parts", "names", "--smallest-defect", "8px")
    made = run("train", lit_cloth, *options)
    assert made.exit_code == 0, made.stderr
    assert "Learned from 28 good images of 14 parts (light1, light2)" in made.stdout
    rows = json.loads(run("predict", model, new, "--json", "-").stdout)["parts"]
    assert [row["part"] for row in rows] == ["part100", "part101"]
    assert (rows[1]["decision"], rows[1]["seen_by"]) == ("bad", "light2")
    table = tmp_path / "defects.csv"
    one = new / "part101_light2.png"
    assert run("predict", model, one, "--category", "light2", "--defects", table).exit_code == 0
    assert "16.0" in table.read_text()


def test_what_a_whole_picture_shows_needs_no_tiles(run, cloth, tmp_path):
    result = run("train", cloth, "--output", tmp_path / "m", "--preset", "fast", "--smallest-defect", "50")
    assert result.exit_code == 0
    assert "in one have cells of 50 pixels: no tiles" in result.stderr
    assert "tiles" not in run("info", tmp_path / "m").stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--smallest-defect", "0.3mm"), "give pixels, such as 12px, or 0.3mm with --scale"),
        (("--smallest-defect", "0.3mm", "--scale", "0mm"), "has to be above 0"),
        (("--smallest-defect", "0px"), "give a size above 0"),
        (("--smallest-defect", "wide"), "give pixels"),
        (("--smallest-defect", "9px", "--scale", "0.1mm"), "--scale goes with a --smallest-defect in mm"),
        (("--smallest-defect", "9px", "--tile", "64"), "leave --tile away"),
        (("--tile", "5"), "give a side in pixels, at least 16"),
        (("--tile", "300"), "tile = 300: larger than the picture of 160 x 120 pixels"),
        (("--tile", "64", "--positions", "some"), "choose shared or each"),
        (("--positions", "each"), "needs --smallest-defect or --tile"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(run, cloth, tmp_path, options, said):
    result = run("train", cloth, "--output", tmp_path / "m", "--preset", "fast", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_a_length_becomes_pixels(run):
    from invad.cli.tiling import asked

    assert asked("0.3mm", None, "shared", "0.05mm").smallest_defect == pytest.approx(6)
    assert asked("300um", None, "shared", "0.05mm,0.1mm").smallest_defect == pytest.approx(3)
