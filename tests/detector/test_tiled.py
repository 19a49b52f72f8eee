"""Pictures in tiles, from training to a bundle: what is learned, kept, measured and proved."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from invad import Detector, Sample, TiledDetector, Tiling, evaluate
from invad.data.region import Region
from invad.data.tiling import OVERVIEW, TILE
from invad.detector.measuring import learn_sizes
from invad.detector.opening import open_model
from invad.errors import ArtifactError, ConfigError, DataError
from invad.fit import tiles
from invad.fit.fit import Job
from invad.fit.run import Run
from invad.fit.tile_choice import choose_tiling, tile_settings
from invad.fit.tiles import cost, fit_tiles
from invad.model.settings import preset_named
from invad.observer import Silent
from invad.runtime.fusing import picture_score
from invad.runtime.kept_tiles import HeldPicture
from invad.runtime.tile_limits import _behind, _one_usual, fit_tile_limits, top_cells
from invad.scoring import holding
from invad.scoring.norms import CellRule, typicality_map
from invad.scoring.rates import POOLED, Rates
from invad.scoring.spread import top_mean


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


def test_a_small_defect_anywhere_is_bad_and_a_good_picture_is_not(tiled_detector, draw_cloth):
    good = tiled_detector.predict([draw_cloth(300 + i) for i in range(4)])
    assert {one.decision for one in good} <= {"good", "review"}
    for place in ((0, 0), (40, 60), (112, 152), (60, 44)):
        found = tiled_detector.predict(draw_cloth(310, spot=place))
        assert found.decision == "bad"
        y, x = np.unravel_index(found.anomaly_map.argmax(), found.anomaly_map.shape)
        assert abs(y - place[0] - 4) <= 16
        assert abs(x - place[1] - 4) <= 16


def test_what_tiles_say_hardly_changes_when_a_picture_moves_by_half_of_one(
    tile_preset, make_backbone, tmp_path
):
    def draw(seed):
        rng = np.random.default_rng(seed)
        grey = 120 + rng.normal(0, 4, (384, 832)) + np.kron(rng.normal(0, 12, (48, 104)), np.ones((8, 8)))
        return np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)

    for seed in range(12):
        Image.fromarray(draw(seed)[:, :640]).save(tmp_path / f"{seed}.png", compress_level=1)
    detector = TiledDetector.fit(
        tmp_path,
        tiling=Tiling(tile_px=384),
        preset=replace(tile_preset, area_side=192),
        backbone=make_backbone(),
        device="cpu",
    )
    # An overview sees what moves at another place between its pixels, so it is left out here.
    usual = detector.tiled.places
    overview = replace(usual[OVERVIEW], median=1e6)
    detector.tiled = replace(detector.tiled, places={**usual, OVERVIEW: overview})
    pairs = [(wide[:, 192:], wide[:, :-192]) for wide in map(draw, range(100, 110))]
    maps = np.array([[detector.reading(one)[1] for one in pair] for pair in pairs])
    rows, columns = detector.grid_for((384, 640))
    moved, edge = round(columns * 192 / 640), rows // 8
    first = maps[:, 0, edge:-edge, edge : columns - moved - edge]
    second = maps[:, 1, edge:-edge, moved + edge : columns - edge]
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.98
    scores = np.array([[top_mean(cells, 3) for cells in pair] for pair in zip(first, second, strict=True)])
    assert np.abs(np.diff(scores)).mean() < scores.std(ddof=1) / 4


def test_limits_are_of_pictures_and_not_of_tiles(tiled_detector):
    assert tiled_detector.calibrations[POOLED].n == 20
    assert set(tiled_detector.inside.stats) == {POOLED, TILE, OVERVIEW}
    # A bank does not grow with the tiles of a picture: two kinds of them share it.
    settings = tiled_detector.inside.info.settings
    assert len(tiled_detector.inside.model.banks[0].empirical.bank) <= settings.empirical.cells_for(2)


def test_what_was_saved_says_the_same(tiled_detector, draw_cloth, tmp_path):
    tiled_detector.save(tmp_path / "model")
    again = open_model(tmp_path / "model", "cpu")
    assert isinstance(again, TiledDetector)
    assert again.tiled == tiled_detector.tiled
    picture = draw_cloth(300, spot=(10, 100))
    assert again.predict(picture).score == tiled_detector.predict(picture).score
    assert "TiledDetector.load" in (tmp_path / "model/README.md").read_text()
    with pytest.raises(ArtifactError, match=r"holds a detector of tiles; read it with TiledDetector\.load"):
        Detector.load(tmp_path / "model")


def test_a_model_of_whole_pictures_is_none_of_tiles(detector, tmp_path):
    detector.save(tmp_path / "model")
    with pytest.raises(ArtifactError, match=r"whole pictures; read it with Detector\.load"):
        TiledDetector.load(tmp_path / "model")


def test_a_model_of_the_format_before_tiles_is_read(detector, tmp_path):
    from invad.runtime.bundle import content_hash

    detector.save(tmp_path / "model")
    path = tmp_path / "model/config.json"
    plain = json.loads(path.read_text())
    files, _ = plain.pop("files"), (plain.pop("content_hash"), plain.pop("format"), plain.pop("tiles"))
    path.write_text(
        json.dumps({"format": 5, **plain, "files": files, "content_hash": content_hash(plain, files)})
    )
    assert Detector.load(tmp_path / "model").info == detector.info


def test_an_evaluation_measures_pixels_in_the_frame_of_the_tiles(tiled_detector, cloth):
    found = evaluate(tiled_detector, cloth)
    assert found.metrics["image_auroc"] == 1
    assert found.metrics["pixel_auroc"] > 0.95
    assert found.scored[0].anomaly_map.shape == (128, 160)  # 8 x 10 cells of 16 pixels
    assert [len(own) > 0 for own in found.defects] == [one.sample.is_anomalous for one in found.scored]
    with pytest.raises(ConfigError, match="knows no tiles"):
        evaluate(tiled_detector, cloth, protocol="paper")


def test_a_bundle_cuts_as_the_model_does(tiled_detector, regional, draw_cloth, tmp_path):
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
    from invad import runtime
    from invad.export import ExportConfig, export
    from invad.runtime import changing
    from invad.runtime.certificate import certify

    _, certificate = export(tiled_detector, tmp_path / "bundle", ExportConfig())
    assert {row.probe for row in certificate.rows} == {"tiles.png", "tiles_deep.tif", "tiles_flat.png"}
    bundle = runtime.load(tmp_path / "bundle")
    for picture in (draw_cloth(300), draw_cloth(300, spot=(50, 50))):
        here, there = tiled_detector.predict(picture), bundle.predict(picture)
        assert there.score == pytest.approx(here.score, abs=1e-3 * (1 + abs(here.score)))
        assert (there.decision, there.p_value) == (here.decision, here.p_value)
        np.testing.assert_allclose(there.anomaly_map, here.anomaly_map, atol=2e-3)
    assert bundle.grid_for((120, 160)) == tiled_detector.grid_for((120, 160))
    assert certify(bundle, tmp_path / "bundle").problems == []
    with_region = tmp_path / "region"
    export(regional, with_region, ExportConfig())
    for spot in ((60, 100), (60, 40)):
        picture = draw_cloth(300, spot=spot)
        here, there = regional.predict(picture), runtime.load(with_region).predict(picture)
        assert there.score == pytest.approx(here.score, abs=1e-3 * (1 + abs(here.score)))
    with pytest.raises(
        DataError, match=r"the new region counts what was ignored .* trained model.* export it"
    ):
        changing.calibrated(runtime.load(with_region), region="none")
    with pytest.raises(ConfigError, match="layout triton"):
        export(tiled_detector, tmp_path / "triton", ExportConfig(layout="triton"))
    with pytest.raises(ConfigError, match="leave the size away"):
        export(tiled_detector, tmp_path / "sized", ExportConfig(size_hw=(120, 160)))


def test_positions_of_their_own_find_what_is_usual_elsewhere(cloth, tile_preset, make_backbone, draw_cloth):
    tiling = Tiling(tile_px=64, positions="each", picture_hw=(120, 160))
    detector = TiledDetector.fit(
        cloth, tiling=tiling, preset=tile_preset, backbone=make_backbone(), device="cpu"
    )
    assert len(detector.tiled.places) == len(detector.cut((120, 160))) + 1
    assert len(detector.inside.model.banks[0].empirical.bank) <= tile_preset.empirical.cells_for(2)
    assert detector.predict(draw_cloth(300, spot=(60, 60))).decision == "bad"
    with pytest.raises(DataError, match="of 160 x 120 alone"):
        detector.predict(np.zeros((160, 120, 3), np.uint8))


@pytest.fixture(scope="module")
def regional(cloth, tile_preset):
    """The lower right is ignored, tiles of it too."""
    region = Region(frame=(160, 120), ignore=(((90, 50), (160, 50), (160, 120), (90, 120)),))
    tiling = Tiling(tile_px=64, region=region)
    return TiledDetector.fit(cloth, tiling=tiling, preset=tile_preset, device="cpu")


def test_what_is_ignored_changes_no_score(regional, draw_cloth):
    assert len(regional.cut((120, 160))) < len(Tiling(tile_px=64).cut((120, 160), (4, 4)))
    plain = regional.predict(draw_cloth(300))
    changed = regional.predict(draw_cloth(300, spot=(60, 100)))
    assert plain.score == changed.score
    np.testing.assert_array_equal(plain.anomaly_map, changed.anomaly_map)
    assert regional.predict(draw_cloth(300, spot=(60, 40))).decision == "bad"
    assert regional.defects(regional.predict(draw_cloth(300, spot=(20, 120))))[0].y < 50
    assert np.unique(changed.anomaly_map[50:, 90:]).size == 1
    with pytest.raises(DataError, match="drawn on pictures of 160 x 120"):
        regional.predict(draw_cloth(300)[:100])


def test_what_was_ignored_counts_again_with_pictures(regional, draw_cloth, tmp_path):
    regional.save(tmp_path / "model")
    detector = TiledDetector.load(tmp_path / "model")
    assert detector.region == regional.region
    with pytest.raises(DataError, match="counts what was ignored when the model's good images were read"):
        detector.calibrate(region="none")
    for seed in range(400, 412):
        Image.fromarray(draw_cloth(seed)).save(tmp_path / f"{seed}.png")
    samples = [Sample(path=path, category="cloth") for path in sorted(tmp_path.glob("*.png"))]
    detector.calibrate(samples, region="none")
    assert detector.region is None
    assert detector.predict(draw_cloth(300, spot=(60, 100))).decision == "bad"


def test_other_rates_take_none(tiled_detector, tmp_path):
    tiled_detector.save(tmp_path / "model")
    detector = TiledDetector.load(tmp_path / "model")
    before = detector.calibrations[POOLED].score_limits()
    detector.calibrate(rates=Rates(review=0.3, bad=0.1))
    assert detector.calibrations[POOLED].scores == tiled_detector.calibrations[POOLED].scores
    assert detector.calibrations[POOLED].score_limits() < before


def test_tiles_that_differ_by_place_suggest_positions(tiled_detector, cloth, tile_preset, make_backbone):
    samples = [Sample(path=path, category="cloth") for path in sorted((cloth / "train/good").iterdir())]
    fitted = fit_tiles(samples, Tiling(tile_px=64), tile_preset, make_backbone())
    for one in fitted.held:
        one.maps_TLhw[3] *= 3  # one place that is less typical in every picture
    limits = fit_tile_limits(fitted.held, fitted.groups, tile_preset.score_rule.of_cells, Rates())
    assert "--positions each may find more" in limits.hint


def test_some_pictures_are_held_out_for_good(cloth, tile_preset, make_backbone, monkeypatch):
    """Not all in turn, because recalibrating reads the tiles of each that was."""
    monkeypatch.setattr(holding, "FEW_GROUPS", 4)
    samples = [Sample(path=path, category="cloth") for path in sorted((cloth / "train/good").iterdir())]
    fitted = fit_tiles(samples, Tiling(tile_px=64), tile_preset, make_backbone())
    assert fitted.record.folds == 1
    assert len(fitted.held) == len(samples) - len(fitted.record.trained) < len(samples)


def test_cells_at_a_border_that_are_often_odd_count_less(cloth, tile_preset, make_backbone):
    rule = tile_preset.score_rule.of_cells
    samples = [Sample(path=path, category="cloth") for path in sorted((cloth / "train/good").iterdir())]
    fitted = fit_tiles(samples, Tiling(tile_px=64), tile_preset, make_backbone())

    def scales(held):
        return {
            place: stats.scale_Lhw
            for place, stats in fit_tile_limits(held, fitted.groups, rule, Rates()).stats.items()
        }

    def odd(held):
        made = [replace(one, maps_TLhw=one.maps_TLhw.copy()) for one in held]
        for one in made:
            one.maps_TLhw[[0, -1], :, 0, 1] *= 4  # of the first tile, and of the overview
        return made

    before, after = scales(fitted.held), scales(odd(fitted.held))
    for place in (TILE, OVERVIEW):
        assert (after[place][:, 0] > 1.3 * before[place][:, 0]).all()
    # What a region ignores is not among them, and where every place has its own, it is judged by that.
    hw = fitted.held[0].cut.picture_hw
    ignoring = Region(frame=hw[::-1], ignore=(((0, 0), (60, 0), (60, 30), (0, 30)),))
    for tiling in (Tiling(tile_px=64, region=ignoring), Tiling(tile_px=64, positions="each", picture_hw=hw)):
        held = [replace(one, cut=tiling.cut(hw, one.cut.grid_hw)) for one in fitted.held]
        before, after = scales(held), scales(odd(held))
        place = next(held[0].cut.tiles()).place
        wider = after[place] / before[place]
        np.testing.assert_allclose(wider[:, 0, 2:], wider[:, 1:3, 1:3].mean(), rtol=0.1)


def test_tiles_have_as_many_rings_as_their_border_and_overviews_one():
    cut, rng = Tiling(tile_px=96, border=3).cut((192, 240), (24, 24)), np.random.default_rng(0)
    held = [
        HeldPicture("sheet", cut, rng.gamma(3, 2, (len(cut) + 1, 1, 24, 24)).astype(np.float32))
        for _ in range(10)
    ]
    stats = fit_tile_limits(held, range(10), CellRule.of((1,)), Rates()).stats
    kinds = {place: len(np.unique(stats[place].median_Lhw)) for place in (TILE, OVERVIEW, POOLED)}
    assert cut.edge == 4
    assert kinds == {TILE: 5, OVERVIEW: 2, POOLED: 5}


@pytest.mark.parametrize("size_hw", [(96, 144), (384, 480)])
def test_the_overview_decides_as_seldom_however_many_tiles_there_are(size_hw):
    cut, rng = Tiling(tile_px=96).cut(size_hw, (12, 12)), np.random.default_rng(0)
    held = [
        HeldPicture("sheet", cut, rng.gamma(3, 2, (len(cut) + 1, 1, 12, 12)).astype(np.float32))
        for _ in range(100)
    ]
    rule = CellRule.of((1,))
    limits = fit_tile_limits(held, range(100), rule, Rates())
    decided = 0
    for one in held:
        maps = [
            typicality_map(m[None], limits.stats[p], rule)[0]
            for p, m in zip(one.cut.places(), one.maps_TLhw, strict=True)
        ]
        nothing = np.full_like(maps[-1], -1e6)
        top = top_cells(rule, (12, 12))
        tiles, _ = picture_score(cut, [*maps[:-1], nothing], limits.places, top)
        whole, _ = picture_score(cut, [*[nothing] * len(cut), maps[-1]], limits.places, top)
        decided += whole > tiles
    assert 1 <= decided <= 10


def test_the_score_of_an_overview_stays_two_spreads_behind_those_of_the_highest_tiles():
    rng = np.random.default_rng(0)
    own, highest = rng.normal(7, 3, 4000), rng.normal(1.5, 0.5, 4000)
    usual = _behind(_one_usual(own), highest)
    scores = (own - usual.median) / usual.spread
    assert np.median(scores) == pytest.approx(1.5 - 2 * 0.5, abs=0.05)
    assert scores.std() == pytest.approx(0.5, abs=0.02)


def test_other_pictures_calibrate(tiled_detector, draw_cloth, cloth, tmp_path):
    tiled_detector.save(tmp_path / "model")
    detector = TiledDetector.load(tmp_path / "model")
    samples = []
    for seed in range(400, 412):
        path = tmp_path / f"{seed}.png"
        Image.fromarray(draw_cloth(seed) + 20).save(path)
        samples.append(Sample(path=path, category="cloth"))
    picture = draw_cloth(500) + 20
    before = detector.predict(picture).score
    detector.calibrate(samples, rates=Rates(review=0.2, bad=0.1))
    assert detector.calibrations[POOLED].n == 12
    assert detector.rates == Rates(review=0.2, bad=0.1)
    assert detector.predict(picture).score < before
    detector.save(tmp_path / "model")
    assert TiledDetector.load(tmp_path / "model").info.recalibrated is not None
    with pytest.raises(DataError, match="have the pixels of images that the model was trained on"):
        detector.calibrate(cloth / "train/good")


def test_paths_in_place_of_samples_are_refused_in_one_line(tiled_detector, tile_preset):
    tiling = Tiling(tile_px=96)
    for call in (
        tiled_detector.calibrate,
        lambda given: TiledDetector.fit(given, preset=tile_preset, tiling=tiling),
        lambda given: learn_sizes(tiled_detector, given),
        lambda given: evaluate(tiled_detector, given),
    ):
        with pytest.raises(ConfigError, match=r"'a\.png' is a str, no Sample; give a folder"):
            call(["a.png"])


def test_copies_and_small_pictures_are_named(cloth, tile_preset, make_backbone, tmp_path):
    folder = tmp_path / "good"
    shutil.copytree(cloth / "train/good", folder)
    shutil.copy(folder / "0.png", folder / "copy.png")
    Image.new("RGB", (60, 200)).save(folder / "small.png")
    notes = Notes()
    samples = [Sample(path=path, category="cloth") for path in sorted(folder.iterdir())]
    fitted = fit_tiles(samples, Tiling(tile_px=64), tile_preset, make_backbone(), run=Run(observer=notes))
    assert fitted.record.normals == {"cloth": 20}
    assert [path.rsplit("/")[-1] for path in fitted.record.copies] == ["copy.png"]
    assert [path.rsplit("/")[-1] for path in fitted.record.skipped] == ["small.png"]
    assert any("small.png: 60 x 200 pixels, smaller than a tile of 64" in line for line in notes.lines)


def test_the_tile_is_chosen_by_the_smallest_defect(tile_preset, make_backbone):
    settings, backbone = tile_preset, make_backbone()

    def chosen(**asked):
        return choose_tiling((900, 1200), settings, backbone, **asked)

    assert chosen(smallest_defect=12).tile_px == 128  # twice the 4 x 4 cells of the input's 16 pixels
    assert chosen(smallest_defect=50) == Tiling(tile_px=400, border=3)
    assert chosen(smallest_defect=250).tile_px == 900
    assert chosen(smallest_defect=300) is None  # a cell of the whole picture
    assert chosen(smallest_defect=12, each=True).tile_px == 64
    places = Tiling(tile_px=300, overlap=0.25, positions="each", picture_hw=(900, 1200))
    assert chosen(tile=300, each=True) == places
    with pytest.raises(ConfigError, match="tile = 901: larger than the picture of 1200 x 900"):
        chosen(tile=901)
    for wrong in ({}, {"tile": 64, "smallest_defect": 3}, {"smallest_defect": 0}):
        with pytest.raises(ConfigError):
            chosen(**wrong)


@pytest.mark.parametrize(
    ("size_hw", "defect", "wanted", "rows_columns"),
    [
        ((3000, 4096), 32, Tiling(tile_px=1646, overlap=9 / 48, border=3, cells=48), (2, 3)),
        (
            (460, 1130),
            16,
            Tiling(tile_px=452, overlap=9 / 28, border=3, cells=28),
            (1, 4),
        ),  # its whole height
        ((600, 600), 16, Tiling(tile_px=384, border=3), (2, 2)),  # larger ones see as much
        # Tiles of 44 cells see less and lie further from them; four of 44 see less, with the overview more.
        ((2048, 2448), 24, Tiling(tile_px=1129, overlap=9 / 46, border=3, cells=46), (2, 3)),
        ((1024, 1280), 16, Tiling(tile_px=592, overlap=9 / 37, border=3, cells=37), (2, 3)),
    ],
)
def test_tiles_are_so_large_that_little_is_seen_twice(size_hw, defect, wanted, rows_columns):
    settings = preset_named("fast")
    backbone = settings.load_backbone()
    tiling = choose_tiling(size_hw, settings, backbone, smallest_defect=defect)
    assert tiling == wanted
    cells = wanted.cells or 24
    cut = tiling.cut(size_hw, (cells, cells))
    assert cut.rows_columns == rows_columns
    assert cut.off < 0.01
    own = tile_settings(settings, backbone, tiling.tile_px, tiling.positions, tiling.cells)
    assert own.area_side == 16 * cells
    # A score stays the mean of as many cells.
    assert own.top_fraction * cells**2 == pytest.approx(settings.top_fraction * 12**2)


def test_tiles_of_a_place_each_are_those_of_whole_pictures():
    settings = replace(preset_named("fast"), area_side=384)
    tiling = choose_tiling((3000, 4096), settings, settings.load_backbone(), smallest_defect=32, each=True)
    assert tiling == Tiling(tile_px=768, overlap=0.25, positions="each", picture_hw=(3000, 4096))


def test_where_no_tiles_are_whole_cells_they_are_no_further_off_than_smaller_ones():
    settings = preset_named("fast")
    tiling = choose_tiling((3000, 4096), settings, settings.load_backbone(), smallest_defect=16)
    smaller = Tiling(tile_px=384, border=3).cut((3000, 4096), (24, 24))
    cut = tiling.cut((3000, 4096), (tiling.cells, tiling.cells))
    assert 0.01 < cut.off <= smaller.off
    assert len(cut) < len(smaller) / 4


def test_the_more_cells_a_tile_has_the_fewer_tiles_are_learned_from(
    tile_preset, make_backbone, draw_cloth, tmp_path, monkeypatch
):
    monkeypatch.setattr(tiles, "TRAINED_CELLS", 8 * 16)  # two tiles of 4 x 4 cells of each of four pictures
    samples = []
    for seed in range(4):
        path = tmp_path / f"{seed}.png"
        Image.fromarray(draw_cloth(seed)).save(path)
        samples.append(Sample(path=path, category="cloth"))
    backbone, learned = make_backbone(), []
    train = Job.train
    monkeypatch.setattr(
        Job, "train", lambda job, name, rows: learned.append(len(rows)) or train(job, name, rows)
    )
    for cells in (4, 8):
        tiling = Tiling(tile_px=64, overlap=0.25, cells=cells)
        own = tile_settings(tile_preset, backbone, 64, "shared", cells)
        fit_tiles(samples, tiling, own, backbone)
        # Of the model that learns from all: an overview of each picture, too.
        assert learned[-1] == 4 * ({4: 2, 8: 1}[cells] + 1)
        assert cost(samples, tiling, tile_preset, backbone).tiles == len(
            tiling.cut((120, 160), (cells, cells))
        )


def test_a_tile_may_have_cells_of_its_own_number(tile_preset, make_backbone, draw_cloth, tmp_path):
    for seed in range(8):
        Image.fromarray(draw_cloth(seed)).save(tmp_path / f"{seed}.png")
    detector = TiledDetector.fit(
        tmp_path,
        tiling=Tiling(tile_px=96, cells=6),
        preset=tile_preset,
        backbone=make_backbone(),
        device="cpu",
    )
    assert detector.grid_hw == (6, 6)
    picture = draw_cloth(99, spot=(40, 60))
    detector.save(tmp_path / "model")
    loaded = TiledDetector.load(tmp_path / "model")
    assert loaded.tiled == detector.tiled
    assert loaded.predict(picture).score == detector.predict(picture).score
    with pytest.raises(ConfigError, match="cells = 0: give a number along the side"):
        Tiling(tile_px=96, cells=0)


def test_normal_tiles_that_lie_far_out_widen_the_spread_of_their_place():
    usual = _one_usual([4.0] * 95 + [24.0] * 5)
    assert usual.median == 4.0
    assert usual.spread == pytest.approx(((100 * 20.0 + 5 * 1.0) / 105) ** 0.5)


def test_tiles_that_share_statistics_are_read_so_that_their_borders_do_not_show(tile_preset, make_backbone):
    own = tile_settings(tile_preset, make_backbone(), 200, "shared")
    assert (own.scales, own.floor, own.area_side) == ((1.0,), 0.0, 128)
    assert own.top_fraction == tile_preset.top_fraction / 4  # of four times the cells
    assert tile_settings(tile_preset, make_backbone(), 100, "shared").area_side == 64  # no pixels for more
    assert tile_settings(tile_preset, make_backbone(), 200, "each") == tile_preset


def test_shared_statistics_are_those_of_all_cells_but_near_a_border(tiled_detector):
    stats = tiled_detector.inside.stats
    assert stats[TILE].median_Lhw[:, 1:-1, 1:-1].unique().numel() == 1
    assert stats[TILE].median_Lhw.unique().numel() == 2
    overview = stats[OVERVIEW].median_Lhw
    assert overview[:, 1:-1, 1:-1].unique().numel() == 1
    assert overview.unique().numel() == 2
