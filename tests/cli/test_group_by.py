"""Groups from the command line to the limits: what `--group-by` says reaches training and calibration."""

import json
from dataclasses import replace

import numpy as np
import pytest

from invad import Detector
from invad.data.images import read_image
from invad.runtime.detector import grey_levels
from invad.scoring.rates import POOLED

LAST_DIGIT = r"(\d)\.png$"
"""Of 000 to 011 two images each share 0 and 1."""


@pytest.fixture(scope="module")
def grouped(parts, run, tmp_path_factory):
    model = tmp_path_factory.mktemp("grouped") / "model"
    options = ["--preset", "fast", "--steps", 1, "--group-by", LAST_DIGIT, "--json", "-"]
    result = run("train", parts, "--output", model, *options)
    assert result.exit_code == 0
    return model, json.loads(result.stdout)


def test_a_training_counts_the_groups_that_are_said(grouped):
    model, said = grouped
    assert said["normals"] == {"gasket": 12}
    assert said["groups"] == {"gasket": 10}
    made = Detector.load(model).calibrations[POOLED]
    assert (made.n, len(made.scores)) == (10, 12)
    assert sorted(np.bincount(made.groups)) == [1] * 8 + [2] * 2


def test_the_graph_counts_groups_as_the_detector_does(grouped, parts):
    detector = Detector.load(grouped[0])
    pixels = [read_image(path) for path in sorted(parts.rglob("train/good/*.png"))]

    def run_graph():
        exported = detector.compile()
        numbers = np.zeros(len(pixels), np.int64)
        return exported.engine.run(*grey_levels(pixels, exported.info.window), numbers)

    # Their own scores, half of which are of one group.
    scores = tuple(sorted(float(score) for score in run_graph().score))
    groups = tuple(0 if i % 2 else i + 1 for i in range(len(scores)))
    made = replace(detector.calibrations[POOLED], scores=scores, groups=groups)
    detector.calibrations = dict.fromkeys(detector.calibrations, made)
    outputs = run_graph()
    expected = [made.p_value(float(score)) for score in outputs.score]
    np.testing.assert_allclose(outputs.p_value, expected, rtol=1e-5)
    plain = replace(made, groups=())
    assert expected != [plain.p_value(float(score)) for score in outputs.score]


def test_a_calibration_counts_the_groups_that_are_said(grouped, own_parts, run):
    fresh = next(own_parts.rglob("test/good"))
    result = run("calibrate", grouped[0], fresh, "--group-by", r"00([0-9])", "--json", "-")
    assert json.loads(result.stdout)["n"] == 4
    result = run("calibrate", grouped[0], fresh, "--group-by", r"0(0|1)", "--json", "-")
    assert result.exit_code == 1
    assert "all 4 images are of one group" in result.stderr


def test_one_group_alone_is_refused(parts, run, tmp_path, one_line):
    result = run("train", parts, "--output", tmp_path / "m", "--steps", 1, "--group-by", "folder")
    assert result.exit_code == 1
    assert "all 12 images are of one group" in one_line(result)
