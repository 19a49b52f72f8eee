"""train and calibrate with a region of interest, from the command line."""

import json

import numpy as np
import pytest
from PIL import Image

from invad.detector.detector import Detector

PLAIN = {"frame": [64, 64], "ignore": [[[0, 0], [30, 0], [30, 64], [0, 64]]]}


@pytest.fixture
def roi(tmp_path):
    path = tmp_path / "region.json"
    path.write_text(json.dumps(PLAIN))
    return path


def test_train_takes_a_region(run, parts, roi, tmp_path, one_line):
    result = run("train", parts, "--output", tmp_path / "model", "--roi", roi)
    assert result.exit_code == 0, result.stderr
    assert Detector.load(tmp_path / "model").region.frame == (64, 64)
    roi.write_text(json.dumps({**PLAIN, "frame": [640, 480]}))
    refused = run("train", parts, "--output", tmp_path / "other", "--roi", roi)
    assert refused.exit_code == 1
    one_line(refused, "64 x 64 pixels, and the region of interest is drawn on pictures of 640 x 480")


def test_calibrate_takes_a_region_and_gives_it_back_without_pictures(run, own_model, roi):
    scores = Detector.load(own_model).calibrations[""].scores
    result = run("calibrate", own_model, "--roi", roi, "--json", "-")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["n"], told["region"]["frame"]) == (12, [64, 64])
    assert Detector.load(own_model).region is not None
    assert "53% of pictures of 64 x 64 pixels" in run("info", own_model).stdout
    assert "| region of interest | 53% of pictures" in (own_model / "README.md").read_text()
    assert run("calibrate", own_model, "--roi", "none").exit_code == 0
    again = Detector.load(own_model)
    assert again.region is None
    np.testing.assert_allclose(again.calibrations[""].scores, scores, rtol=5e-3)


def test_a_mask_picture_is_a_region(run, own_model, tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 30:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert run("calibrate", own_model, "--roi", tmp_path / "mask.png").exit_code == 0
    assert Detector.load(own_model).region.include == (((30, 0), (64, 0), (64, 64), (30, 64)),)


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ({**PLAIN, "frame": [80, 64]}, "the region is drawn on pictures of 80 x 64 pixels"),
        ({**PLAIN, "ignore": [[[0, 0], [64, 0], [64, 64], [0, 64]]]}, "leaves no pixel"),
        ({**PLAIN, "ignore": [[[70, 0], [80, 0], [80, 9]]]}, "outside the picture of 64 x 64"),
        ({**PLAIN, "include": [[[1, 1], [3, 1], [3, 3], [1, 3]]], "ignore": []}, "covers none of the model"),
    ],
)
def test_a_wrong_region_is_one_line(run, own_model, roi, one_line, plain, said):
    before = (own_model / "config.json").read_text()
    roi.write_text(json.dumps(plain))
    result = run("calibrate", own_model, "--roi", roi)
    assert result.exit_code == 1
    one_line(result, said)
    assert (own_model / "config.json").read_text() == before


def test_calibrate_needs_something_to_change(run, own_model, one_line):
    result = run("calibrate", own_model)
    assert result.exit_code == 2
    one_line(result, "nothing to change")


def test_an_older_model_needs_pictures_once(run, own_model, roi, parts, one_line):
    """A folder of format 5, as invad wrote it before it kept maps."""
    older(own_model)
    result = run("calibrate", own_model, "--roi", roi)
    assert result.exit_code == 1
    one_line(result, "give good images")
    good = parts / "gasket" / "test" / "good"
    assert run("calibrate", own_model, good, "--roi", roi).exit_code == 0
    assert run("calibrate", own_model, "--roi", roi, "--review-rate", "0.1").exit_code == 0


def older(model):
    from safetensors.numpy import load_file, save_file

    from invad.runtime.bundle import content_hash, sha256

    tensors = load_file(model / "model.safetensors")
    save_file(
        {k: v for k, v in tensors.items() if not k.startswith(("held.", "mean."))},
        model / "model.safetensors",
    )
    calibration = json.loads((model / "calibration.json").read_text())
    del calibration["held"]
    (model / "calibration.json").write_text(json.dumps(calibration))
    config = json.loads((model / "config.json").read_text())
    for key in ("format", "content_hash", "files", "region"):
        del config[key]
    files = {name: sha256(model / name) for name in ("model.safetensors", "calibration.json")}
    whole = {"format": 5, **config, "files": files, "content_hash": content_hash(config, files)}
    (model / "config.json").write_text(json.dumps(whole))


def test_calibrate_gives_a_bundle_another_region(run, own_bundle, roi, draw, parts, tmp_path, one_line):
    new = tmp_path / "next"
    result = run("calibrate", own_bundle, "--roi", f"part={roi}", "--output", new, "--json", "-")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["bundle"], list(told["regions"])) == (str(new), ["part"])
    assert "category part: the good images that set the limits were read with" in result.stderr
    said = run("info", new).stdout
    assert "region of part" in said
    assert "invad calibrate takes one" in said
    assert told["content_hash"] in said.replace("\n", "")
    Image.fromarray(draw(3)).save(tmp_path / "a.png")
    assert run("predict", new, tmp_path / "a.png", "--category", "part").exit_code == 0
    verified = run("verify", new)
    assert verified.exit_code == 0, verified.stderr
    assert "the same as PyTorch" in verified.stdout
    assert "region of interest or limits were changed since" in verified.stdout
    before = (own_bundle / "bundle.json").read_bytes()
    one_line(run("calibrate", own_bundle, "--roi", roi, "--output", new), "next: is there already")
    one_line(
        run("calibrate", own_bundle, parts, "--roi", roi), "is an exported bundle", "to the trained model"
    )
    assert (own_bundle / "bundle.json").read_bytes() == before
    assert run("calibrate", own_bundle, "--review-rate", 0.1).exit_code == 0
    assert "for 10.00% of good images" in run("info", own_bundle).stdout
