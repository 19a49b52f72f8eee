"""Categories of one model that look at parts of the pictures of their own."""

from copy import copy
from itertools import pairwise

import numpy as np
import pytest

from invad.data.region import Region, inside_of
from invad.detector.detector import Detector
from invad.errors import ConfigError, DataError
from invad.evaluation.evaluate import evaluate
from invad.records import Sample
from invad.scoring.rates import Rates

RIGHT = Region(frame=(64, 64), ignore=(((40.0, 0.0), (64.0, 0.0), (64.0, 64.0), (40.0, 64.0)),))
LEFT = Region(frame=(64, 64), ignore=(((0.0, 0.0), (24.0, 0.0), (24.0, 64.0), (0.0, 64.0)),))
BOTTOM = ((0.0, 48.0), (64.0, 48.0), (64.0, 64.0), (0.0, 64.0))
MORE = Region(frame=(64, 64), ignore=(*LEFT.ignore, BOTTOM))


def lit(pixels):
    """As the parts of the category `b`: brighter."""
    return (pixels * 0.7 + 70).astype(np.uint8)


@pytest.fixture(scope="module")
def parts(write_parts, tmp_path_factory):
    """Samples of the categories a and b."""
    root = tmp_path_factory.mktemp("ab")
    samples = write_parts(root / "a", 30, category="a")
    return samples + write_parts(root / "b", 30, first=100, category="b")


@pytest.fixture(scope="module")
def both(parts, short_detector, make_backbone):
    """A model in which a ignores the right and b the left. Not to be calibrated."""
    settings = short_detector.info.settings
    regions = {"a": RIGHT, "b": LEFT}
    return Detector.fit(parts, preset=settings, backbone=make_backbone(), device="cpu", regions=regions)


def scribbled(pixels, region):
    noise = np.random.default_rng(1).integers(0, 256, pixels.shape, np.uint8)
    return np.where(inside_of(region)[..., None], pixels, noise)


def test_the_only_category_of_a_model_may_have_a_region(short_detector, draw, tmp_path):
    own = copy(short_detector)
    own.calibrate(regions={"part": RIGHT})
    own.save(tmp_path / "model")
    again = Detector.load(tmp_path / "model", device="cpu")
    assert again.predict(draw(400), category="part").score == own.predict(draw(400), category="part").score


def judges(detector):
    return detector, detector.compile()


def test_each_category_ignores_its_own_part(both, draw):
    picture = draw(400)
    for judge in judges(both):
        for category, own, other in (("a", RIGHT, LEFT), ("b", LEFT, RIGHT)):
            plain = judge.predict(picture, category=category)
            there = judge.predict(scribbled(picture, own), category=category)
            assert there.score == pytest.approx(plain.score, abs=1e-5)
            np.testing.assert_allclose(there.anomaly_map, plain.anomaly_map, atol=1e-5)
            assert (plain.anomaly_map[~inside_of(own)] == 0).all()
            assert judge.predict(scribbled(picture, other), category=category).decision == "bad"
            assert judge.region_for(category) == own
            assert (judge.inside_for(category) == inside_of(own)).all()
        # Of a picture whose category nobody says all counts.
        assert judge.region_for(None) is None
        assert judge.predict(scribbled(picture, RIGHT)).decision == "bad"


def test_the_graph_says_the_same_of_a_run_of_several(both, draw):
    compiled = both.compile()
    assert compiled.info.regions == {"a": RIGHT, "b": LEFT}
    assert compiled.info.size_hw == (64, 64)
    pictures = [draw(410), draw(411, defect=True), lit(draw(412))]
    for category in ("a", "b", None):
        for told, found in zip(
            both.predict(pictures, category=category), compiled.judge(pictures, category), strict=True
        ):
            assert found.score == pytest.approx(told.score, rel=1e-4)
            assert found.decision == told.decision
            assert found.p_value == pytest.approx(told.p_value)
            np.testing.assert_allclose(found.anomaly_map, told.anomaly_map, rtol=1e-3, atol=1e-3)
    several = compiled.cell_maps([pictures[0]] * 3, ["a", "b", ""])
    for own, category in zip(several, ("a", "b", None), strict=True):
        np.testing.assert_allclose(
            own, both.predict(pictures[0], category=category).cells, rtol=1e-3, atol=1e-3
        )


def test_limits_are_of_the_category_and_its_cells(both, parts):
    for name, view in both._views.items():
        cells = len(view.model.extract.inspected.cells_n)
        assert view.stats[name].median_Lhw.shape[1:] == (1, cells)
        assert set(view.kept.categories) == {name}
    assert both.calibrations["a"].scores != both.calibrations["b"].scores
    assert any("category a: the good images" in line and "in sight" in line for line in both.warnings())


def test_it_is_saved_and_loaded(both, draw, tmp_path):
    copy(both).save(tmp_path / "model")
    loaded = Detector.load(tmp_path / "model", device="cpu")
    assert loaded.regions == both.regions
    picture = draw(420)
    for category in ("a", "b", None):
        assert (
            loaded.predict(picture, category=category).score == both.predict(picture, category=category).score
        )
    limits = loaded.calibrations["a"].score_limits()
    before = loaded.predict(picture, category="b").score
    loaded.calibrate(regions={"b": MORE})
    assert loaded.regions == {"a": RIGHT, "b": MORE}
    assert loaded.calibrations["a"].score_limits() == limits  # what was not asked stays
    assert loaded.predict(picture, category="b").score != before
    loaded.calibrate(regions={"b": "none"})
    assert loaded.regions == {"a": RIGHT}
    assert loaded.predict(scribbled(picture, LEFT), category="b").decision == "bad"
    assert loaded.calibrations["b"].n == both.calibrations["b"].n


def test_good_images_are_read_by_the_region_of_their_category(both, write_parts, draw, tmp_path):
    model = copy(both)
    good = write_parts(tmp_path / "a", 14, first=500, category="a")
    good += write_parts(tmp_path / "b", 14, first=600, category="b")
    model.calibrate(good)
    assert model.regions == both.regions
    assert not any("in sight" in line for line in model.warnings())
    assert {name: one.n for name, one in model.calibrations.items()} == {"": 28, "a": 14, "b": 14}
    model.save(tmp_path / "model")
    again = Detector.load(tmp_path / "model", device="cpu")
    picture = draw(430)
    again.calibrate(rates=Rates(review=0.2, bad=0.1))
    assert again.calibrations["a"].rates == Rates(review=0.2, bad=0.1)
    np.testing.assert_allclose(again.calibrations["a"].scores, model.calibrations["a"].scores, rtol=5e-3)
    assert again.predict(picture, category="a").score == pytest.approx(
        model.predict(picture, category="a").score, rel=5e-3
    )
    # Read without its left, b may look at less, and by what all were read with at more.
    again.calibrate(regions={"b": MORE})
    again.calibrate(regions={"b": RIGHT})
    plain, there = again.predict([picture, scribbled(picture, RIGHT)], category="b")
    assert there.score == pytest.approx(plain.score, abs=1e-5)
    with pytest.raises(DataError, match=r"category b: .* 0 of the images are of it; .* --roi b=none"):
        model.calibrate(good[:14])
    assert model.calibrations["b"].n == 14


def test_what_cannot_be_is_said_in_one_line(
    both, parts, short_detector, make_backbone, tmp_path, write_parts
):
    settings = short_detector.info.settings

    def fit(**options):
        return Detector.fit(parts, preset=settings, backbone=make_backbone(), device="cpu", **options)

    with pytest.raises(ConfigError, match="no category 'c' to give a region; choose from a, b"):
        fit(regions={"c": LEFT})
    with pytest.raises(ConfigError, match="goes with models of single pictures"):
        fit(regions={"a": LEFT}, parts="names")
    with pytest.raises(ConfigError, match="no category 'c'; choose from a, b"):
        copy(both).calibrate(regions={"c": LEFT})
    wide = Region(frame=(80, 64), ignore=(((0.0, 0.0), (9.0, 0.0), (9.0, 9.0)),))
    with pytest.raises(DataError, match="category a: the region is drawn on pictures of 80 x 64 pixels"):
        copy(both).calibrate(regions={"a": wide})
    picture = np.zeros((64, 80, 3), np.uint8)
    for judge in judges(both):
        with pytest.raises(DataError, match="80 x 64 pixels"):
            judge.predict(picture, category="a")


def test_evaluation_leaves_out_what_the_category_ignores(both, draw, tmp_path):
    from PIL import Image

    samples = []
    for category in ("a", "b"):
        for seed in range(4):
            path = tmp_path / f"{category}{seed}.png"
            Image.fromarray(draw(700 + seed, defect=seed > 1)).save(path)
            mask = tmp_path / f"{category}{seed}_mask.png"
            inside = np.zeros((64, 64), np.uint8)
            inside[32:44, 50:60] = 255
            Image.fromarray(inside).save(mask)
            kind, where = ("spot", mask) if seed > 1 else ("good", None)
            samples.append(Sample(path=path, category=category, defect=kind, mask_path=where))
    found = evaluate(both, samples)
    assert found.metrics["defects_ignored"] == 2  # those of a, on the right
    assert {path.rsplit("/", 1)[-1] for path in found.metrics["images_ignored"]} == {"a2.png", "a3.png"}
    maps = {one.sample.category: one.anomaly_map for one in found.scored}
    assert (maps["a"][:, 44:] == 0).all()
    assert (maps["b"][:, :20] == 0).all()


def test_a_region_of_all_leaves_each_category_its_own_look(both):
    """A picture gets the mean of its category in place of what is ignored, and not that of all."""
    model = copy(both)
    model.calibrate(region=RIGHT, regions={"b": "none"})
    assert (model.region, model.regions) == (RIGHT, {"a": RIGHT, "b": RIGHT})
    fills = [model.looking_at(name).model.extract.inspected.fill_3HW for name in ("a", "b", None)]
    assert not any((one == other).all() for one, other in pairwise(fills))
    assert sum("in sight" in line for line in model.warnings()) == 1
    assert sum("mean of all categories" in line for line in model.warnings()) == 1
    model.calibrate(regions={"a": LEFT})
    assert model.regions == {"a": LEFT, "b": RIGHT}
    model.calibrate(region="none")
    assert (model.region, model.regions) == (None, {"a": LEFT})
    assert not any("mean of all categories" in line for line in model.warnings())
