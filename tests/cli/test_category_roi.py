"""train and calibrate with regions of interest of single categories, from the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invad import runtime
from invad.detector.detector import Detector

LEFT = {"frame": [64, 64], "ignore": [[[0, 0], [24, 0], [24, 64], [0, 64]]]}
RIGHT = {"frame": [64, 64], "ignore": [[[40, 0], [64, 0], [64, 64], [40, 64]]]}


@pytest.fixture(scope="module")
def place(write_parts, tmp_path_factory):
    """A folder with data of the categories a and b, left.json and right.json."""
    root = tmp_path_factory.mktemp("places")
    for number, category in enumerate("ab"):
        write_parts(root / "data" / category / "train" / "good", 12, first=100 * number)
    (root / "left.json").write_text(json.dumps(LEFT))
    (root / "right.json").write_text(json.dumps(RIGHT))
    return root


@pytest.fixture(scope="module")
def trained(place, run):
    """The folder of a model of both, in which a does not look at the left. Not to be written to."""
    words = ("--preset", "fast", "--roi", f"a={place}/left.json")
    done = run("train", place / "data", "--output", place / "model", *words)
    assert done.exit_code == 0, done.stderr
    return place / "model"


@pytest.fixture
def model(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "model"))


def test_regions_come_and_go_by_category(run, place, model):
    assert Detector.load(model).regions["a"].frame == (64, 64)
    done = run("calibrate", model, "--roi", f"b={place}/right.json", "--roi", "a=none", "--json", "-")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["region"], list(told["regions"])) == (None, ["b"])
    assert "region of b" in run("info", model).stdout
    assert "| region of b | 62% of pictures" in (model / "README.md").read_text()
    done = run("calibrate", model, "--roi", place / "left.json")
    assert done.exit_code == 0, done.stderr
    detector = Detector.load(model)
    assert detector.region_for("a") == detector.region
    assert detector.region_for("b") == detector.regions["b"] != detector.region


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["--roi", "c=left.json"], "no category 'c'; choose from a, b", 2),
        (["--roi", "a=left.json", "--roi", "a=right.json"], "there are two of category a; give one", 2),
        (["--roi", "left.json", "--roi", "right.json"], "there are two of all categories; give one", 2),
        (["--roi", "a="], "give FILE, or CATEGORY=FILE for one category", 2),
        (["--roi", "a=gone.json"], "gone.json: No such file", 1),
        (["--roi", "b=wide.json"], "category b: the region is drawn on pictures of 80 x 64 pixels", 1),
    ],
)
def test_what_cannot_be_is_one_line(run, place, model, one_line, monkeypatch, words, said, code):
    monkeypatch.chdir(place)
    (place / "wide.json").write_text(json.dumps({**LEFT, "frame": [80, 64]}))
    before = (model / "config.json").read_text()
    done = run("calibrate", model, *words)
    assert done.exit_code == code, done.stderr
    one_line(done, said)
    assert (model / "config.json").read_text() == before


def test_a_training_refuses_what_it_does_not_know_before_it_starts(run, place, one_line, tmp_path):
    done = run("train", place / "data", "--output", tmp_path / "new", "--roi", f"c={place}/left.json")
    assert done.exit_code == 2
    one_line(done, "no category 'c' to give a region; choose from a, b")
    tiles = run(
        "train", place / "data", "--output", tmp_path / "new", "--roi", f"c={place}/left.json", "--tile", 32
    )
    assert tiles.exit_code == 2
    assert tiles.stderr.splitlines()[-1].endswith("no category 'c' to give a region; choose from a, b")


@pytest.mark.parametrize(
    ("format", "engines"), [("onnx", ("onnxruntime", "openvino")), ("openvino", ("openvino",))]
)
def test_a_bundle_chooses_the_region_by_the_category(run, trained, draw, tmp_path, format, engines):
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxruntime", reason="needs invad[onnx]")
    pytest.importorskip("openvino", reason="needs invad[openvino]")
    done = run("export", trained, "--output", tmp_path / "bundle", "--format", format, "--batch", "dynamic")
    assert done.exit_code == 0, done.stderr
    detector = Detector.load(trained)
    bundles = [runtime.load(tmp_path / "bundle", name, threads=1) for name in engines]
    assert bundles[0].regions == detector.regions
    plain = draw(900)
    scribbled = plain.copy()
    scribbled[:, :24] = np.random.default_rng(0).integers(0, 256, (64, 24, 3))
    for category in ("a", "b", None):
        told = detector.predict([plain, scribbled], category=category)
        for bundle in bundles:
            for one, other in zip(told, bundle.judge([plain, scribbled], category), strict=True):
                assert other.score == pytest.approx(one.score, rel=1e-3)
                assert other.decision == one.decision
                np.testing.assert_allclose(other.anomaly_map, one.anomaly_map, rtol=5e-3, atol=5e-3)
        alike = told[0].score == pytest.approx(told[1].score, abs=1e-5)
        assert alike == (category == "a")
    Image.fromarray(scribbled).save(tmp_path / "part.png")
    verified = run("verify", tmp_path / "bundle")
    assert verified.exit_code == 0, verified.stderr
    judged = run("predict", tmp_path / "bundle", tmp_path / "part.png", "--category", "a", "--json", "-")
    assert judged.exit_code == 0, judged.stderr
