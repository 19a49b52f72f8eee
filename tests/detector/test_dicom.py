"""A score does not depend on whether a picture came as TIFF or as DICOM."""

import numpy as np
import pytest
import tifffile

pytest.importorskip("pydicom", reason="needs invad[dicom]")

from dicoms import dicom


@pytest.mark.parametrize("bits", [12, 16])
def test_scores_are_those_of_the_tiff_and_of_the_inverse(bits, detector, draw, tmp_path):
    rng = np.random.default_rng(bits)
    part = draw(3, defect=True, size=(70, 60))[..., 0].astype(np.uint16)
    grey = (part << (bits - 8)) + rng.integers(0, 1 << (bits - 8), part.shape, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "part.tif", grey)
    (tmp_path / "part.dcm").write_bytes(dicom(grey, BitsStored=bits))
    inverse = ((1 << bits) - 1 - grey).astype(np.uint16)
    (tmp_path / "inverse").write_bytes(dicom(inverse, "MONOCHROME1", BitsStored=bits))
    expected = detector.predict(tmp_path / "part.tif")
    for name in ("part.dcm", "inverse"):
        found = detector.predict(tmp_path / name)
        assert (found.score, found.p_value, found.decision) == (
            expected.score,
            expected.p_value,
            expected.decision,
        )
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
