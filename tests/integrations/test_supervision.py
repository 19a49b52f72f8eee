"""Detections of supervision: one for each region, and none for a good picture."""

import numpy as np
import pytest

from integrations.one_defect import HEIGHT, LIMIT, WIDTH, defect, good, prediction
from invad.integrations.supervision import to_detections


def test_regions_are_detections():
    sv = pytest.importorskip("supervision", reason="needs invad[supervision]")
    mask = defect()
    mask[70:75, 5:12] = True
    found = to_detections(prediction(mask=mask), LIMIT)
    assert isinstance(found, sv.Detections)
    assert len(found) == 2
    np.testing.assert_array_equal(found.mask.any(axis=0), mask)
    np.testing.assert_array_equal(np.add(sv.mask_to_xyxy(found.mask), (0, 0, 1, 1)), found.xyxy)
    assert found.data["area"].tolist() == found.mask.sum(axis=(1, 2)).tolist()
    assert found.data["peak"].tolist() == sorted(found.data["peak"], reverse=True)
    assert found.confidence.tolist() == pytest.approx([0.98, 0.98])
    drawn = sv.BoxAnnotator().annotate(np.zeros((HEIGHT, WIDTH, 3), np.uint8), found)
    assert drawn.any()
    assert to_detections(prediction(), LIMIT, masks=False).mask is None


def test_a_good_picture_has_none():
    pytest.importorskip("supervision", reason="needs invad[supervision]")
    found = to_detections(good(), LIMIT)
    assert (len(found), found.xyxy.shape, found.mask.shape) == (0, (0, 4), (0, HEIGHT, WIDTH))
