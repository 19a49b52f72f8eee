"""invad labels: from predictions to the files of other tools, and from those to a set that is evaluated."""

import json

import numpy as np
import pytest

from invad.detector.detector import Detector
from invad.report.maps import read_map


@pytest.fixture(scope="module")
def predicted(run, model, parts, tmp_path_factory):
    """(folder of maps, folder of images)."""
    images = parts / "gasket" / "test"
    maps = tmp_path_factory.mktemp("labels") / "maps"
    done = run("predict", model, images, "--maps", maps)
    assert done.exit_code == 0, done.stderr
    return maps, images


@pytest.fixture(scope="module")
def model(trained):
    return trained[0]


def test_maps_hold_the_prediction(predicted, model):
    maps, images = predicted
    files = sorted(maps.iterdir())
    assert len(files) == len(list(images.rglob("*.png")))
    found = read_map(files[0])
    detector = Detector.load(model)
    expected = detector.predict(found.prediction.path)
    assert (found.prediction.score, found.prediction.decision) == (expected.score, expected.decision)
    assert (found.content_hash, found.limits) == (
        detector.content_hash,
        detector.calibrations[""].map_limits(),
    )
    spread = np.ptp(expected.anomaly_map)
    np.testing.assert_allclose(found.prediction.anomaly_map, expected.anomaly_map, atol=spread / 60_000)


@pytest.mark.parametrize("tool", ["coco", "label-studio"])
def test_predictions_go_out_and_come_back_as_a_set(run, predicted, model, tmp_path, tool):
    maps, images = predicted
    file = tmp_path / "out.json"
    done = run("labels", f"to-{tool}", maps, "--output", file, "--images", images, "--json", "-")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["regions"] > 0
    if tool == "label-studio":
        assert (tmp_path / "out.xml").read_text().startswith("<View>")
        tasks = json.loads(file.read_text())
        regions = [[r for r in t["predictions"][0]["result"] if r["type"] != "choices"] for t in tasks]
        said = [{**task, "annotations": [{"result": r}]} for task, r in zip(tasks, regions, strict=True)]
        file.write_text(json.dumps(said))
    labelled = tmp_path / "labelled"
    back = run("labels", f"from-{tool}", file, "--images", images, "--output", labelled, "--json", "-")
    assert back.exit_code == 0, back.stderr
    told = json.loads(back.stdout)
    assert (told["good"] > 0, told["bad"] > 0, told["masks"]) == (True, True, told["bad"])
    measured = run("evaluate", model, labelled, "--json", "-")
    assert measured.exit_code == 0, measured.stderr
    assert json.loads(measured.stdout)["pixel_auroc"] > 0.9


def test_labelled_good_images_calibrate(run, own_model, parts, tmp_path):
    images = parts / "gasket" / "test" / "good"
    names = sorted(path.name for path in images.iterdir())
    said = {
        "images": [{"id": i, "file_name": name, "width": 64, "height": 64} for i, name in enumerate(names)],
        "annotations": [],
        "categories": [],
    }
    (tmp_path / "coco.json").write_text(json.dumps(said))
    labelled = tmp_path / "labelled"
    run("labels", "from-coco", tmp_path / "coco.json", "--images", images, "--output", labelled)
    done = run("calibrate", own_model, labelled)
    assert done.exit_code == 0, done.stderr
    assert "Calibrated on" in done.stdout


def test_results_of_coco_are_ranked_by_peaks(run, predicted, tmp_path):
    maps, _ = predicted
    results = tmp_path / "results.json"
    done = run("labels", "to-coco", maps, "--output", tmp_path / "c.json", "--results", results)
    assert done.exit_code == 0, done.stderr
    ranked = json.loads(results.read_text())
    peaks = [one["peak"] for one in json.loads((tmp_path / "c.json").read_text())["annotations"]]
    assert [one["score"] for one in ranked] == peaks


def test_what_cannot_be_is_one_line(run, model, predicted, parts, tmp_path, one_line):
    maps, images = predicted
    out = tmp_path / "out.json"
    one_line(run("labels", "to-coco", images / "good", "--output", out), "is no heat map")
    one_line(run("labels", "to-coco", tmp_path, "--output", out), "no maps in it")
    one_line(
        run("labels", "to-coco", maps, "--output", out, "--images", tmp_path), "does not lie below", tmp_path
    )
    one_line(run("labels", "to-label-studio", maps, "--output", tmp_path / "x.xml"), "end it in .json")
    one_line(
        run("predict", model, images, "--maps", tmp_path / "m", "--engine", "ray"), "--maps does not go with"
    )
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for i, path in enumerate(sorted(maps.iterdir())[:2]):
        found = read_map(path)
        from invad.report.maps import write_map

        write_map(mixed / path.name, found.prediction, (1.0, 2.0 + i))
    one_line(run("labels", "to-coco", mixed, "--output", out), "has other limits than")
    assert not out.exists()
