"""Samples of FiftyOne, in memory: its database, MongoDB, is not needed for what a sample holds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from integrations.one_defect import HEIGHT, LIMIT, WIDTH, H, W, X, Y, box_of, defect, good, prediction
from invad.data.datasets import load_dataset
from invad.data.masks import read_mask
from invad.errors import DataError
from invad.integrations.fiftyone import add_predictions, from_samples, to_calibration

LIMITS = (LIMIT, 2 * LIMIT)


@pytest.fixture
def fo():
    return pytest.importorskip("fiftyone", reason="needs fiftyone, which CI leaves out for its database")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "abcd":
        Image.new("L", (WIDTH, HEIGHT), 90).save(folder / f"{name}.png")
    return folder


def sample(fo, images, name, *tags, **fields):
    return fo.Sample(filepath=str(images / f"{name}.png"), tags=list(tags), **fields)


def test_a_sample_gets_what_fiftyone_itself_reads(fo, images, tmp_path):
    one, other = sample(fo, images, "a"), sample(fo, images, "b")
    found = [prediction(images / "a.png"), good(images / "b.png")]
    assert add_predictions([one, other], found, LIMITS, tmp_path / "files") == 2
    assert (one["invad"].label, one["invad"].confidence) == ("bad", 0.98)
    assert (one["invad_score"], one["invad_p_value"]) == (3.5, 0.02)
    (region,) = one["invad_regions"].detections
    assert region.bounding_box == [X / WIDTH, Y / HEIGHT, W / WIDTH, H / HEIGHT]
    assert region.area == defect().sum()
    # FiftyOne's own readers and its own way of drawing a detection into an image.
    np.testing.assert_array_equal(one["invad_mask"].get_mask() > 0, defect())
    drawn = region.to_segmentation(frame_size=(WIDTH, HEIGHT)).mask > 0
    assert np.abs(np.subtract(box_of(drawn), (X, Y, W, H))).max() <= 1  # it cuts, where 13.0 is 12.99
    expected = np.round(255 * (found[0].anomaly_map / LIMITS[1]).clip(0, 1))
    np.testing.assert_array_equal(one["invad_map"].get_map(), expected)
    assert Path(region.mask_path).is_absolute()
    again = fo.Sample.from_dict(one.to_dict())
    assert again["invad_regions"].detections[0].bounding_box == region.bounding_box
    assert other["invad_regions"].detections == []
    assert other["invad"].label == "good"


def test_a_prediction_without_a_sample_is_an_error(fo, images, tmp_path):
    with pytest.raises(DataError, match=r"b.png: no sample of this path"):
        add_predictions([sample(fo, images, "a")], [good(images / "b.png")], LIMITS, tmp_path / "files")


def test_what_was_marked_becomes_a_set(fo, images, tmp_path):
    boxes = fo.Detections(
        detections=[fo.Detection(label="cut", bounding_box=[X / WIDTH, Y / HEIGHT, W / WIDTH, H / HEIGHT])]
    )
    drawn = fo.Segmentation(mask=defect().astype(np.uint8))
    samples = [
        sample(fo, images, "a", ground_truth=boxes),
        sample(fo, images, "b", ground_truth=drawn),
        sample(fo, images, "c", "bad"),
        sample(fo, images, "d"),
    ]
    made = from_samples(samples, images, tmp_path / "set")
    assert (made.good, made.bad, made.masks) == (0, 3, 2)
    assert made.left_out == (f"{images / 'd.png'}: has nothing in 'ground_truth' and no tag good or bad",)
    found = {one.path.name: one for one in load_dataset(tmp_path / "set").test}
    assert [found[f"{name}.png"].defect for name in "abc"] == ["cut", "defect", "defect"]
    np.testing.assert_array_equal(read_mask(found["b.png"].mask_path), defect())
    assert read_mask(found["a.png"].mask_path).sum() == W * H


def test_what_contradicts_itself_is_left_out_and_named(fo, images, tmp_path):
    small = fo.Segmentation(mask=np.ones((3, 3), np.uint8))
    samples = [
        sample(fo, images, "a", "good", ground_truth=fo.Segmentation(mask=defect().astype(np.uint8))),
        sample(fo, images, "b", ground_truth=small),
        sample(fo, images, "c", ground_truth=fo.Classification(label="bad")),
        sample(fo, images, "d", ground_truth=fo.Detections()),
    ]
    made = from_samples(samples, images, tmp_path / "set")
    words = ("has the tag good and a region", f"not of {WIDTH} x {HEIGHT}", "is a Classification")
    assert [word in line for word, line in zip(words, made.left_out, strict=True)] == [True] * 3
    assert made.good == 1


def said(fo, label):
    return fo.Classification(label=label)


def test_a_span_of_time_calibrates_as_a_whole(fo, images):
    samples = [
        sample(fo, images, "a", invad=said(fo, "good")),
        sample(fo, images, "b", "good", invad=said(fo, "review")),
        sample(fo, images, "c", "bad", invad=said(fo, "bad")),
        sample(fo, images, "d", "bad", invad=said(fo, "good")),
    ]
    assert [one.path.name for one in to_calibration(samples)] == ["a.png", "b.png"]
    assert {one.category for one in to_calibration(samples)} == {"images"}
    samples[1].tags = []
    with pytest.raises(DataError, match="1 of 2 flagged samples have no tag"):
        to_calibration(samples)
    with pytest.raises(DataError, match="neither a tag nor a prediction"):
        to_calibration([sample(fo, images, "a")])
    with pytest.raises(DataError, match="has the tags good and bad"):
        to_calibration([sample(fo, images, "a", "good", "bad")])
    with pytest.raises(DataError, match="no sample is good"):
        to_calibration(samples[2:])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_its_importer_of_coco_reads_our_file(fo, images, tmp_path):
    import json

    from fiftyone.utils.coco import load_coco_detection_annotations

    from invad.integrations.coco import to_coco

    path = tmp_path / "coco.json"
    path.write_text(
        json.dumps(to_coco([prediction(images / "a.png"), good(images / "b.png")], LIMIT, images))
    )
    _, classes, _, listed, annotations = load_coco_detection_annotations(str(path), extra_attrs=True)
    assert [one["file_name"] for one in listed.values()] == ["a.png", "b.png"]
    ((found,),) = annotations.values()
    detection = found.to_detection((WIDTH, HEIGHT), classes_map=classes, load_segmentation=True)
    assert (detection.label, detection.confidence) == ("defect", 3.5)
    assert detection.bounding_box == pytest.approx([X / WIDTH, Y / HEIGHT, W / WIDTH, H / HEIGHT])
    np.testing.assert_array_equal(detection.mask, defect()[Y : Y + H, X : X + W])
