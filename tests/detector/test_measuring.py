"""A model that learned sizes tells them, also when it was saved or compiled."""

from copy import copy

import numpy as np
import pytest

from invad.detector.detector import Detector
from invad.detector.measuring import learn_sizes
from invad.errors import DataError


@pytest.fixture(scope="module")
def sized(detector, good_parts):
    """A copy of the detector that has seen drawings."""
    own = copy(detector)
    learn_sizes(own, good_parts[:6], drawings=50)
    return own


def test_what_was_learned_is_kept_wherever_the_model_goes(sized, detector, draw, tmp_path):
    assert detector.sizes is None
    assert 40 <= sized.sizes.drawings <= 50
    picture = draw(3).copy()
    picture[20:44, 24:40] = 250
    found = sized.defects(sized.predict(picture))
    assert found
    assert found[0].size_of == "defect"
    assert detector.defects(detector.predict(picture))[0].size_of == "place"
    sized.save(tmp_path / "model")
    loaded = Detector.load(tmp_path / "model")
    assert loaded.sizes == sized.sizes
    assert loaded.defects(loaded.predict(picture)) == found
    compiled = sized.compile(size_hw=(64, 64))
    own = compiled.defects(compiled.predict(picture))
    assert own[0].size_of == "defect"
    assert own[0].length_px == pytest.approx(found[0].length_px, abs=0.5)


def test_the_same_drawings_teach_the_same(sized, detector, good_parts):
    again = copy(detector)
    assert learn_sizes(again, good_parts[:6], drawings=50) == sized.sizes


def test_a_model_without_pictures_or_eyes_learns_nothing(detector, good_parts, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError):
        learn_sizes(copy(detector), tmp_path)
    blind = copy(detector)
    blind.calibrations = {
        name: made.__class__(scores=made.scores, peaks=tuple(np.full(len(made.peaks), 1e9)), rates=made.rates)
        for name, made in detector.calibrations.items()
    }
    with pytest.raises(DataError, match="0 drawn defects were found"):
        learn_sizes(blind, good_parts[:2], drawings=4)
    assert blind.sizes is None
