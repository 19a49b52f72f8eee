"""Models of tiles calibrated without pictures: another region, a smallest area, and what is kept for it."""

from dataclasses import replace

import numpy as np
import pytest

from bundles import altered
from invad import Sample, TiledDetector, evaluate
from invad.data.region import Region
from invad.errors import ConfigError, DataError
from invad.scoring.rates import POOLED, Rates
from invad.scoring.shapes import parts_above

CORNER = Region(frame=(160, 120), ignore=(((90, 50), (160, 50), (160, 120), (90, 120)),))
LARGER = Region(frame=(160, 120), ignore=(((40, 50), (160, 50), (160, 120), (40, 120)),))
AREA = 400.0
"""A cell has 256 pixels."""


@pytest.fixture
def own(tiled_detector, tmp_path):
    """A copy that may be calibrated, read from its folder: what it kept has been there."""
    tiled_detector.save(tmp_path / "model")
    return TiledDetector.load(tmp_path / "model", device="cpu")


def test_a_smallest_area_comes_and_goes_without_pictures(own, tiled_detector, draw_cloth, tmp_path):
    own.calibrate(min_area=AREA)
    assert own.calibrations[POOLED].n == 20
    assert own.calibrations[POOLED].scores == own.calibrations[POOLED].peaks
    review, _ = own.calibrations[POOLED].score_limits()
    flagged = 0
    for i, side in enumerate((8, 8, 24, 24, 40, 40)):
        picture = draw_cloth(300 + i)
        picture[30 : 30 + side, 50 : 50 + side] = 10
        found = own.predict(picture)
        largest = max((part.area for part in parts_above(found.anomaly_map, review)), default=0)
        if abs(largest - AREA) > 64:  # areas are counted in sixteenths of a cell
            assert (found.decision != "good") == (largest >= AREA)
        assert all(defect.area_px >= AREA for defect in own.defects(found))
        flagged += found.decision != "good"
    assert flagged
    own.save(tmp_path / "model")
    again = TiledDetector.load(tmp_path / "model", device="cpu")
    assert again.smallest.area == AREA
    assert "smallest defect | 400 pixels" in (tmp_path / "model/README.md").read_text()
    assert again.predict(draw_cloth(300)).score == own.predict(draw_cloth(300)).score


def test_limits_that_let_a_grey_picture_pass_are_refused(own, tiled_detector):
    own.calibrate(min_area=AREA)
    low = Rates(review=0.05, bad=1e-300)
    said = (
        r"a black picture would be review .* the model stays as it was. Take a larger rate or give more good"
    )
    for options in ({"min_area": "none"}, {}):
        with pytest.raises(DataError, match=said):
            own.calibrate(rates=low, **options)
    with pytest.raises(
        DataError, match=r"Let the region count more of the picture, take a smaller min_area or"
    ):
        own.calibrate(rates=low, region=CORNER, min_area=300)
    assert (own.smallest.area, own.rates, own.region) == (AREA, tiled_detector.rates, None)


def test_limits_of_what_was_kept_are_those_of_the_training(own, tiled_detector):
    own.calibrate(min_area="none")
    before, after = (np.array(one.calibrations[POOLED].scores) for one in (tiled_detector, own))
    np.testing.assert_allclose(after, before, rtol=2e-3, atol=2e-3)


def test_an_area_in_pixels_is_the_same_in_pictures_of_all_sizes(own, draw_cloth):
    own.calibrate(min_area=AREA)
    small = draw_cloth(300)
    assert own.least_pixels((120, 160)) == own.least_pixels((240, 320)) == AREA
    for picture in (small, np.tile(small, (2, 2, 1))):
        picture[30:70, 50:90] = 10
        found = own.predict(picture)
        assert found.decision == "bad"
        assert {one.area_px >= AREA for one in own.defects(found)} == {True}


def test_a_region_comes_without_pictures(own, draw_cloth, cloth):
    code = (70, 120)
    before = own.predict(draw_cloth(300, spot=code))
    assert before.decision == "bad"
    changed = own.calibrate(region=CORNER)
    assert any("read with what the region ignores in sight" in line for line in changed)
    assert own.calibrations[POOLED].n == 20
    assert own.predict(draw_cloth(300, spot=code)).decision == "good"
    counted = own.cut((120, 160)).counted
    assert not counted[2:, 4:].any()  # nor do the cells beside the corner, from row 3 and column 5 on
    assert counted[:2].all()
    assert own.reading(draw_cloth(300))[0] == own.reading(draw_cloth(300))[0]
    assert own.predict(draw_cloth(300, spot=(40, 40))).decision == "bad"
    assert evaluate(own, cloth).metrics["n_anomalous"] > 0
    other = Region(frame=(100, 100), ignore=(((0, 0), (9, 0), (9, 9), (0, 9)),))
    with pytest.raises(DataError, match="a held-out picture: 160 x 120 pixels, and the region of interest"):
        own.calibrate(region=other)
    own.calibrate(region=LARGER, min_area=300)
    assert own.region == LARGER
    own.calibrate(region="none")
    assert own.predict(draw_cloth(300, spot=code)).decision == "bad"


def test_a_code_that_changes_where_it_is_ignored_raises_no_alarm(own, draw_cloth, cloth):
    goods = [Sample(path=path, category="cloth") for path in sorted((cloth / "train/good").iterdir())]
    own.inside.info = replace(own.inside.info, fit=replace(own.inside.info.fit, trained=()))
    plain = [draw_cloth(seed) for seed in range(300, 306)]
    coded = [picture.copy() for picture in plain]
    for seed, picture in enumerate(coded):
        picture[76:92, 112:144] = np.random.default_rng(seed).integers(0, 256, (16, 32, 3))
    assert all(one.decision == "bad" for one in own.predict(coded))
    for normals, most in ((None, 2.0), (goods, 1e-6)):
        own.calibrate(normals, region=CORNER)
        before, after = own.predict(plain), own.predict(coded)
        changes = [abs(one.score - other.score) for one, other in zip(before, after, strict=True)]
        assert max(changes) <= most
        decisions = [one.decision for one in before]
        assert [one.decision for one in after] == decisions
        assert decisions.count("good") >= 5  # one in twenty is called by chance


def test_a_station_may_ask_for_a_region_of_a_model_of_tiles(tiled_detector, draw_cloth):
    from invad.detector.regional import doubts_of, with_region

    made = with_region(tiled_detector, CORNER)
    assert (made.region, tiled_detector.region) == (CORNER, None)
    assert made.predict(draw_cloth(300, spot=(70, 120))).decision == "good"
    assert tiled_detector.predict(draw_cloth(300, spot=(70, 120))).decision == "bad"
    assert "cells beside it do not count" in doubts_of(made)[0]
    assert made.inside.model is tiled_detector.inside.model


def test_tiles_that_were_never_read_are_not_made_up(own, draw_cloth, tmp_path):
    from PIL import Image

    for seed in range(400, 412):
        Image.fromarray(draw_cloth(seed)).save(tmp_path / f"{seed}.png")
    samples = [Sample(path=path, category="cloth") for path in sorted(tmp_path.glob("*.png"))]
    own.calibrate(samples, region=LARGER)
    assert own.kept.region == LARGER
    with pytest.raises(DataError, match="counts what was ignored when the model's good images were read"):
        own.calibrate(region=CORNER)
    assert own.region == LARGER
    own.calibrate(region=LARGER, rates=Rates(review=0.3, bad=0.1))
    assert own.rates.review == 0.3


def test_areas_that_a_model_cannot_tell_are_refused(own):
    patch = Region(frame=(160, 120), include=(((0, 0), (64, 0), (64, 48), (0, 48)),))
    with pytest.raises(
        ConfigError, match="the region leaves 3072, so no part of it could be that large; give"
    ):
        own.calibrate(region=patch, min_area=3100)
    for area in (255, 64 * 64):
        with pytest.raises(ConfigError, match="covers 256 pixels, and less it cannot tell; give from 256"):
            own.calibrate(min_area=area)


def test_a_model_that_keeps_no_tiles_asks_for_pictures(own, monkeypatch, cloth, tmp_path):
    from invad.observer import Silent

    class Notes(Silent):
        def note(self, line):
            lines.append(line)

    lines = []
    own.kept = None
    with pytest.raises(DataError, match=r"keeps no maps of held-out tiles.*give good images"):
        own.calibrate(min_area=AREA)
    monkeypatch.setattr("invad.runtime.kept_tiles.MOST_BYTES", 1000)
    samples = [Sample(path=path, category="cloth") for path in sorted((cloth / "test/good").iterdir())]
    own.calibrate(samples, observer=Notes())
    assert own.kept is None
    assert any("are not kept: another region or smallest area takes pictures" in line for line in lines)
    own.save(tmp_path / "model")
    assert TiledDetector.load(tmp_path / "model", device="cpu").kept is None


def test_what_is_kept_is_small(tiled_detector):
    kept = tiled_detector.kept
    assert kept.offsets_TLhw.dtype.itemsize == 2
    assert len(kept.offsets_TLhw) == 20 * (len(tiled_detector.cut((120, 160))) + 1)


def test_a_bundle_calls_by_the_smallest_area(own, draw_cloth, tmp_path):
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
    from invad import runtime
    from invad.export import ExportConfig, export

    own.calibrate(min_area=AREA)
    export(own, tmp_path / "bundle", ExportConfig())
    bundle = runtime.load(tmp_path / "bundle")
    assert bundle.smallest == own.smallest
    picture = draw_cloth(300)
    picture[30:70, 50:90] = 10
    for one in (draw_cloth(301, spot=(50, 50)), picture):
        here, there = own.predict(one), bundle.predict(one)
        assert there.score == pytest.approx(here.score, abs=1e-3 * (1 + abs(here.score)))
        assert (there.decision, there.p_value) == (here.decision, here.p_value)
        assert len(bundle.defects(there)) == len(own.defects(here))


@pytest.fixture(scope="module")
def exported(tiled_detector, tmp_path_factory):
    """A bundle of `tiled_detector` that takes several tiles at a time. Not to be written to."""
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxruntime", reason="needs invad[onnx]")
    from invad.export import ExportConfig, export

    folder = tmp_path_factory.mktemp("exported") / "bundle"
    export(tiled_detector, folder, ExportConfig(batch=None))
    return folder


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_bundle_is_calibrated_as_the_model_is(own, exported, draw_cloth, tmp_path, engine):
    pytest.importorskip(engine, reason=f"needs {engine}")
    from invad import runtime
    from invad.detector import regional
    from invad.runtime import changing
    from invad.runtime.certificate import TOLERANCES, certify, compare
    from invad.runtime.loading import as_certified

    made = runtime.load(exported, engine, threads=1)
    before, category = made.info, max(own.calibrations)
    pictures = [draw_cloth(300, spot=(70, 120)), draw_cloth(301, spot=(40, 40)), draw_cloth(302)]
    changes = [
        {"region": CORNER},
        {"rates": Rates(review=0.3, bad=0.1)},
        {"min_area": AREA},
        {"region": "none", "regions": {category: LARGER}},
    ]
    for number, asked in enumerate(changes if engine == "onnxruntime" else changes[:1], start=1):
        own.calibrate(**asked)
        changing.save(changing.calibrated(made, **asked), tmp_path / str(number))
        made = runtime.load(tmp_path / str(number), engine, threads=1)
        assert (made.region, made.regions, made.smallest) == (own.region, own.regions, own.smallest)
        assert set(own.warnings()) >= set(changing.warnings_about(made))
        for name, calibration in own.calibrations.items():
            found = made.calibrations[name]
            assert (found.n, found.rates) == (calibration.n, calibration.rates)
            assert found.scores == pytest.approx(calibration.scores, rel=1e-4, abs=1e-4)
            for i, pixels in enumerate(pictures):
                told, said = (one.predict(pixels, category=name or None) for one in (own, made))
                assert compare(f"{number} {i}", found, told, said).problem(TOLERANCES["fp32"]) is None
                assert said.decision == told.decision
    # The certificate is about the graph, which stays as it was.
    assert made.info.as_exported == before
    assert not certify(as_certified(made), tmp_path / str(number)).problems
    station = regional.with_region(made, CORNER)
    assert regional.looks_at(station, CORNER)
    assert "cells beside it do not count" in regional.doubts_of(station)[0]
    assert regional.save(station, tmp_path / "station") == station.content_hash
    again = runtime.load(tmp_path / "station", engine, threads=1)
    assert (again.region, again.content_hash) == (CORNER, station.content_hash)
    assert again.predict(pictures[0]).score == station.predict(pictures[0]).score
    low = Rates(review=0.05, bad=1e-300)
    with pytest.raises(
        DataError, match=r"which it was not so far; the bundle stays as it was.*export it again"
    ):
        changing.calibrated(made, rates=low, min_area="none")
    old = altered(exported, tmp_path / "old", lambda plain: plain.pop("held"))
    with pytest.raises(ConfigError, match="keeps no maps of held-out tiles"):
        changing.calibrated(runtime.load(old, engine, threads=1), region=CORNER)


def test_controls_that_their_overview_shows_are_not_read_tile_by_tile(own, monkeypatch):
    from invad.runtime.tile_controls import controls, least_score

    pictures = [pixels for _, pixels in controls(own.tiled.tiling)]
    pictures.append(np.tile(pictures[-1], (2, 3, 1)))
    for area in ("none", AREA):
        own.calibrate(min_area=area)
        for pixels in pictures:
            assert least_score(own, pixels) <= own.reading(pixels)[0]
    read, passed = [], own.inside.model.read_batch

    def counted(z_BChw):
        read.append(len(z_BChw))
        return passed(z_BChw)

    monkeypatch.setattr(type(own.inside.model), "read_batch", lambda self, z_BChw: counted(z_BChw))
    own.calibrate(region=CORNER)
    assert sum(read) == len(pictures) - 1
