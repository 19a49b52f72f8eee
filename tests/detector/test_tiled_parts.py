"""Parts of several pictures, each cut into tiles: fitted, kept, calibrated, exported, evaluated."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from invad import TiledDetector, evaluate
from invad.data.region import Region
from invad.data.tiling import OVERVIEW, TILE
from invad.errors import ConfigError, DataError
from invad.observer import Silent
from invad.runtime.kept_tiles import held_of
from invad.runtime.part_limits import PartPlan, fit_tiled_parts
from invad.runtime.tile_limits import fit_tile_limits
from invad.scoring.rates import POOLED, Rates

SPOT = (50, 90)
MIDDLE = Region(frame=(160, 120), ignore=(((60, 20), (160, 20), (160, 100), (60, 100)),))


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


@pytest.fixture
def own(tiled_parts, tmp_path):
    """A copy that may be calibrated, read from its folder."""
    tiled_parts.save(tmp_path / "model")
    return TiledDetector.load(tmp_path / "model", device="cpu")


def test_a_part_is_judged_by_the_light_that_shows_the_spot(tiled_parts, draw_lights):
    good, bad = tiled_parts.predict_part(draw_lights(100)), tiled_parts.predict_part(draw_lights(101, SPOT))
    assert good.decision in ("good", "review")
    assert (bad.decision, bad.seen_by) == ("bad", "light2")
    assert bad.p_value == pytest.approx(1 / 15)
    assert tiled_parts.fusion.calibration.n == 14
    found = tiled_parts.defects(bad.members["light2"])
    assert found[0].cell_px == 16
    assert found[0].x <= SPOT[1] + 4 <= found[0].x + found[0].width


def test_each_light_has_places_and_limits_of_its_own(tiled_parts, draw_lights):
    places = {f"{light} {place}" for light in ("light1", "light2") for place in (TILE, OVERVIEW)}
    assert set(tiled_parts.tiled.places) == places
    assert set(tiled_parts.inside.stats) == {POOLED, *places}
    assert set(tiled_parts.calibrations) == {POOLED, "light1", "light2"}
    one = draw_lights(100)["light1"]
    own = {light: tiled_parts.reading(one, light)[0] for light in ("light1", "light2")}
    assert own["light1"] != own["light2"]
    found = tiled_parts.predict_part(draw_lights(100)).members["light1"]
    assert found.score == own["light1"]


def test_a_part_that_lacks_a_light_is_not_good(tiled_parts, draw_lights):
    found = tiled_parts.predict_part({"light1": draw_lights(100)["light1"]})
    assert (found.decision != "good", found.reason) == (True, "no light2")
    small = tiled_parts.predict_part({**draw_lights(100), "light2": draw_lights(100)["light2"][:50]})
    assert "160 x 50 pixels, smaller than a tile of 64" in small.reason
    with pytest.raises(ConfigError, match="judges parts by their pictures"):
        tiled_parts.predict(draw_lights(100)["light1"])


def test_it_is_kept_and_calibrated_without_pictures(own, tiled_parts, draw_lights):
    picture = draw_lights(101, SPOT)
    assert own.fusion == tiled_parts.fusion
    assert own.predict_part(picture).score == tiled_parts.predict_part(picture).score
    own.calibrate(rates=Rates(review=0.3, bad=0.1))
    assert own.fusion.calibration.rates.review == 0.3
    assert own.fusion.calibration.scores == tiled_parts.fusion.calibration.scores
    own.calibrate(region=MIDDLE)
    assert own.fusion.calibration.n == 14
    assert own.predict_part(picture).score < tiled_parts.predict_part(picture).score / 2


def test_a_smallest_area_counts_in_each_picture(own, draw_lights):
    own.calibrate(min_area=400)
    assert own.fusion.calibration.n == 14
    large = draw_lights(102)
    large["light2"][30:80, 60:110] = np.random.default_rng(0).integers(0, 256, (50, 50, 1))
    found = own.predict_part(large)
    assert (found.decision, found.seen_by) == ("bad", "light2")
    one = found.members["light2"]
    assert one.score == own.reading(large["light2"], "light2")[0]
    assert one.score < one.cells.max()  # of the highest part of that area, which is more than a cell
    assert all(defect.area_px >= 400 for defect in own.defects(one))
    own.fusion = replace(own.fusion, kind="cells")
    with pytest.raises(ConfigError, match="goes with parts in tiles whose scores are fused"):
        own.calibrate(min_area=500)


def test_other_parts_calibrate(own, draw_lights, tmp_path):
    for seed in range(40, 52):
        for name, pixels in draw_lights(seed).items():
            Image.fromarray(pixels).save(tmp_path / f"part{seed:03d}_{name}.png")
    (tmp_path / "part051_light1.png").unlink()
    notes = Notes()
    own.calibrate(tmp_path, rates=Rates(review=0.2, bad=0.1), observer=notes)
    assert any("part051" in line for line in notes.lines)
    assert 5 < own.fusion.calibration.n < 12  # less what nearly repeats another
    assert set(own.calibrations) == {POOLED, "light1", "light2"}
    assert len(set(own.kept.parts)) >= own.fusion.calibration.n
    assert own.predict_part(draw_lights(101, SPOT)).decision == "bad"


def test_cells_are_fused_as_those_of_one_picture_are(own, draw_lights):
    held = held_of(own.kept, own.tiled.tiling, own.grid_hw)
    limits = fit_tile_limits(held, own.kept.groups, own.inside.info.settings.score_rule.of_cells, own.rates)
    plan = replace(PartPlan.of(own.fusion), kind="cells")
    options = {"plan": plan, "rates": own.rates, "top_cells": own.tiled.top_cells}
    own.fusion = fit_tiled_parts(held, limits.scores, limits.maps, own.kept.groups, **options)
    found = own.predict_part(draw_lights(101, SPOT))
    assert (found.decision, found.seen_by) == ("bad", "light2")
    y, x = np.unravel_index(found.anomaly_map.argmax(), found.anomaly_map.shape)
    assert (abs(y - SPOT[0] - 4) <= 16, abs(x - SPOT[1] - 4) <= 16) == (True, True)
    highest = np.sort(found.anomaly_map.ravel())[-1]
    assert found.score > 0.8 * highest  # of one cell, where 2 % of all would be two
    several = [one if i else one[:4] for i, one in enumerate(limits.maps)]
    with pytest.raises(DataError, match="several sizes, and cells are fused of one frame"):
        fit_tiled_parts(held, limits.scores, several, own.kept.groups, **options)


def test_a_bundle_judges_parts_in_tiles(own, tiled_parts, draw_lights, tmp_path):
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
    from invad import runtime
    from invad.export import ExportConfig, export
    from invad.runtime import changing

    export(tiled_parts, tmp_path / "bundle", ExportConfig())
    bundle = runtime.load(tmp_path / "bundle")
    assert bundle.fusion == tiled_parts.fusion
    for pictures in (draw_lights(100), draw_lights(101, SPOT)):
        here, there = tiled_parts.predict_part(pictures), bundle.predict_part(pictures)
        assert there.score == pytest.approx(here.score, abs=1e-3 * (1 + abs(here.score)))
        assert (there.decision, there.p_value, there.seen_by) == (here.decision, here.p_value, here.seen_by)
    # Another region of interest, of the maps that both keep.
    own.calibrate(region=MIDDLE)
    made = changing.calibrated(bundle, region=MIDDLE)
    assert changing.warnings_about(made) == own.warnings()
    limits = own.fusion.calibration
    assert made.fusion.calibration.scores == pytest.approx(limits.scores, rel=1e-3, abs=1e-3)
    here, there = (one.predict_part(draw_lights(101, SPOT)) for one in (own, made))
    assert there.score == pytest.approx(here.score, abs=1e-3 * (1 + abs(here.score)))
    assert there.decision == here.decision


def test_an_evaluation_counts_parts(tiled_parts, lit_cloth, draw_lights, tmp_path):
    for kind, first, spot in (("good", 200, None), ("spot", 300, SPOT)):
        (tmp_path / "test" / kind).mkdir(parents=True)
        for seed in range(first, first + 3):
            for name, pixels in draw_lights(seed, spot).items():
                Image.fromarray(pixels).save(tmp_path / "test" / kind / f"part{seed}_{name}.png")
    (tmp_path / "train").mkdir()
    (tmp_path / "train/good").symlink_to(lit_cloth)
    found = evaluate(tiled_parts, tmp_path)
    assert found.metrics["parts"]["image_auroc"] == 1
    assert found.metrics["parts"]["seen_by"] == {"light1": 0, "light2": 3}


def test_a_model_of_parts_has_one_region(tiled_parts):
    with pytest.raises(ConfigError, match="goes with models of single pictures; give one for all of them"):
        tiled_parts.calibrate(
            regions={"light1": Region(frame=(160, 120), ignore=(((0, 0), (9, 0), (9, 9)),))}
        )
