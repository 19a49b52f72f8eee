"""Another region of interest for a bundle, without PyTorch, of the maps that it keeps of held-out images."""

from copy import copy

import numpy as np
import pytest

from bundles import altered
from invad import runtime
from invad.data.region import Region, inside_of
from invad.errors import ArtifactError, ConfigError, DataError
from invad.export import ExportConfig, export
from invad.runtime import changing, loading
from invad.runtime.certificate import TOLERANCES, certify, compare
from invad.scoring.rates import Rates

pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")

CORNER = Region(frame=(64, 64), ignore=(((33, 30), (64, 30), (64, 64), (33, 64)),))
TOP = Region(frame=(64, 64), ignore=(((0, 0), (64, 0), (64, 21), (0, 21)),), min_cover=0.4)
WIDE = Region(frame=(96, 64), ignore=(((0, 0), (40, 0), (40, 64), (0, 64)),))
WAYS = [
    ("onnx", "onnxruntime", None),
    ("openvino", "openvino", None),
    ("openvino", "openvino", (64, 64)),
    ("torch", "torch", None),
]


def same(model, bundle, pictures, category=None):
    """Whether two detectors say the same, as a certificate has it."""
    calibration, own = (one.calibrations[category or ""] for one in (model, bundle))
    for name, pixels in pictures.items():
        told, found = (one.predict(pixels, category=category) for one in (model, bundle))
        assert compare(name, calibration, told, found).problem(TOLERANCES["fp32"]) is None
        assert found.decision == told.decision
        np.testing.assert_allclose(found.cells, told.cells, atol=1e-2)
    assert own.n == calibration.n
    assert own.scores == pytest.approx(calibration.scores, rel=1e-4, abs=1e-4)
    assert own.peaks == pytest.approx(calibration.peaks, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("form", "engine", "size_hw"), WAYS)
def test_it_says_what_the_model_says_of_that_region(short_detector, draw, tmp_path, form, engine, size_hw):
    """Of a graph of one size OpenVINO takes away what does nothing, such as a region of all pixels."""
    pytest.importorskip(engine, reason=f"needs {engine}")
    export(short_detector, tmp_path / "bundle", ExportConfig(format=form, size_hw=size_hw))
    before = runtime.load(tmp_path / "bundle", engine, threads=1)
    pictures = {"good": draw(720), "defect": draw(721, True)}
    for region in (CORNER, TOP, "none"):
        model = copy(short_detector)
        model.calibrate(region=region)
        made = changing.calibrated(before, region=region)
        same(model, made, pictures, "part")
        same(model, made, pictures)


def test_of_several_categories_each_has_its_own_mean_picture(two_categories, bundle, draw, tmp_path):
    made, model = runtime.load(bundle, threads=1), copy(two_categories)
    for number, asked in enumerate(
        (
            {"regions": {"wide": WIDE}},
            {"regions": {"wide": "none", "part": CORNER}, "rates": Rates(review=0.2, bad=0.05)},
            {"region": TOP, "regions": {"part": "none"}, "min_area": 400.0},
            {"region": "none", "regions": {"part": "none"}, "min_area": "none"},
        )
    ):
        model.calibrate(**asked)
        changing.save(changing.calibrated(made, **asked), tmp_path / str(number))
        made = runtime.load(tmp_path / str(number), threads=1)
        assert (made.region, made.regions, made.smallest) == (model.region, model.regions, model.smallest)
        parts = {"good": draw(720), "defect": draw(721, True)}
        for category in (None, "part"):
            same(model, made, parts, category)
        if made.region is None:
            same(model, made, {"wide": draw(722, size=(96, 64))}, "wide")
        assert set(changing.warnings_about(made)) == set(model.warnings())


def test_what_is_ignored_changes_nothing_in_a_bundle_that_was_saved(own_bundle, draw, tmp_path, monkeypatch):
    before = runtime.load(own_bundle, threads=1)
    made = changing.calibrated(before, region=CORNER)
    elsewhere = changing.save(made, tmp_path / "new")
    here = changing.save(changing.calibrated(before, region=CORNER), own_bundle)
    assert elsewhere == here != before.content_hash
    picture, inside = draw(723, True), inside_of(CORNER)
    noise = np.random.default_rng(0).integers(0, 256, picture.shape, np.uint8)
    monkeypatch.setattr(loading, "made_by", lambda detector: {"engine": "another"})
    for folder in (own_bundle, tmp_path / "new"):
        found = runtime.load(folder, threads=1)
        assert found.region == CORNER
        one, other = (
            found.predict(p, category="part") for p in (picture, np.where(inside[..., None], picture, noise))
        )
        assert one.score == other.score == made.predict(picture, category="part").score
        assert (other.anomaly_map[~inside] == 0).all()
        with pytest.raises(DataError, match="drawn on pictures of 64 x 64"):
            found.predict(draw(0, size=(96, 64)), category="part")
        # The certificate is about the graph, which stays as it was.
        assert not certify(loading.as_certified(found), folder).problems
    assert sorted(p.name for p in own_bundle.glob("limits-*")) == [found.info.limits]
    changing.save(changing.calibrated(found, region=TOP), tmp_path / "newer")
    assert runtime.load(tmp_path / "newer", threads=1).info.as_exported == before.info
    (own_bundle / found.info.limits).write_bytes(b"")
    with pytest.raises(ArtifactError, match="altered or truncated"):
        runtime.load(own_bundle)


def test_an_engine_that_does_not_take_the_region_is_found_out(bundle, monkeypatch):
    before = runtime.load(bundle, threads=1)
    monkeypatch.setattr(loading, "constants_of", lambda *given: {})
    with pytest.raises(ArtifactError, match="did not take the region of interest into the graph"):
        changing.calibrated(before, region=CORNER)


def test_what_a_bundle_cannot_take_is_one_line(bundle, tmp_path):
    before = runtime.load(bundle, threads=1)
    with pytest.raises(DataError, match=r"drawn on pictures of 32 x 32 pixels, and the good ones .* 64 x 64"):
        changing.calibrated(before, region=Region(frame=(32, 32), include=(((0, 0), (9, 0), (9, 32)),)))
    with pytest.raises(ConfigError, match="no category 'cap'; choose from part, wide"):
        changing.calibrated(before, regions={"cap": CORNER})
    with pytest.raises(ConfigError, match="a cell of the model covers"):
        changing.calibrated(before, region=CORNER, min_area=2)
    with pytest.raises(ConfigError, match="of pictures of one size, and these are of 64 x 64 and 96 x 64"):
        changing.calibrated(before, regions={"part": CORNER, "wide": WIDE})
    old = altered(bundle, tmp_path / "old", lambda plain: plain.pop("held"))
    with pytest.raises(ConfigError, match="an older invad exported it"):
        changing.calibrated(runtime.load(old, threads=1), region=CORNER)


def test_a_model_that_has_a_region_can_ignore_more_in_its_bundle(short_detector, draw, tmp_path):
    model = copy(short_detector)
    model.calibrate(region=CORNER)
    export(model, tmp_path / "bundle", ExportConfig())
    before = runtime.load(tmp_path / "bundle", threads=1)
    both = Region(frame=CORNER.frame, ignore=(*CORNER.ignore, *TOP.ignore))
    for region in (both, "none"):
        model.calibrate(region=region)
        same(model, changing.calibrated(before, region=region), {"good": draw(720)}, "part")
    with pytest.raises(ConfigError, match="one region for all of its pictures"):
        changing.calibrated(before, regions={"part": both})
    with pytest.raises(ConfigError, match="the bundle takes 64 x 64 alone"):
        changing.calibrated(before, region=WIDE)
