"""A region of interest in a bundle that runs without PyTorch."""

import numpy as np
import pytest

from invad import runtime
from invad.data.region import Region, inside_of
from invad.detector.detector import Detector
from invad.errors import ConfigError, DataError
from invad.export import ExportConfig, export

pytest.importorskip("onnx", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")

REGION = Region(frame=(80, 64), ignore=(((0.0, 0.0), (33.0, 0.0), (20.0, 64.0), (0.0, 64.0)),), min_cover=0.4)


@pytest.fixture(scope="module")
def partial(short_detector, write_parts, make_backbone, tmp_path_factory):
    """Fitted on pictures of 80 x 64, which are resized before the network."""
    samples = write_parts(tmp_path_factory.mktemp("wide"), 12, size=(80, 64))
    return Detector.fit(
        samples, preset=short_detector.info.settings, backbone=make_backbone(), device="cpu", region=REGION
    )


def test_a_bundle_has_the_region_in_it(partial, draw, tmp_path):
    export(partial, tmp_path / "bundle", ExportConfig())
    bundle = runtime.load(tmp_path / "bundle", threads=1)
    assert bundle.info.region == REGION
    inside = inside_of(REGION)
    for defect in (False, True):
        picture = draw(720, defect, size=(80, 64))
        noise = np.random.default_rng(0).integers(0, 256, picture.shape, np.uint8)
        told, found = partial.predict(picture), bundle.predict(picture)
        other = bundle.predict(np.where(inside[..., None], picture, noise))
        assert found.score == pytest.approx(told.score, abs=1e-3)
        assert found.decision == told.decision
        assert other.score == pytest.approx(found.score, abs=1e-6)
        np.testing.assert_allclose(other.anomaly_map, found.anomaly_map, atol=1e-6)
        assert (found.anomaly_map[~inside] == 0).all()
        assert (bundle.inside_HW == inside).all()
    with pytest.raises(DataError, match=r"64 x 64 pixels, and the region of interest is drawn on .* 80 x 64"):
        bundle.predict(draw(0))


def test_it_is_exported_for_pictures_of_its_size_alone(partial, tmp_path):
    with pytest.raises(ConfigError, match="80 x 64 pixels, so it is exported for those alone"):
        export(partial, tmp_path / "bundle", ExportConfig(size_hw=(64, 64)))
    assert not (tmp_path / "bundle").exists()
