"""evaluate, calibrate, info on a small model; models that cannot be used."""

import json
import os

import pytest
from PIL import Image
from safetensors.numpy import load_file

from invad.detector.detector import Detector

METRICS = [
    "image_auroc",
    "image_ap",
    "image_f1max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1max",
    "pixel_aupro",
    "mad",
]


@pytest.fixture(scope="module")
def evaluated(trained, parts, run, tmp_path_factory):
    """(report file, result) of an evaluation."""
    report = tmp_path_factory.mktemp("report") / "report.html"
    return report, run("evaluate", trained[0], parts, "--report", report, "--json", "-")


def test_the_keys_of_an_evaluation_are_frozen(evaluated):
    told = json.loads(evaluated[1].stdout)
    assert evaluated[1].exit_code == 0
    row = [*METRICS, "false_alarm_rate", "n_normal", "n_anomalous", "n_masked"]
    assert list(told["categories"]["gasket"]) == row
    assert sorted(told) == sorted(
        [
            *row,
            "categories",
            "false_alarms",
            "calibration_n",
            "images_per_second",
            "protocol",
            "pooled_calibration",
            "without_own_limits",
            "skipped",
            "masks_skipped",
            "warnings",
            "model",
            "content_hash",
            "data",
            "report",
        ]
    )
    assert list(told["false_alarms"]) == ["review", "bad"]
    assert list(told["false_alarms"]["bad"]) == ["asked", "realised", "count", "expected_count_95"]
    assert (told["n_normal"], told["n_anomalous"], told["protocol"]) == (4, 5, "calibrated")
    assert all(0 <= told[key] <= 1 for key in METRICS)


def test_the_report_is_one_file_with_the_numbers(evaluated):
    report, result = evaluated
    html = report.read_text()
    assert f"{json.loads(result.stdout)['image_auroc']:.4f}" in html
    assert "Asked for: <b>5.0" in html
    assert "extrapolated from 12 normal images" in html
    assert "http://" not in html
    assert "https://" not in html


def test_the_paper_protocol(run, model, parts, tmp_path, one_line):
    refused = run("evaluate", model, parts, "--protocol", "paper")
    assert refused.exit_code == 2
    one_line(refused, "this model has no network", "--preset dit")
    model = tmp_path / "model"
    assert run("train", parts, "--output", model, "--preset", "paper-s", "--steps", 1).exit_code == 0
    options = ["--protocol", "paper", "--json", tmp_path / "e.json", "--report", tmp_path / "r.html"]
    result = run("evaluate", model, parts, *options)
    assert result.exit_code == 0
    assert json.loads((tmp_path / "e.json").read_text())["protocol"] == "paper"
    assert "published protocol" in (tmp_path / "r.html").read_text()
    assert "AUPRO" in result.stdout


def test_a_set_without_masks_has_no_pixel_metrics(run, model, own_parts):
    import shutil

    shutil.rmtree(own_parts / "gasket" / "ground_truth")
    told = json.loads(run("evaluate", model, own_parts, "--json", "-").stdout)
    assert [told[key] for key in METRICS[3:]] == [None] * 5
    assert told["image_auroc"] is not None


def test_a_mask_that_marks_all_is_a_warning_in_the_report_and_the_json(run, model, own_parts, tmp_path):
    folder = own_parts / "gasket" / "ground_truth"
    mask = sorted(folder.rglob("*.png"))[0]
    Image.new("L", (64, 64), 255).save(mask)
    result = run("evaluate", model, own_parts, "--json", "-", "--report", tmp_path / "r.html")
    assert [line for line in json.loads(result.stdout)["warnings"] if f"{mask}: marks 100%" in line]
    assert f"warning: {mask}: marks 100%" in result.stderr
    assert f"{mask.name}: marks 100%" in (tmp_path / "r.html").read_text()


def test_a_mask_of_another_size_is_named(run, model, own_parts, one_line):
    from PIL import Image

    mask = next((own_parts / "gasket" / "ground_truth").rglob("*.png"))
    Image.new("L", (10, 10), 255).save(mask)
    result = run("evaluate", model, own_parts)
    assert result.exit_code == 0
    assert f"mask skipped: {mask}" in result.stderr
    strict = run("evaluate", model, own_parts, "--strict")
    assert strict.exit_code == 1
    one_line(strict, mask)


def test_a_folder_without_test_images(run, model, parts, one_line):
    result = run("evaluate", model, parts / "gasket" / "train" / "good")
    assert result.exit_code == 1
    one_line(result, "no test images", "test/good")


def networks(model):
    """The bytes of all tensors that a calibration leaves alone."""
    tensors = load_file(model / "model.safetensors")
    return {k: v.tobytes() for k, v in tensors.items() if not k.startswith(("calibration.", "held."))}


def test_calibrate_changes_limits_and_nothing_else(run, own_model, parts):
    before = networks(own_model)
    old = Detector.load(own_model)
    good = parts / "gasket" / "test" / "good"
    result = run("calibrate", own_model, good, "--false-alarm-rate", "0.03", "--json", "-")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    new = Detector.load(own_model)
    assert (told["n"], told["false_alarm_rate"], told["review_rate"]) == (4, 0.03, 0.05)
    assert told["content_hash"] == new.content_hash != old.content_hash
    assert new.rates.bad == 0.03
    assert new.info.settings == old.info.settings
    assert new.info.fit == old.info.fit
    assert networks(own_model) == before
    assert "guarantee needs" in result.stderr
    assert {p.name for p in own_model.iterdir()} == {
        "model.safetensors",
        "config.json",
        "calibration.json",
        "README.md",
    }


def test_calibrate_says_which_categories_lose_their_limits(run, own_model, parts, tmp_path):
    import shutil

    fresh = shutil.copytree(parts / "gasket" / "test" / "good", tmp_path / "screws")
    result = run("calibrate", own_model, fresh)
    assert result.exit_code == 0
    assert "warning: no limits of their own any more" in result.stderr
    assert "gasket" in result.stderr


def test_calibrate_needs_images(run, own_model, parts, one_line):
    result = run("calibrate", own_model, parts / "gasket" / "test" / "good" / "000.png")
    assert result.exit_code == 1
    one_line(result, "1 readable normal images", "at least 2")
    assert Detector.load(own_model)


def test_info_says_what_the_model_is(run, model):
    told = json.loads(run("info", model, "--json", "-").stdout)
    assert (told["preset"], told["seed"], told["fit"]["normals"]) == ("standard", 0, {"gasket": 12})
    assert told["calibration"]["n"] == told["categories"]["gasket"]["n"] == 12
    assert told["calibration"]["review_rate"] == 0.05
    text = run("info", model).stdout
    assert told["content_hash"] in text
    assert "invad-s" in text


def test_info_of_a_model_does_not_depend_on_the_process(run, run_outside, model):
    assert run_outside("info", model).stdout == run("info", model).stdout


# Models that cannot be used


def test_a_tampered_model(run, own_model, parts, one_line):
    file = own_model / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    for verb in (["info", own_model], ["predict", own_model, parts], ["evaluate", own_model, parts]):
        result = run(*verb)
        assert result.exit_code == 1
        one_line(result, file, "altered or truncated")


def test_a_truncated_incomplete_newer_or_missing_model(run, own_model, tmp_path, one_line):
    one_line(run("info", tmp_path / "none"), tmp_path / "none", "no such model folder")
    config = own_model / "config.json"
    whole = json.loads(config.read_text())
    config.write_text(json.dumps({**whole, "format": 99}))
    one_line(run("info", own_model), "newer", "update invad")
    config.write_text(config.read_text()[:50])
    one_line(run("info", own_model), config, "unreadable")
    config.unlink()
    one_line(run("info", own_model), "config.json is missing")
    os.truncate(own_model / "model.safetensors", 1000)
    config.write_text(json.dumps(whole))
    result = run("info", own_model)
    assert result.exit_code == 1
    one_line(result, "model.safetensors", "truncated")


def test_a_report_that_cannot_be_written_costs_no_figures(run, model, parts, tmp_path, one_line):
    (tmp_path / "full").symlink_to("/dev/full")
    result = run("evaluate", model, parts, "--report", tmp_path / "full", "--json", tmp_path / "e.json")
    assert result.exit_code == 1
    one_line(result, "full", "No space left on device")
    told = json.loads((tmp_path / "e.json").read_text())
    assert (told["n_normal"], told["report"]) == (4, None)
    assert "AUROC" in result.stdout
