"""One picture that is not square, with a defect away from its middle, goes through every tool and comes back.

Their boxes are in pixels, in percent, or in shares of the image.
"""

import json

import numpy as np
import pytest
from PIL import Image

from integrations.one_defect import HEIGHT, LIMIT, WIDTH, H, W, X, Y, box_of, defect, prediction
from invad.data.annotated import Annotation, write_annotations
from invad.data.datasets import load_dataset
from invad.data.masks import read_mask
from invad.integrations import coco, fiftyone, label_studio
from invad.integrations.supervision import to_detections


@pytest.fixture
def picture(tmp_path):
    """Its own size is as the file says, turned by EXIF: only who reads it upright finds the place."""
    path = tmp_path / "images" / "parts" / "a.png"
    path.parent.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH), (90, 90, 90)).save(path, exif=exif)
    return path


def by_coco(found, images, folder):
    file = folder / "coco.json"
    file.write_text(json.dumps(coco.to_coco([found], LIMIT, images)))
    coco.from_coco(file, images, folder / "set")


def by_label_studio(shape):
    def trip(found, images, folder):
        (task,) = label_studio.to_tasks([found], LIMIT, images=images, shape=shape)
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
        file = folder / "export.json"
        file.write_text(json.dumps([task]))
        label_studio.from_label_studio(file, images, folder / "set")

    return trip


def by_fiftyone(found, images, folder):
    host = pytest.importorskip("fiftyone", reason="needs fiftyone, which CI leaves out for its database")
    sample = host.Sample(filepath=found.path)
    fiftyone.add_predictions([sample], [found], (LIMIT, 2 * LIMIT), folder / "files")
    fiftyone.from_samples([sample], images, folder / "set", "invad_regions")


def by_supervision(found, images, folder):
    """It only shows and measures: whoever gets its boxes and masks writes them down."""
    pytest.importorskip("supervision", reason="needs invad[supervision]")
    detections = to_detections(found, LIMIT)
    left, top, right, bottom = detections.xyxy[0]
    assert (left, top, right - left, bottom - top) == (X, Y, W, H)
    said = Annotation(
        name=found.path, size_hw=(HEIGHT, WIDTH), kind="defect", mask_HW=detections.mask.any(axis=0)
    )
    write_annotations([said], images, folder / "set")


TRIPS = {
    "COCO": by_coco,
    "Label Studio, brush": by_label_studio("brush"),
    "Label Studio, box": by_label_studio("box"),
    "FiftyOne": by_fiftyone,
    "supervision": by_supervision,
}


@pytest.mark.parametrize("tool", TRIPS)
def test_the_defect_comes_back_within_a_pixel(tool, picture, tmp_path):
    images = tmp_path / "images"
    TRIPS[tool](prediction(picture), images, tmp_path)
    (sample,) = load_dataset(tmp_path / "set").test
    assert sample.path == picture
    mask = read_mask(sample.mask_path, size_hw=(HEIGHT, WIDTH))
    assert np.abs(np.subtract(box_of(mask), (X, Y, W, H))).max() <= 1
    if "box" not in tool:
        np.testing.assert_array_equal(mask, defect())
