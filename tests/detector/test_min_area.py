"""A smallest area of defects changes decisions together with the limits, in a model and in its graph."""

from copy import copy

import numpy as np
import pytest

from invad.data.region import Region
from invad.detector.detector import Detector
from invad.errors import ConfigError, DataError
from invad.evaluation.evaluate import evaluate
from invad.scoring.rates import Rates
from invad.scoring.shapes import parts_above

CORNER = Region(frame=(64, 64), ignore=(((40.0, 40.0), (64.0, 40.0), (64.0, 64.0), (40.0, 64.0)),))
AREA = 400.0
"""A cell has 256 pixels."""


@pytest.fixture(scope="module")
def sized(detector):
    own = copy(detector)
    own.calibrate(min_area=AREA)
    return own


def test_an_image_is_called_where_a_part_of_that_area_is(sized, draw):
    review, bad = sized.calibrations[""].score_limits()
    assert sized.calibrations[""].map_limits() == (review, bad)
    flagged = 0
    for i in range(800, 812):
        prediction = sized.predict(draw(i, defect=i % 2 == 1))
        largest = max((part.area for part in parts_above(prediction.anomaly_map, review)), default=0)
        if abs(largest - AREA) > 64:  # areas are counted in sixteenths of a cell
            assert (prediction.decision != "good") == (largest >= AREA)
        found = sized.defects(prediction)
        assert all(defect.area_px >= AREA for defect in found)
        assert [defect.defect for defect in found] == list(range(1, len(found) + 1))
        flagged += prediction.decision != "good"
    assert 0 < flagged < 12


def test_the_limits_are_of_the_same_rule(sized, detector):
    own, plain = sized.calibrations[""], detector.calibrations[""]
    assert own.n == plain.n
    assert own.scores == own.peaks
    assert max(own.peaks) < max(plain.peaks)


def test_it_is_saved_loaded_and_taken_away(sized, detector, draw, tmp_path):
    sized.save(tmp_path / "model")
    loaded = Detector.load(tmp_path / "model", device="cpu")
    picture = draw(820, defect=True)
    assert loaded.predict(picture).score == sized.predict(picture).score
    loaded.calibrate(min_area="none")
    assert loaded.smallest is None
    assert loaded.predict(picture).score == pytest.approx(detector.predict(picture).score, rel=2e-3)


def test_the_graph_says_the_same(sized, draw):
    compiled = sized.compile()
    assert compiled.smallest == sized.smallest
    for i in range(830, 834):
        picture = draw(i, defect=i % 2 == 1)
        told, found = sized.predict(picture), compiled.predict(picture)
        assert found.score == pytest.approx(told.score, rel=1e-3, abs=1e-3)
        assert (found.decision, found.p_value) == (told.decision, told.p_value)
        assert len(compiled.defects(found)) == len(sized.defects(told))


def test_an_evaluation_has_the_same_table(sized, write_parts, tmp_path):
    samples = [
        *write_parts(tmp_path / "good", 4, first=850),
        *write_parts(tmp_path / "bad", 4, first=860, defect=True),
    ]
    found = evaluate(sized, samples)
    for one, row in zip(found.scored, found.defects, strict=True):
        assert row == sized.defects(sized.predict(one.sample.path))


def test_it_goes_with_a_region(sized, draw):
    own = copy(sized)
    own.calibrate(region=CORNER)
    assert own.smallest.area == AREA
    prediction = own.predict(draw(840))
    assert np.isfinite(prediction.score)
    assert own.compile().predict(draw(840)).score == pytest.approx(prediction.score, rel=1e-3, abs=1e-3)


def test_limits_by_which_a_picture_of_nothing_passes_are_refused_with_what_was_changed(sized):
    own = copy(sized)
    low = Rates(review=0.05, bad=1e-300)
    region, area = "Let the region count more of the picture", "ake a smaller min_area"
    for options, said in (
        ({"min_area": 300}, f"T{area} or give more good images"),
        ({"region": CORNER}, f"{region} or give more good images"),
        ({"region": CORNER, "min_area": 300}, f"{region}, t{area} or give more good images"),
        ({}, "Take a larger rate or give more good images"),
    ):
        with pytest.raises(DataError, match=rf"the model stays as it was\. {said}$"):
            own.calibrate(rates=low, **options)
    patch = Region(frame=(64, 64), include=(((0.0, 0.0), (20.0, 0.0), (20.0, 18.0), (0.0, 18.0)),))
    with pytest.raises(ConfigError, match="min_area = 400 pixels: the region leaves 360, so no part of it"):
        own.calibrate(region=patch)


def test_less_than_a_cell_is_refused(detector):
    own = copy(detector)
    with pytest.raises(ConfigError, match="a cell of the model covers 256 of the 64 x 64 pixels"):
        own.calibrate(min_area=255)
    assert own.smallest is None
