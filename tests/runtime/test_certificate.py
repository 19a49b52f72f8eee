"""A bundle is compared again with what PyTorch said, and how many decisions may be others."""

import json
from dataclasses import replace

import numpy as np
import pytest

from invad import runtime
from invad.errors import ArtifactError
from invad.records import Prediction
from invad.runtime.bundle import ExportInfo
from invad.runtime.certificate import TOLERANCES, Certificate, Comparison, certify, compare
from invad.runtime.engines import Options, open_engine
from invad.scoring.calibration import Calibration
from invad.scoring.rates import Rates
from invad.system.plain import from_plain

pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")


def test_verify_sees_a_changed_expectation(own_bundle):
    expected = own_bundle / "probes" / "expected.json"
    told = json.loads(expected.read_text())
    told["probes"][1]["score"] += 0.5
    expected.write_text(json.dumps(told))
    with pytest.raises(ArtifactError, match=r"expected\.json: altered or truncated"):
        runtime.load(own_bundle)
    found = certify(_unchecked(own_bundle), own_bundle)
    assert found.problems[0].startswith("probe tall_grey.png: score")
    assert not found.to_plain()["passed"]


def _unchecked(folder):
    """The detector of a bundle whose files were changed after writing."""
    plain = json.loads((folder / "bundle.json").read_text())
    del plain["files"], plain["content_hash"], plain["format_version"]
    info = from_plain(ExportInfo, plain, "bundle.json")
    return runtime.ExportedDetector(info, open_engine("auto", "onnx", folder / info.graph, Options()))


PROBE = Comparison(
    probe="a.png",
    category="",
    score=1.0,
    score_found=1.0,
    p_value=0.5,
    p_value_found=0.5,
    decision="good",
    decision_found="good",
    map_difference=0.0,
    map_peak=1.0,
    n=20,
)


LIMITS = Calibration(
    scores=tuple(range(20)), peaks=tuple(float(i % 10) for i in range(20)), rates=Rates(review=0.3, bad=0.05)
)


def good(height):
    """What is said of a good image whose map is flat."""
    level = np.full((100, 100), height, np.float32)
    return Prediction(path=None, category=None, score=1.0, p_value=0.5, decision="good", anomaly_map=level)


@pytest.mark.parametrize(
    ("pixels", "value", "fine"), [(9, 5, True), (30, 5, False), (1, np.nan, False), (1, np.inf, False)]
)
def test_a_few_pixels_of_a_map_may_differ_by_more(pixels, value, fine):
    told = good(0.0)
    other = told.anomaly_map.copy()
    other.flat[:pixels] = value
    found = compare("a.png", LIMITS, told, replace(told, anomaly_map=other))
    assert (found.problem(TOLERANCES["fp32"]) is None) == fine


def test_a_map_is_as_wrong_as_its_limits_say():
    """Of bottles int8 drew 2.99 more beside a map whose peak was 2.62, where 5.2 is called bad."""
    told = good(2.62)
    other = replace(told, anomaly_map=told.anomaly_map + np.float32(2.99))
    assert LIMITS.map_limits()[1] == 9.0
    assert compare("a.png", LIMITS, told, other).problem(TOLERANCES["int8"]) is None
    low = replace(LIMITS, peaks=tuple(peak / 10 for peak in LIMITS.peaks))
    problem = compare("a.png", low, told, other).problem(TOLERANCES["int8"])
    assert problem == "map off by 2.99 at a peak of 2.62 (bad above 0.9)"


def test_below_zero_a_map_may_say_anything():
    """Of a bottle int8 drew 2.0 where PyTorch had -4.3, at the border of a part whose cells hardly differ."""
    told = good(-4.3)
    above = compare("a.png", LIMITS, told, replace(told, anomaly_map=np.full_like(told.anomaly_map, 2.0)))
    assert (above.map_difference, above.map_peak) == (2.0, 0.0)
    below = replace(told, anomaly_map=np.full_like(told.anomaly_map, -1.0))
    assert compare("a.png", LIMITS, told, below).problem(TOLERANCES["fp32"]) is None


def made(changed, images, share, earlier=0):
    """A certificate over so many images; the last `earlier` were compared when the bundle was made."""
    rows = [replace(PROBE, decision_found="review")] * changed + [PROBE] * (images - changed)
    return Certificate(
        engine="onnxruntime",
        engine_version="1",
        device="cpu",
        precision="int8",
        tolerance=replace(TOLERANCES["int8"], changed=share),
        rows=tuple(rows[: images - earlier]),
        earlier=tuple(rows[images - earlier :]),
    )


@pytest.mark.parametrize(
    ("images", "most"),
    [(1, 0), (5, 0), (6, 1), (35, 1), (36, 2), (39, 2), (67, 2), (82, 2), (83, 3), (137, 3)],
)
def test_as_many_decisions_may_change_as_chance_explains(images, most):
    assert made(most, images, 0.01).problems == []
    (problem,) = made(most + 1, images, 0.01).problems
    assert problem.startswith(f"{most + 1} of {images} decisions changed, more than chance makes of 1.00%")


def test_verify_counts_over_what_the_export_counted():
    """Of eight probes one may not be judged alone: two of 39 are two of 39 wherever they were compared."""
    assert made(2, 39, 0.01, earlier=31).problems == made(2, 39, 0.01, earlier=38).problems == []
    assert made(3, 39, 0.01, earlier=31).problems


@pytest.mark.parametrize(("share", "fine"), [(0.0, False), (1.0, True), (0.5, True), (1e-6, False)])
def test_the_ends_of_the_share(share, fine):
    assert made(0, 100, share).problems == []
    assert (made(1, 100, share).problems == []) == fine


def test_the_chance_is_that_of_scipy():
    scipy = pytest.importorskip("scipy.stats")
    for share in (0.01, 0.1, 0.9):
        for images in (1, 39, 136):
            for changed in range(images + 1):
                chance = scipy.binom.sf(changed - 1, images, share)
                allowed = replace(TOLERANCES["int8"], changed=share).allows(changed, images)
                assert allowed == (chance >= 0.05)
