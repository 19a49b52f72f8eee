"""Tiles in a detector that computes nothing but means: what a seam, a shift or a size does to a score."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from invad.data.tiling import OVERVIEW, TILE, Tiling
from invad.errors import ConfigError, DataError
from invad.runtime.fusing import Tiled, Usual
from invad.runtime.tiled import BATCH, TiledPredictor, _batch
from invad.scoring.calibration import Calibration
from invad.scoring.rates import POOLED
from invad.scoring.spread import top_mean


@dataclass
class Means:
    """The mean level of each cell, less 100: a cell that sees nothing but itself."""

    cells: int = 8
    runs: list[int] = field(default_factory=list)

    def cell_maps(self, pixels, categories):
        assert len({one.shape for one in pixels}) == 1
        self.runs.append(len(pixels))
        return [self._map(one) for one in pixels]

    def _map(self, pixels):
        rows, columns = (
            np.arange(side) * self.cells // side for side in pixels.shape[:2]
        )  # the cell of each pixel
        sums, counts = np.zeros((self.cells,) * 2), np.zeros((self.cells,) * 2)
        np.add.at(sums, np.ix_(rows, columns), pixels[..., 0].astype(float) - 100)
        np.add.at(counts, np.ix_(rows, columns), 1)
        return (sums / counts).astype(np.float32)

    def group_size(self, batch):
        return batch


def tiled(inside=None, **tiling):
    limits = Calibration(scores=tuple(range(100)), peaks=tuple(range(100)))
    return TiledPredictor(
        inside or Means(),
        Tiled(
            tiling=Tiling(tile_px=64, **tiling),
            grid_hw=(8, 8),
            top_cells=1,
            places={TILE: Usual(median=0, spread=1), OVERVIEW: Usual(median=0, spread=1)},
            calibrations={POOLED: limits},
        ),
    )


def picture(size_hw=(160, 240), spot=None, level=200):
    pixels = np.full((*size_hw, 3), 100, np.uint8)
    if spot is not None:
        top, left = spot
        pixels[top : top + 8, left : left + 8] = level
    return pixels


def test_a_defect_on_a_seam_scores_as_one_in_a_core():
    detector = tiled()
    cut = detector.cut((160, 240))
    seams = [8 * (start + 1) for start in cut.along.origins[1:]]
    core, *others = (detector.predict(picture(spot=(72, left))).score for left in (24, *seams))
    assert core == pytest.approx(100, rel=0.01)
    assert others == pytest.approx([core] * len(others), rel=0.1)


def test_a_shift_by_half_a_tile_hardly_changes_a_score():
    detector = tiled()
    scores = [detector.predict(picture(spot=(72, left))).score for left in range(32, 200, 32)]
    assert np.ptp(scores) <= 0.1 * scores[0]


def test_the_map_has_the_frame_of_the_picture_and_its_cells_that_of_the_blend():
    detector = tiled()
    found = detector.predict(picture(spot=(120, 200), level=255))
    assert found.anomaly_map.shape == (160, 240)
    y, x = np.unravel_index(found.anomaly_map.argmax(), found.anomaly_map.shape)
    assert (abs(y - 124), abs(x - 204)) <= (4, 4)
    assert detector.grid_for((160, 240)) == (20, 30)
    defect, *_ = detector.defects(found)
    assert defect.cell_px == 8


def test_what_no_tile_shows_shows_in_the_overview():
    class FromFar(Means):
        def _map(self, pixels):
            return super()._map(pixels) * (min(pixels.shape[:2]) > 64)

    pixels = picture()
    pixels[:, 120:] = 150
    found = tiled(FromFar()).predict(pixels)
    assert found.score == pytest.approx(50, rel=0.1)
    assert found.anomaly_map[80, 200] > 10 * abs(found.anomaly_map[80, 40])


def test_tiles_share_runs_and_a_score_does_not_depend_on_what_else_is_scored():
    detector = tiled(Means())
    one = detector.predict(picture(spot=(10, 10)))
    many = detector.predict([picture(), picture(spot=(10, 10)), picture((64, 64))])
    assert many[1].score == one.score
    assert max(detector.inside.runs) == BATCH


def test_fewer_large_tiles_share_a_run():
    assert [_batch(Means(), (side, side)) for side in (12, 16, 24, 64)] == [8, 4, 2, 1]


def test_pictures_that_cannot_be_cut_are_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"<array>: 240 x 40 pixels, smaller than a tile of 64"):
        tiled().predict(picture((40, 240)))
    each = tiled(positions="each", picture_hw=(160, 240))
    with pytest.raises(DataError, match="of 240 x 160 alone"):
        each.predict(picture((160, 248)))
    monkeypatch.setattr("invad.runtime.tiled.LARGEST", 30_000)
    with pytest.raises(DataError, match="240 x 160 pixels is over the limit of 30000"):
        tiled().predict(picture())
    monkeypatch.setenv("INVAD_MAX_PIXELS", "1000")
    with pytest.raises(DataError, match="over the limit of 1000"):
        tiled().predict(picture())


def test_an_unreadable_picture_names_its_file(tmp_path):
    from PIL import Image

    path = tmp_path / "small.png"
    Image.fromarray(picture((32, 32))).save(path)
    found = next(iter(tiled().predict_many([path])))
    assert str(found).startswith(f"{path}: 32 x 32 pixels, smaller than a tile")


def test_of_a_bundle_that_runs_one_at_a_time_tiles_run_so():
    class One(Means):
        def group_size(self, batch):
            if batch != 1:
                raise ConfigError("one at a time")
            return 1

    detector = tiled(One())
    detector.predict(picture())
    assert set(detector.inside.runs) == {1}


def test_the_mean_of_the_largest_cells():
    cells = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert top_mean(cells, 2) == 10.5
    assert top_mean(cells, 50) == 5.5
