"""Categories of a model of tiles that look at parts of the pictures of their own."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from invad import Sample, TiledDetector, Tiling, evaluate
from invad.data.region import Region
from invad.errors import ConfigError, DataError

CORNER = Region(frame=(160, 120), ignore=(((90, 50), (160, 50), (160, 120), (90, 120)),))
LEFT = Region(frame=(160, 120), ignore=(((0, 0), (70, 0), (70, 120), (0, 120)),))
CODE, OTHER = (80, 124), (50, 24)
"""Places of a spot that CORNER and LEFT ignore."""


@pytest.fixture(scope="module")
def data(draw_cloth, tmp_path_factory):
    """a/train/good and b/train/good with 12 pictures each; those of b are lighter."""
    root = tmp_path_factory.mktemp("cloths")
    for first, category in enumerate("ab"):
        folder = root / category / "train/good"
        folder.mkdir(parents=True)
        for seed in range(12):
            pixels = lit(draw_cloth(600 + 100 * first + seed), category)
            Image.fromarray(pixels).save(folder / f"{seed:02d}.png", compress_level=1)
    return root


@pytest.fixture(scope="module")
def both(data, tile_preset, tmp_path_factory):
    """The folder of a model in which a does not look at the corner. Not to be written to."""
    folder = tmp_path_factory.mktemp("both")
    options = {"tiling": Tiling(tile_px=64), "preset": tile_preset, "device": "cpu"}
    TiledDetector.fit(data, regions={"a": CORNER}, **options).save(folder / "model")
    return folder / "model"


@pytest.fixture
def own(both):
    return TiledDetector.load(both, device="cpu")


def lit(pixels, category):
    return pixels if category == "a" else (pixels * 0.8 + 50).astype(np.uint8)


def decided(detector, draw_cloth, spot, category, judged_as=""):
    pixels = lit(draw_cloth(300, spot=spot), category)
    return detector.predict(pixels, category=category if judged_as == "" else judged_as).decision


def test_a_category_looks_at_its_own_part(own, draw_cloth):
    assert (own.region, own.regions) == (None, {"a": CORNER})
    assert decided(own, draw_cloth, CODE, "a") == "good"
    assert decided(own, draw_cloth, OTHER, "a") == "bad"
    assert decided(own, draw_cloth, CODE, "b") == "bad"
    assert decided(own, draw_cloth, CODE, "a", None) == "bad"
    found = own.predict(draw_cloth(300, spot=CODE), category="a").anomaly_map
    np.testing.assert_allclose(found[60:, 100:], found.min(), rtol=1e-6)
    assert any(line.startswith("category a: the good images that set") for line in own.warnings())


def test_regions_come_and_go_without_pictures(own, draw_cloth, both, tmp_path):
    before = own.calibrations
    own.calibrate(regions={"b": LEFT, "a": "none"})
    assert own.regions == {"b": LEFT}
    assert decided(own, draw_cloth, OTHER, "b") == "good"
    assert decided(own, draw_cloth, CODE, "a") == "bad"
    np.testing.assert_allclose(own.calibrations[""].scores, before[""].scores, rtol=1e-6)
    own.save(tmp_path / "model")
    again = TiledDetector.load(tmp_path / "model", device="cpu")
    assert again.regions == {"b": LEFT}
    assert "region of b | 56% of pictures" in (tmp_path / "model/README.md").read_text()
    picture = lit(draw_cloth(301), "b")
    assert again.predict(picture, category="b").score == own.predict(picture, category="b").score
    with pytest.raises(ConfigError, match="no category 'c'; choose from a, b"):
        own.calibrate(regions={"c": LEFT})
    with pytest.raises(DataError, match="category a: a held-out picture: 160 x 120 pixels, and the region"):
        own.calibrate(regions={"a": Region(frame=(99, 99), ignore=(((0, 0), (9, 0), (9, 9)),))})
    assert own.regions == {"b": LEFT}


def test_with_pictures_what_a_category_ignores_changes_nothing(own, draw_cloth, data):
    own.inside.info = replace(own.inside.info, fit=replace(own.inside.info.fit, trained=()))
    files = sorted(data.rglob("*.png"))
    own.calibrate([Sample(path=path, category=path.parts[-4]) for path in files])
    assert own.regions == {"a": CORNER}
    assert not any(line.startswith("category a") for line in own.warnings())
    plain, coded = own.predict([draw_cloth(300), draw_cloth(300, spot=CODE)], category="a")
    assert coded.score == pytest.approx(plain.score, abs=1e-6)
    assert decided(own, draw_cloth, CODE, "b") == "bad"


def test_an_evaluation_goes_by_the_region_of_the_category(own, draw_cloth, tmp_path):
    folder = tmp_path / "a/test"
    for name, spot in (("good", None), ("code", CODE), ("spot", OTHER)):
        (folder / name).mkdir(parents=True)
        Image.fromarray(draw_cloth(310, spot=spot)).save(folder / name / "0.png")
        if spot is not None:
            mask = np.zeros((120, 160), np.uint8)
            mask[spot[0] : spot[0] + 8, spot[1] : spot[1] + 8] = 255
            (tmp_path / "a/ground_truth" / name).mkdir(parents=True)
            Image.fromarray(mask).save(tmp_path / "a/ground_truth" / name / "0_mask.png")
    (tmp_path / "a/train/good").mkdir(parents=True)
    Image.fromarray(draw_cloth(311)).save(tmp_path / "a/train/good/0.png")
    found = evaluate(own, tmp_path)
    assert (found.metrics["n_normal"], found.metrics["n_anomalous"]) == (1, 1)


def test_a_station_looks_at_its_own_part_of_all(own, draw_cloth):
    from invad.detector.regional import with_region

    made = with_region(own, LEFT)
    assert (made.region, made.regions, own.regions) == (LEFT, {}, {"a": CORNER})
    assert decided(made, draw_cloth, OTHER, "b") == "good"


def test_a_bundle_has_the_regions(own, draw_cloth, tmp_path):
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
    from invad import runtime
    from invad.export import ExportConfig, export

    export(own, tmp_path / "bundle", ExportConfig())
    bundle = runtime.load(tmp_path / "bundle")
    assert bundle.regions == own.regions
    for category in ("a", "b", None):
        for picture in (draw_cloth(300, spot=CODE), draw_cloth(301, spot=OTHER)):
            here, there = (one.predict(picture, category=category) for one in (own, bundle))
            assert there.score == pytest.approx(here.score, abs=1e-3 * (1 + abs(here.score)))
            assert there.decision == here.decision
