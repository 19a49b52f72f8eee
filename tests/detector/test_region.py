"""A region of interest acts inside the score: in training, calibration, prediction and the exported graph."""

import json
from copy import copy

import numpy as np
import pytest
from PIL import Image

from invad.data.region import Region, inside_of
from invad.detector.detector import Detector
from invad.errors import ConfigError, DataError
from invad.system.plain import to_plain

LEFT = Region(frame=(64, 64), ignore=(((0.0, 0.0), (22.0, 0.0), (22.0, 64.0), (0.0, 64.0)),))
MORE = Region(frame=(64, 64), ignore=(((0.0, 0.0), (30.0, 0.0), (30.0, 64.0), (0.0, 64.0)),))
CORNER = Region(frame=(64, 64), ignore=(((40.0, 40.0), (64.0, 40.0), (64.0, 64.0), (40.0, 64.0)),))


@pytest.fixture(scope="module")
def partial(good_parts, tiny_preset, make_backbone):
    """Trained without the left third of its pictures. Not to be calibrated."""
    return Detector.fit(
        good_parts[:24], preset=tiny_preset, backbone=make_backbone(), device="cpu", region=LEFT
    )


@pytest.fixture
def own(partial):
    return copy(partial)


def scribbled(picture, region, seed=0):
    """The picture with noise wherever it is ignored."""
    noise = np.random.default_rng(seed).integers(0, 256, picture.shape, np.uint8)
    return np.where(inside_of(region)[..., None], picture, noise)


def test_what_is_ignored_changes_nothing(partial, draw):
    picture = draw(200)
    one, other = partial.predict([picture, scribbled(picture, LEFT)])
    assert other.score == pytest.approx(one.score, abs=1e-6)
    assert other.p_value == one.p_value
    np.testing.assert_allclose(other.anomaly_map, one.anomaly_map, atol=1e-6)
    assert (one.anomaly_map[~inside_of(LEFT)] == 0).all()
    assert (one.anomaly_map[inside_of(LEFT)] != 0).mean() > 0.9


def test_what_counts_still_shows(partial, draw):
    scores = [partial.predict(draw(i, defect)).score for i in range(210, 214) for defect in (False, True)]
    assert min(scores[1::2]) > max(scores[::2])


def test_the_graph_says_the_same(partial, draw):
    compiled = partial.compile()
    assert compiled.info.size_hw == (64, 64)
    assert compiled.info.region == LEFT
    for picture in (draw(220), draw(221, defect=True)):
        told, found, noisy = (
            partial.predict(picture),
            compiled.predict(picture),
            compiled.predict(scribbled(picture, LEFT)),
        )
        assert found.score == pytest.approx(told.score, rel=1e-4)
        assert found.decision == told.decision
        np.testing.assert_allclose(found.anomaly_map, told.anomaly_map, atol=1e-3)
        assert noisy.score == pytest.approx(found.score, abs=1e-6)
        np.testing.assert_allclose(noisy.anomaly_map, found.anomaly_map, atol=1e-6)
    with pytest.raises(ConfigError, match="drawn on pictures of 64 x 64 pixels"):
        partial.compile(size_hw=(32, 32))


def test_pictures_of_another_size_are_refused(
    partial, draw, good_parts, tiny_preset, make_backbone, tmp_path
):
    Image.fromarray(draw(0, size=(80, 64))).save(tmp_path / "wide.png")
    said = r"wide.png: 80 x 64 pixels, and the region of interest is drawn on pictures of 64 x 64"
    for judge in (partial, partial.compile()):
        (refused,) = judge.predict_many([tmp_path / "wide.png"])
        assert isinstance(refused, DataError)
        with pytest.raises(DataError, match=said):
            judge.predict(tmp_path / "wide.png")
    other = Region(frame=(80, 64), ignore=(((0.0, 0.0), (9.0, 0.0), (9.0, 9.0)),))
    with pytest.raises(DataError, match=r"64 x 64 pixels, and the region of interest is drawn on .* 80 x 64"):
        Detector.fit(good_parts[:8], preset=tiny_preset, backbone=make_backbone(), region=other)
    with pytest.raises(DataError, match=r"drawn on pictures of 80 x 64 pixels, .* have 64 x 64"):
        copy(partial).calibrate(region=other)


def test_it_is_saved_and_loaded(partial, draw, tmp_path):
    partial.save(tmp_path / "model")
    loaded = Detector.load(tmp_path / "model", device="cpu")
    assert loaded.region == LEFT
    picture = draw(230)
    assert loaded.predict(picture).score == partial.predict(picture).score
    assert loaded.kept.region == LEFT
    # Maps of half precision stand for those of the training.
    before = loaded.calibrations[""].scores
    loaded.calibrate(region=LEFT)
    np.testing.assert_allclose(loaded.calibrations[""].scores, before, rtol=2e-3)


def test_a_region_is_taken_and_taken_away_without_pictures(detector, draw, tmp_path):
    model = copy(detector)
    picture = draw(240)
    before = model.predict(picture)
    file = tmp_path / "region.json"
    file.write_text(json.dumps(to_plain(CORNER)))
    model.calibrate(region=str(file))
    assert model.region == CORNER
    assert "with what the region ignores in sight" in model.warnings()[-1]
    cut = model.predict(picture)
    assert (cut.anomaly_map[~inside_of(CORNER)] == 0).all()
    assert model.predict(scribbled(picture, CORNER)).score == pytest.approx(cut.score, abs=1e-6)
    model.save(tmp_path / "model")
    again = Detector.load(tmp_path / "model", device="cpu")
    assert again.predict(picture).score == cut.score
    again.calibrate(region="none")
    assert again.region is None
    assert again.predict(picture).score == pytest.approx(before.score, rel=2e-3)
    assert detector.region is None


def test_kept_maps_may_show_less_but_not_more(own):
    own.calibrate(region=MORE)
    assert own.region == MORE
    assert own.stats[""].median_Lhw.shape[2] < 11 * 16
    for region in ("none", CORNER):
        with pytest.raises(DataError, match="was ignored when the model's good images were read"):
            own.calibrate(region=region)
    assert own.region == MORE
    own.calibrate(region=LEFT)


def test_pictures_bring_back_what_was_ignored(own, write_parts, tmp_path, draw):
    own.calibrate(write_parts(tmp_path, 20, first=300), region="none")
    assert not any("in sight" in line for line in own.warnings())
    assert own.region is None
    assert own.kept.region is None
    assert (own.predict(draw(250)).anomaly_map[:, :20] != 0).any()
    own.calibrate(region=CORNER)
    assert own.calibrations[""].n == 20


def test_rates_change_without_pictures(own):
    from invad.scoring.rates import Rates

    own.calibrate(rates=Rates(review=0.3, bad=0.2))
    assert own.rates == Rates(review=0.3, bad=0.2)
    assert own.region == LEFT


def test_statistics_are_of_the_cells_that_count(partial):
    cells = len(partial.model.extract.inspected.cells_n)
    rows, columns = partial.grid_hw
    assert 0 < cells < rows * columns
    assert partial.stats[""].median_Lhw.shape[1:] == (1, cells)
    assert partial.kept.maps_NLhw.shape[2:] == (1, cells)
