"""A model that learned sizes tells them, also when it was saved or compiled."""

from copy import copy

import numpy as np
import pytest

from invad import Sample, TiledDetector
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


def test_a_model_of_tiles_learns_from_the_tiles_that_a_drawing_changes(
    tiled_detector, cloth, draw_cloth, tmp_path, monkeypatch
):
    from invad.runtime.tiled import made_whole

    own = TiledDetector(copy(tiled_detector.inside), tiled_detector.tiled)
    read, run = [], Detector.cell_maps

    def counted(self, pixels, categories):
        read.extend(categories)
        return run(self, pixels, categories)

    monkeypatch.setattr(Detector, "cell_maps", counted)
    samples = [Sample(path=path, category="cloth") for path in sorted((cloth / "train/good").iterdir())[:4]]
    learned = learn_sizes(own, samples, drawings=60)
    assert 40 <= learned.drawings <= 60
    assert len(read) < 120 * len(own.cut((120, 160))) * 0.8
    assert tiled_detector.sizes is None
    picture = draw_cloth(300)
    picture[30:60, 50:90] = 240
    found = own.defects(own.predict(picture))
    assert found[0].size_of == "defect"
    assert abs(found[0].length_px - 50) <= found[0].length_uncertainty_px
    assert tiled_detector.defects(tiled_detector.predict(picture))[0].size_of == "place"
    own.save(tmp_path / "model")
    loaded = TiledDetector.load(tmp_path / "model", device="cpu")
    assert loaded.defects(loaded.predict(picture)) == found
    assert made_whole(own.compile()).sizes == learned


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
