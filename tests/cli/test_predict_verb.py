"""Scoring images from the command line."""

import csv
import json

import pytest
from PIL import Image

from invad.cli.predict import expand, overlay_names
from invad.detector.detector import Detector
from invad.errors import ConfigError, DataError


@pytest.fixture
def tests(parts):
    return parts / "gasket" / "test"


@pytest.fixture
def incoming(own_parts):
    """Three images; the middle one is truncated."""
    folder = own_parts / "gasket" / "test" / "good"
    for path in sorted(folder.iterdir())[3:]:
        path.unlink()
    broken = folder / "001.png"
    broken.write_bytes(broken.read_bytes()[:300])
    return folder


def test_the_rows_are_what_the_library_says(run, model, tests, tmp_path):
    result = run("predict", model, tests, "--json", tmp_path / "p.json", "--csv", tmp_path / "p.csv")
    assert result.exit_code == 0
    told = json.loads((tmp_path / "p.json").read_text())
    assert list(told) == ["model", "content_hash", "images"]
    assert [list(row) for row in told["images"]] == [["path", "score", "p_value", "decision"]] * 9
    detector = Detector.load(model)
    for row in told["images"]:
        alone = detector.predict(row["path"])
        assert (row["score"], row["p_value"], row["decision"]) == (alone.score, alone.p_value, alone.decision)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [row["path"] for row in told["images"]]
    assert [float(row["score"]) for row in rows] == [row["score"] for row in told["images"]]
    assert set(rows[0]) == {"path", "score", "p_value", "decision", "error"}
    lines = result.stdout.splitlines()
    assert len(lines) == 10
    assert all(row["path"] in line for row, line in zip(told["images"], lines, strict=False))
    assert lines[-1].startswith("9 images: ")


def test_standard_output_is_json_alone_when_asked(run, model, tests):
    result = run("predict", model, tests / "good" / "000.png", "--json", "-")
    assert [row["path"] for row in json.loads(result.stdout)["images"]] == [str(tests / "good" / "000.png")]
    assert "1 image: " in result.stderr


def test_an_unreadable_image_gets_a_row_and_the_rest_goes_on(run, model, incoming):
    result = run("predict", model, incoming, "--json", "-")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)["images"]
    assert [row["path"] for row in rows] == [str(incoming / f"00{i}.png") for i in range(3)]
    assert rows[1] == {
        "path": str(incoming / "001.png"),
        "score": None,
        "p_value": None,
        "decision": None,
        "error": rows[1]["error"],
    }
    assert str(incoming / "001.png") in rows[1]["error"]
    assert "1 unreadable" in result.stderr


def test_strict_stops_at_the_unreadable_image(run, model, incoming, tmp_path, one_line):
    result = run("predict", model, incoming, "--strict", "--json", tmp_path / "p.json")
    assert result.exit_code == 1
    one_line(result, incoming / "001.png")
    assert not (tmp_path / "p.json").exists()


def test_nothing_readable_is_an_error(run, model, incoming, tmp_path, one_line):
    result = run("predict", model, incoming / "001.png", tmp_path / "none.png")
    assert result.exit_code == 1
    one_line(result, "none of 2 images could be read", incoming / "001.png")
    assert "none.png: no such file" in result.stdout


def test_fail_on_tells_by_the_status(run, own_model, tests):
    """Limits for absurd rates make sure of both decisions."""
    training = tests.parent / "train" / "good"

    def status(bad_rate, review_rate, *options):
        rates = ["--false-alarm-rate", bad_rate, "--review-rate", review_rate]
        assert run("calibrate", own_model, training, *rates).exit_code == 0
        return run("predict", own_model, tests, *options).exit_code

    assert status(0.9, 0.9, "--fail-on", "review") == 3
    assert status(0.9, 0.95) == 0
    assert run("predict", own_model, tests, "--fail-on", "bad").exit_code == 3
    assert run("predict", own_model, tests, "--fail-on", "review").exit_code == 3
    assert status(1e-99, 0.9, "--fail-on", "bad") == 0
    assert run("predict", own_model, tests, "--fail-on", "review").exit_code == 3
    assert status(1e-99, 1e-99, "--fail-on", "review") == 0


def test_overlays_are_written_and_not_taken_for_input(run, model, own_parts):
    folder = own_parts / "gasket" / "test"
    for _ in range(2):
        result = run("predict", model, folder, "--output", folder / "seen", "--json", "-")
        assert len(json.loads(result.stdout)["images"]) == 9
    names = sorted(path.name for path in (folder / "seen").iterdir())
    assert len(names) == 9
    assert "good_000_overlay.png" in names
    with Image.open(folder / "seen" / names[0]) as picture:
        assert picture.width > 2 * 64


def test_overlays_never_land_among_the_images(run, model, own_parts, one_line):
    folder = own_parts / "gasket" / "test" / "good"
    result = run("predict", model, folder, "--output", own_parts)
    assert result.exit_code == 2
    one_line(result, "--output", "another folder")
    assert len(list(folder.iterdir())) == 4


def test_paths_are_expanded_once_in_order(tests, tmp_path):
    images = [path for path, _ in expand([tests / "good", tests / "good" / "002.png"], None)]
    assert [path.name for path in images] == ["000.png", "001.png", "002.png", "003.png"]
    with pytest.raises(DataError, match="no images in it"):
        list(expand([tmp_path], None))
    with pytest.raises(ConfigError, match="--output"):
        list(expand([tests], tests))


def test_overlay_names_never_meet(tmp_path):
    below = ["a/b.png", "a_b.png", "a/b.PNG", "A_B.jpg", "a_b_2.png", "a_b_overlay.png"]
    names = overlay_names([(tmp_path, type(tmp_path)(name)) for name in below])
    assert names[0] == "a_b_overlay.png"
    assert len({name.casefold() for name in names}) == len(below)


def test_an_unknown_category_is_refused(run, model, tests, one_line):
    result = run("predict", model, tests, "--category", "screw")
    assert result.exit_code == 2
    one_line(result, model, "no category 'screw'", "gasket")
    assert run("predict", model, tests / "good" / "000.png", "--category", "gasket").exit_code == 0


def test_a_name_that_is_no_text_does_not_end_the_run(run_outside, model, tests, tmp_path):
    odd = tmp_path / "part-\udcff.png"
    odd.write_bytes((tests / "good" / "000.png").read_bytes())
    result = run_outside("predict", model, odd, "--csv", tmp_path / "p.csv", "--json", tmp_path / "p.json")
    assert (result.returncode, "Traceback" in result.stderr) == (0, False)
    assert json.loads((tmp_path / "p.json").read_text())["images"][0]["path"] == str(odd)
    assert "part-?.png" in result.stdout


def test_an_archive_needs_a_folder_and_one_source(run, model, tests, one_line):
    one_line(run("predict", model, tests, "--engine", "ray"), "--output")
    one_line(run("predict", model, tests, tests, "--engine", "ray", "--output", "x"), "not 2 paths")
    one_line(run("predict", model, tests, "--engine", "ray", "--csv", "x.csv"), "--csv")
