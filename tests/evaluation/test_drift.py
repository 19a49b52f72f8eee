"""Drift of written rows, by the library and by the command line."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from invad.cli.app import app
from invad.errors import DataError
from invad.evaluation.drift import read_scores, watch
from invad.scoring.calibration import Calibration
from invad.scoring.drift import DriftSettings
from invad.scoring.rates import Rates


def write(path, scores):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "score", "p_value", "decision", "error"))
        rows.writerows((f"{i:05}.png", score, "", "", "") for i, score in enumerate(scores))
    return path


@pytest.fixture
def line(tmp_path):
    """2,500 parts whose scores rise by one standard deviation after the first 1,500."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=2500) + (np.arange(2500) >= 1500)
    return write(tmp_path / "scores.csv", scores)


def run(*words):
    return CliRunner().invoke(app, ["drift", *map(str, words)])


def test_a_change_is_named_with_its_date(line, tmp_path):
    done = run(line, "--csv", tmp_path / "series.csv", "--json", tmp_path / "found.json")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["parts"], found["every"], found["notice"]) == (2000, 1, True)
    assert 1000 < found["alarm"] < 1250
    assert abs(found["since"] - 1000) < 100
    assert found["effect"] < 0.4
    assert found["flagged"] > found["flagged_limit"]
    assert "ALARM: parts look different, probably since 01" in done.stdout
    assert "more parts are flagged" in done.stdout
    with (tmp_path / "series.csv").open(newline="") as file:
        series = list(csv.DictReader(file))
    assert [row["path"] for row in series] == [f"{i:05}.png" for i in range(500, 2500)]
    assert [row["alarm"] for row in series].index("1") == found["alarm"]


def test_a_line_that_stays_is_left_alone(tmp_path):
    path = write(tmp_path / "scores.csv", np.random.default_rng(1).normal(size=3000))
    done = run(path, "--json", "-")
    found = json.loads(done.stdout)
    assert (found["alarm"], found["since"], found["autocorrelation"] < 0.1) == (None, None, True)
    assert found["flagged"] <= found["flagged_limit"]


def test_the_first_parts_say_how_alike_neighbours_are_and_a_drift_does_not():
    rng = np.random.default_rng(2)
    alike = np.repeat(rng.normal(size=500), 5)
    rows = [(str(i), score) for i, score in enumerate(alike)]
    found = watch(rows, None, DriftSettings(), reference=1000)
    assert 4 <= found.every <= 6
    assert found.alarm is None
    assert sum(reading.used for reading in found.readings) < 1500 / 3
    steep = rng.normal(size=2000) + np.linspace(0, 8, 2000)
    assert watch([(str(i), s) for i, s in enumerate(steep)], None, DriftSettings(), reference=200).every == 1


def test_a_model_brings_its_own_reference():
    rng = np.random.default_rng(3)
    scores = tuple(rng.normal(size=200).tolist())
    calibration = Calibration(scores=scores, peaks=scores, rates=Rates(review=0.05, bad=0.01))
    rows = [(str(i), score) for i, score in enumerate(rng.normal(size=800).tolist())]
    found = watch(rows, calibration, DriftSettings())
    assert (found.reference, found.limit, found.alarm) == (200, calibration.score_limits()[0], None)
    assert len(found.readings) == 800


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n", "has no column 'score'"),
        ("", "has no column 'score'"),
        ("path,score\nx,high\n", "line 2"),
        ("path,score\nx,nan\n", "line 2"),
    ],
)
def test_files_that_are_none(content, words, tmp_path):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        read_scores(tmp_path / "a.csv")


def test_errors_are_one_line(tmp_path, line):
    for words in ((tmp_path / "none.csv",), (line, "--reference", 2500), (line, "--model", tmp_path)):
        done = run(*words)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    (tmp_path / "empty.csv").write_text("path,score\n")
    assert "no row has a score" in run(tmp_path / "empty.csv").stderr
