"""--min-area of calibrate, predict and evaluate."""

import json

import pytest

from invad.detector.detector import Detector

AREA = 300


@pytest.fixture
def bad(parts):
    return sorted((parts / "gasket" / "test").glob("*/000.png"))


def judged(result):
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_calibrate_keeps_it(run, own_model, bad):
    told = judged(run("calibrate", own_model, "--min-area", f"{AREA}px", "--json", "-"))
    assert told["min_area"] == AREA
    model = Detector.load(own_model)
    assert (model.smallest.area, model.smallest.frame) == (AREA, (64, 64))
    kept = judged(run("predict", own_model, *bad, "--json", "-"))["images"]
    assert [row["score"] for row in kept] == [model.predict(path).score for path in bad]
    told = judged(run("calibrate", own_model, "--min-area", "none", "--json", "-"))
    assert told["min_area"] is None


def test_predict_and_evaluate_try_it(run, own_model, parts, bad, tmp_path):
    before = (own_model / "config.json").read_text()
    table = tmp_path / "defects.json"
    options = ("--min-area", AREA, "--json", "-", "--defects", table)
    tried = judged(run("predict", own_model, *bad, *options))
    assert tried["min_area"] == AREA
    found = [defect for row in json.loads(table.read_text())["images"] for defect in row["defects"]]
    assert all(defect["area_px"] >= AREA for defect in found)
    measured = judged(run("evaluate", own_model, parts, "--min-area", AREA, "--json", "-"))
    assert measured["n_normal"] == 4
    assert (own_model / "config.json").read_text() == before
    run("calibrate", own_model, "--min-area", AREA)
    kept = judged(run("predict", own_model, *bad, "--json", "-"))["images"]
    assert [row["score"] for row in kept] == [row["score"] for row in tried["images"]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1", "a cell of the model covers"),
        ("5000", "less than the picture"),
        ("small", "give a number of pixels"),
    ],
)
def test_a_wrong_area_is_one_line(run, own_model, one_line, text, said):
    result = run("calibrate", own_model, "--min-area", text)
    assert result.exit_code == 2
    one_line(result, said)


def test_a_bundle_needs_its_model(run, bundle, bad, one_line):
    result = run("predict", bundle, *bad, "--min-area", AREA)
    assert result.exit_code == 2
    one_line(result, "export again")
