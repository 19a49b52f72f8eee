"""`invad train --moved`: for parts that lie loosely."""

import json

import pytest

from invad.detector.detector import Detector


def test_the_command_says_and_keeps_what_was_moved(run, parts, tmp_path):
    result = run("train", parts, "--output", tmp_path / "model", "--preset", "fast",
                 "--moved", "0.02", "--json", tmp_path / "told.json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "Learned from 12 good images and a copy of each, moved by up to 2.0%, in" in result.stdout
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["moved"], told["normals"], told["held_out"]) == (0.02, {"gasket": 12}, {"gasket": 12})
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| moved copies | one of each image, by up to 2.0% of its sides and 2.3 degrees |" in card
    assert "| normal images | gasket 12 |" in card
    report = tmp_path / "report.html"
    assert run("evaluate", tmp_path / "model", parts, "--report", report).exit_code == 0
    assert "one of each image, by up to 2.0% of its sides and 2.3 degrees" in report.read_text()
    assert Detector.load(tmp_path / "model").info.settings.moved == 0.02


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--moved", "2"], "moved = 2.0: give a share from 0 to 0.1, such as 0.02"),
        (["--moved", "0.02", "--tile", "32"], "copies are moved of whole pictures only"),
    ],
)
def test_what_cannot_be_moved_is_one_line(run, parts, tmp_path, options, told, one_line):
    result = run("train", parts, "--output", tmp_path / "model", "--preset", "fast", *options)
    assert result.exit_code == 2
    one_line(result, told)
    assert not (tmp_path / "model").exists()
