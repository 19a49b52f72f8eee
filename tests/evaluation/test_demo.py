"""The demo on drawn parts and on a user's images, from the command line."""

import json

import pytest
from typer.testing import CliRunner

from invad.cli.app import app
from invad.data.synthetic import write_dataset
from invad.detector.detector import Detector
from invad.errors import DataError
from invad.evaluation import demo


def run(*arguments):
    result = CliRunner().invoke(app, ["demo", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def small(monkeypatch):
    """Two categories and a handful of images."""
    monkeypatch.setattr(demo, "CATEGORIES", ("gasket", "fabric"))
    for name, count in {"TRAIN": 5, "TEST_GOOD": 3, "PER_DEFECT": 1}.items():
        monkeypatch.setattr(demo, name, count)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A plain folder of 12 good images."""
    root = tmp_path_factory.mktemp("images") / "parts"
    write_dataset(root, categories=["gasket"], train=12, test_good=0, per_defect=0, size=64)
    return root / "gasket" / "train" / "good"


def test_drawn_parts_and_a_service_that_has_seen_some(small, tmp_path, monkeypatch):
    running = pytest.importorskip("invad.serve.running", reason="needs invad[serve]")
    results = pytest.importorskip("invad.serve.store.results")
    seen = []

    def answer(service, address, said):
        seen.extend(service.history(results.Query())[0])
        assert address.without_keys
        said("http://127.0.0.1:1")

    monkeypatch.setattr(running, "run", answer)
    monkeypatch.setattr(running, "log_to_standard_error", lambda: None)
    output = tmp_path / "runs" / "demo"
    result = run("--output", output, "--seed", 5, "--serve")
    assert result.exit_code == 0, result.stderr
    assert {one.result.category for one in seen} == {"fabric", "gasket"}
    assert len(seen) == 7  # six good ones, one defective
    assert result.stdout.splitlines()[-1].startswith("7 parts are on the page; open http://127.0.0.1:1,")
    summary = json.loads((output / "summary.json").read_text())
    for key in ("image_auroc", "pixel_aupro", "images_per_second", "train_seconds"):
        assert summary[key] > 0
    assert 0 <= summary["false_alarm_rate"] <= 1
    assert list(summary["categories"]) == ["fabric", "gasket"]
    assert (summary["synthetic"], summary["seed"], summary["preset"]) == (True, 5, "standard")
    assert (summary["n_normal"], summary["n_anomalous"]) == (6, 10)
    assert summary["normals"] == {"fabric": 5, "gasket": 5}
    assert summary["report"] == str(output / "report.html")
    html = (output / "report.html").read_text()
    assert "synthetic" in html
    assert "Good images" in html
    overlays = sorted(path.name for path in (output / "overlays").iterdir())
    assert [str(output / "overlays" / name) for name in overlays] == sorted(summary["overlays"])
    assert len(overlays) == 6
    assert Detector.load(output / "model").content_hash
    assert {path.name for path in output.iterdir()} == {*demo.OWN, demo.MARK}
    said = " ".join(result.stdout.split())
    assert f"Image AUROC {summary['image_auroc']:.4f}" in said
    assert "images per second" in said
    assert f"Report: {output}/report.html" in said
    assert "The images are synthetic" in said


def test_own_images_without_defects(good, tmp_path):
    result = run("--data", good, "--output", tmp_path / "demo", "--json", "-")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["image_auroc"] is summary["pixel_aupro"] is None
    assert (summary["n_normal"], summary["n_anomalous"], summary["synthetic"]) == (2, 0, False)
    assert summary["false_alarm_rate"] is not None
    assert summary["normals"] == {"gasket": 10}
    assert "No image AUROC" in result.stderr
    assert "no defective images" in (tmp_path / "demo" / "report.html").read_text()
    assert "synthetic" not in (tmp_path / "demo" / "report.html").read_text()


def test_own_test_images_are_used_as_they_are(tmp_path):
    root = write_dataset(tmp_path / "d", categories=["gasket"], train=6, test_good=2, per_defect=1, size=64)
    train, test = demo._split(root, "auto", seed=0)
    assert (len(train), len(test)) == (6, 7)


def test_images_set_aside_are_not_trained_on(good):
    train, test = demo._split(good, "auto", seed=0)
    assert not set(train) & set(test)
    assert len(train) + len(test) == 12
    assert demo._split(good, "auto", seed=1)[1] != test


def test_too_few_images_are_refused_before_anything_is_made(good, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(good.iterdir())[:9]:
        (few / path.name).write_bytes(path.read_bytes())
    result = run("--data", few, "--output", tmp_path / "demo")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {few}: 9 good images of few and no test images")
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


# The output folder


def test_an_earlier_demo_is_replaced_but_nothing_else(tmp_path):
    output = tmp_path / "demo"
    demo._claim(output)
    (output / "data").mkdir()
    (output / "data" / "old.png").write_text("old")
    (output / "report.html").write_text("old")
    (output / "notes.txt").write_text("mine")
    demo._claim(output)
    assert {path.name for path in output.iterdir()} == {demo.MARK, "overlays", "notes.txt"}


def test_a_link_in_an_earlier_demo_is_not_followed(tmp_path):
    output, elsewhere = tmp_path / "demo", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "image.png").write_text("mine")
    demo._claim(output)
    (output / "data").symlink_to(elsewhere)
    demo._claim(output)
    assert (elsewhere / "image.png").exists()
    assert not (output / "data").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(DataError, match="not an earlier demo"):
        demo.run_demo(tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(DataError, match="not an earlier demo"):
        demo.run_demo(tmp_path / "report.html")


def test_images_inside_the_output_folder_are_refused(tmp_path):
    demo._claim(tmp_path / "demo")
    (tmp_path / "demo" / "data").mkdir()
    with pytest.raises(DataError, match="holds the images"):
        demo.run_demo(tmp_path / "demo", data=tmp_path / "demo" / "data")
    assert (tmp_path / "demo" / "data").is_dir()
