"""A whole benchmark through the Python API, on tiny sets with a tiny network."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import miniatures
from invad.data.datasets import load_dataset
from invad.data.synthetic import write_dataset
from invad.detector.detector import Detector
from invad.errors import ConfigError, DataError
from invad.evaluation.benchmark import Plan, run
from invad.evaluation.evaluate import PROTOCOLS, evaluate
from invad.evaluation.predictions import read_predictions
from invad.evaluation.results import PROTOCOL_NOTES, rescore
from invad.metrics.exact import SEVEN_METRICS
from invad.observer import Silent
from invad.system.lock import sole_writer


class Notes(Silent):
    def __init__(self):
        self.notes, self.stages = [], []

    def note(self, text):
        self.notes.append(text)

    def stage(self, name, total):
        self.stages.append(name)


PUBLIC = {
    "mpdd": "MPDD",
    "mvtec": "MVTec AD",
    "real_iad": "Real-IAD",
    "real_iad_beside": "Real-IAD",
    "visa": "VisA",
    "visa_pytorch": "VisA",
    "visa_pytorch_splits": "VisA",
}
"""Miniatures whose categories have published figures: the set's title."""


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two categories of 8 training images, 4 good ones and one of each of 5 defects. Not to be written to."""
    folder = tmp_path_factory.mktemp("sets") / "two"
    return write_dataset(folder, categories=["gasket", "fabric"], train=8, test_good=4, per_defect=1, size=64)


@pytest.fixture
def own(two, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(two, tmp_path / "own")


@pytest.fixture(scope="module")
def plan(two, tiny_preset):
    return Plan(root=two, preset=tiny_preset, device="cpu")


@pytest.fixture(scope="module")
def unified(plan, tmp_path_factory):
    """(output folder, result) of the unified setting with its model kept."""
    output = tmp_path_factory.mktemp("runs") / "unified"
    return output, run(replace(plan, keep_models=True, definitions=("exact", "adeval")), output)


@pytest.fixture(scope="module")
def single(plan, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "single"
    observer = Notes()
    return output, run(replace(plan, setting="single"), output, observer), observer


def row(result, **wanted):
    (found,) = [r for r in result["rows"] if wanted.items() <= r.items()]
    return found


@pytest.mark.parametrize("name", sorted(miniatures.MINIATURES))
def test_every_layout_is_benchmarked_as_it_lies_on_disk(name, plan, tmp_path):
    root = miniatures.write(name, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    result = run(replace(plan, root=root), tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert result["failed"] == {}
    published = {told["set"] for told in result["published"]}
    assert published == ({PUBLIC[name]} if name in PUBLIC else set())
    assert (result["run"]["layout"], result["run"]["read_as"]) == ("auto", load_dataset(root).layout)
    test = load_dataset(root).test
    for category in {sample.category for sample in test}:
        listed = [sample for sample in test if sample.category == category]
        found = row(result, category=category, protocol="calibrated")
        defective = sum(sample.defect != "good" for sample in listed)
        assert found["n_normal"] + found["n_anomalous"] == len(listed)
        assert found["n_anomalous"] == defective > 0
        assert found["image_auroc"] is not None


def test_every_protocol_has_a_note():
    assert list(PROTOCOL_NOTES) == list(PROTOCOLS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rows_are_what_evaluate_measures(unified, two, protocol):
    """With the model that the run kept: the same numbers from the images as from the prediction files."""
    output, result = unified
    detector = Detector.load(output / "models" / "seed-0")
    metrics = evaluate(detector, two, protocol=protocol).metrics
    for category, expected in metrics["categories"].items():
        found = row(result, category=category, protocol=protocol, definition="exact")
        assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-6)
    mean = result["summary"][protocol]["exact"]["mean"]
    assert {k: mean[k][0] for k in SEVEN_METRICS} == pytest.approx({k: metrics[k] for k in SEVEN_METRICS})
    assert mean["mad"] == [pytest.approx(metrics["mad"]), None]


def test_one_model_or_one_for_each(unified, single):
    output, result, observer = single
    assert observer.stages.count("features") == 2
    assert result["run"]["setting"] == "single"
    assert not (output / "models").exists()
    files = {path.name for path in (output / "predictions").iterdir()}
    assert files == {"fabric-seed-0.npz", "gasket-seed-0.npz"}
    gasket = {"category": "gasket", "protocol": "calibrated", "definition": "exact"}
    assert row(result, **gasket)["calibration_n"] == row(unified[1], **gasket)["calibration_n"] == 8
    scores = [
        read_predictions(folder / "predictions" / "gasket-seed-0.npz").scores
        for folder, *_ in (unified, single)
    ]
    assert not np.allclose(scores[0]["calibrated"], scores[1]["calibrated"])


def test_what_is_finished_is_not_run_again(single, plan, tmp_path):
    output = shutil.copytree(single[0], tmp_path / "again")
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.npz")}
    observer = Notes()
    again = run(replace(plan, setting="single"), output, observer)
    assert observer.stages == []
    assert [note for note in observer.notes if "finished before" in note] == [
        "model 1 of 2: fabric-seed-0, finished before",
        "model 2 of 2: gasket-seed-0, finished before",
    ]
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.npz")} == before
    assert again["rows"] == single[1]["rows"]
    (output / "predictions" / "gasket-seed-0.npz").unlink()
    observer = Notes()
    repaired = run(replace(plan, setting="single"), output, observer)
    assert observer.stages.count("features") == 1

    def metrics(result):
        return [{k: r[k] for k in SEVEN_METRICS} for r in result["rows"]]

    assert metrics(repaired) == metrics(single[1])


def test_more_seeds_and_other_metrics_in_the_same_folder(single, plan, tmp_path):
    output = shutil.copytree(single[0], tmp_path / "more")
    more = replace(plan, setting="single", seeds=(0, 1), categories=("gasket",), definitions=("official",))
    result = run(more, output)
    assert result["run"]["seeds"] == [0, 1]
    assert {r["definition"] for r in result["rows"]} == {"official"}
    mean, spread = result["summary"]["calibrated"]["official"]["categories"]["gasket"]["image_auroc"]
    values = [row(result, seed=s, protocol="calibrated")["image_auroc"] for s in (0, 1)]
    assert (mean, spread) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert any("not asked for, so left out: fabric-seed-0" in note for note in result["notes"])


def test_rescoring_gives_the_rows_of_the_run(unified):
    output, result = unified
    again = rescore(output, ("exact", "adeval"))
    assert again["rows"] == result["rows"]
    assert again["summary"] == result["summary"]
    one = rescore(output / "predictions" / "fabric-seed-0.npz", ("ader200",))
    assert one["run"]["categories"] == ["fabric"]
    assert rescore(output / "predictions")["run"]["finished"] == 2


def test_other_options_are_refused(single, unified, plan, tiny_preset):
    for change, words in (
        ({"steps": 3}, "steps null, not 3"),
        ({"layout": "mvtec"}, "layout"),
        ({"preset": replace(tiny_preset, top_fraction=0.5)}, "settings of other values"),
    ):
        with pytest.raises(ConfigError, match=words):
            run(replace(plan, setting="single", **change), single[0])
    with pytest.raises(ConfigError, match=r'categories \["fabric", "gasket"\], not \["gasket"\]'):
        run(replace(plan, categories=("gasket",)), unified[0])


@pytest.mark.parametrize("folder", ["test/good", "ground_truth"])
def test_other_content_in_a_file_of_the_same_name_is_refused(single, own, plan, tmp_path, folder):
    output = shutil.copytree(single[0], tmp_path / "run")
    file = next((own / "gasket" / folder).rglob("*.png"))
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match=r"gasket-seed-0\.npz: made of other images"):
        run(replace(plan, root=own, setting="single", categories=("gasket",)), output)


def test_two_benchmarks_in_one_folder_are_told(single, plan):
    held = pytest.raises(DataError, match="another benchmark is writing here")
    with sole_writer(single[0], "benchmark"), held:
        run(replace(plan, setting="single"), single[0])


def test_other_images_are_refused(single, own, plan, tmp_path):
    output = shutil.copytree(single[0], tmp_path / "run")
    extra = next((own / "gasket" / "test" / "good").iterdir())
    shutil.copy(extra, extra.with_name("new.png"))
    with pytest.raises(DataError, match=r"gasket-seed-0\.npz: made of other images"):
        run(replace(plan, root=own, setting="single"), output)


def test_impossible_plans(two):
    for options, words in (
        ({"setting": "both"}, "setting 'both' is unknown"),
        ({"seeds": (1, 1)}, "different whole numbers"),
        ({"seeds": ()}, "different whole numbers"),
        ({"definitions": ("exact", "x")}, "'x' is unknown"),
        ({"preset": "best"}, "preset 'best' is unknown"),
    ):
        with pytest.raises(ConfigError, match=words):
            Plan(root=two, **options)


def test_a_category_without_training_or_test_images(own, plan, tmp_path):
    shutil.rmtree(own / "fabric" / "test")
    shutil.rmtree(own / "fabric" / "ground_truth")
    output = tmp_path / "out"
    (own / "gasket" / "test_public").mkdir()
    shutil.copy(next((own / "gasket" / "train").rglob("*.png")), own / "gasket" / "test_public")
    observer = Notes()
    with pytest.raises(DataError, match="no test images of fabric; add them or leave"):
        run(replace(plan, root=own), output, observer)
    assert any(note.startswith("1 image was not taken") for note in observer.notes)
    assert not output.exists()
    result = run(replace(plan, root=own, setting="single", categories=("gasket",)), output)
    assert result["run"]["categories"] == ["gasket"]


def test_a_category_that_fails_does_not_stop_the_others(own, plan, tmp_path):
    for path in sorted((own / "fabric" / "train" / "good").iterdir()):
        path.write_bytes(b"no image")
    observer = Notes()
    result = run(replace(plan, root=own, setting="single"), tmp_path / "out", observer)
    assert list(result["failed"]) == ["fabric-seed-0"]
    assert result["run"]["finished"] == 1
    assert result["run"]["expected"] == 2
    assert result["notes"][0].startswith("fabric-seed-0 failed: ")
    assert "Unfinished: 1 of the" in result["notes"][1]
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text()) == result


def test_a_unified_model_is_tested_on_what_can_be_tested_and_kept_for_the_rest(own, plan, tmp_path):
    tests = sorted((own / "fabric" / "test").rglob("*.png"))
    contents = [path.read_bytes() for path in tests]
    for path, content in zip(tests, contents, strict=True):
        path.write_bytes(bytes(len(content)))  # unreadable, of the same size
    output, observer = tmp_path / "out", Notes()
    result = run(replace(plan, root=own), output, observer)
    assert list(result["failed"]) == ["fabric, seed 0"]
    assert "none of 9 test images could be read" in result["failed"]["fabric, seed 0"]
    assert result["run"]["categories"] == ["gasket"]
    for path, content in zip(tests, contents, strict=True):
        path.write_bytes(content)
    observer = Notes()
    result = run(replace(plan, root=own), output, observer)
    assert observer.stages == ["test"]  # nothing is trained again
    assert (result["failed"], result["run"]["finished"]) == ({}, 2)
    assert not (output / "models").exists()


def test_a_model_of_other_images_is_not_used(own, plan, tmp_path):
    output = tmp_path / "out"
    one = replace(plan, root=own, setting="single", categories=("gasket",), keep_models=True)
    run(one, output)
    (output / "predictions" / "gasket-seed-0.npz").unlink()
    observer = Notes()
    run(one, output, observer)
    assert observer.stages == ["test"]
    (output / "predictions" / "gasket-seed-0.npz").unlink()
    next((own / "gasket" / "train" / "good").iterdir()).unlink()
    observer = Notes()
    run(one, output, observer)
    assert "features" in observer.stages


def test_a_test_set_of_one_class(own, plan, tmp_path):
    for kind in (own / "gasket" / "test").iterdir():
        if kind.name != "good":
            shutil.rmtree(kind)
    shutil.rmtree(own / "fabric" / "test" / "good")
    shutil.rmtree(own / "fabric" / "ground_truth")
    one_class = replace(plan, root=own, setting="single", definitions=("exact", "adeval"))
    result = run(one_class, tmp_path / "out")
    good_only = row(result, category="gasket", protocol="calibrated", definition="exact")
    assert all(good_only[name] is None for name in (*SEVEN_METRICS, "mad"))
    assert good_only["false_alarm_rate"] is not None
    assert good_only["undefined"]["image_ap"] == "no defective test images"
    bad_only = row(result, category="fabric", protocol="paper", definition="adeval")
    assert bad_only["image_auroc"] is bad_only["pixel_auroc"] is bad_only["false_alarm_rate"] is None
    assert bad_only["image_ap"] is bad_only["image_f1max"] is None
    assert bad_only["undefined"]["image_auroc"] == "no good test images"
    assert bad_only["undefined"]["pixel_auroc"] == "no masks"
    notes = "\n".join(result["notes"])
    assert "gasket: no defective test images, so no image_auroc" in notes
    assert "fabric: no masks, so no pixel_auroc" in notes
    assert "image_f1max, pixel_auroc, pixel_ap, pixel_f1max, pixel_aupro: 0 of 2" in notes
    assert "false_alarm_rate: 1 of 2" in notes
    assert result["summary"]["calibrated"]["exact"]["mean"]["mad"] is None
    text = (tmp_path / "out" / "benchmark.md").read_text()
    assert "nan" not in text.lower()


def test_unreadable_test_images_are_named_or_fail_when_strict(own, plan, tmp_path):
    broken = own / "gasket" / "test" / "good" / "000.png"
    broken.write_bytes(broken.read_bytes()[:100])
    mask = next((own / "gasket" / "ground_truth").rglob("*.png"))
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(mask)
    one = replace(plan, root=own, setting="single", categories=("gasket",))
    result = run(one, tmp_path / "out")
    skipped = row(result, protocol="paper", definition="exact")["skipped"]
    assert sorted(skipped, reverse=True) == ["gasket/test/good/000.png", mask.relative_to(own).as_posix()]
    assert "gasket: not read and left out: gasket/test/good/000.png" in result["notes"]
    assert row(result, protocol="paper", definition="exact")["n_masked"] == 4
    strict = run(replace(one, strict=True), tmp_path / "strict")
    assert str(own / "gasket") in strict["failed"]["gasket, seed 0"]
    assert strict["run"]["finished"] == 0
    assert "Nothing is finished" in (tmp_path / "strict" / "benchmark.html").read_text()


def test_folders_in_use(plan, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty and holds no benchmark"):
        run(plan, tmp_path)
    with pytest.raises(DataError, match="cannot be written"):
        run(plan, tmp_path / "notes.txt" / "out")


def test_an_image_of_several_views_is_stored_with_its_object(two, plan, tmp_path, monkeypatch):
    """Objects of two views: their names reach the prediction file, and the metrics of objects the rows."""
    monkeypatch.setattr(
        "invad.evaluation.testset.sample_of", lambda sample: f"object {int(sample.path.stem) // 2}"
    )
    result = run(replace(plan, setting="single", categories=("gasket",)), tmp_path / "out")
    found = row(result, protocol="calibrated", definition="exact")
    assert found["n_samples"] == 2
    # Images 0 and 1 of every folder are one object; the defects, all numbered 0, belong to it.
    assert (found["sample_auroc"], found["sample_ap"]) in ((1.0, 1.0), (0.0, 0.5))
    stored = read_predictions(tmp_path / "out" / "predictions" / "gasket-seed-0.npz")
    assert stored.samples == tuple(f"object {int(path[-7:-4]) // 2}" for path in stored.paths)
