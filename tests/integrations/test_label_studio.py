"""Tasks and exports of Label Studio, against the converter of its own package."""

import importlib.util
import json
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from integrations.one_defect import HEIGHT, LIMIT, WIDTH, H, W, X, Y, box_of, defect, good, prediction
from invad.data.datasets import load_dataset
from invad.data.masks import read_mask
from invad.errors import DataError
from invad.integrations.label_studio import (
    CONFIG,
    decode_rle,
    encode_rle,
    from_label_studio,
    mask_of,
    to_tasks,
)

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24))
GOLDEN = Path(__file__).parents[1] / "golden" / "label_studio_rle.json"


@pytest.fixture(scope="module")
def converter():
    """The one module of label-studio-sdk that knows the format; the package brings an older numpy."""
    spec = importlib.util.find_spec("label_studio_sdk")
    if spec is None:
        pytest.skip("label-studio-sdk is not installed; 'pip install --no-deps label-studio-sdk' will do")
    path = Path(spec.submodule_search_locations[0]) / "converter" / "brush.py"
    own = importlib.util.spec_from_file_location("brush", path)
    module = importlib.util.module_from_spec(own)
    own.loader.exec_module(module)
    return module


@given(masks)
def test_masks_come_back(mask):
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), mask.shape), mask)


def test_long_runs_come_back():
    mask = np.zeros((500, 700), bool)
    mask[100:480, 3:] = True
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), mask.shape), mask)


def test_what_label_studio_packed_is_read():
    """Bytes of `encode_rle` of label-studio-sdk 2.1.2, which writes literals, too."""
    for one in json.loads(GOLDEN.read_text()):
        mask = np.array(one["mask"], bool)
        np.testing.assert_array_equal(decode_rle(one["rle"], mask.shape), mask)


def test_the_converter_of_label_studio_agrees(converter):
    @given(masks)
    def agrees(mask):
        rgba = np.repeat(mask.astype(np.uint8) * 255, 4)
        np.testing.assert_array_equal(converter.decode_rle(encode_rle(mask)), rgba)
        np.testing.assert_array_equal(decode_rle(converter.encode_rle(rgba), mask.shape), mask)

    agrees()


@given(masks, st.integers(0, 2**32 - 1))
def test_damaged_bytes_never_do_more_than_fail(mask, seed):
    content = bytearray(encode_rle(mask))
    rng = np.random.default_rng(seed)
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    with suppress(DataError):
        decode_rle(bytes(content[: rng.integers(1, len(content) + 1)]), mask.shape)


def test_a_task_names_the_controls_of_the_configuration():
    (task,) = to_tasks([prediction("a b/ä.png")], LIMIT, url="https://host/", model_version="abc")
    assert task["data"]["image"] == "https://host/a%20b/%C3%A4.png"
    (said,) = task["predictions"]
    assert (said["model_version"], said["score"]) == ("abc", 0.98)
    view = ET.fromstring(CONFIG)
    controls = {tag.get("name"): tag for tag in view}
    for region in said["result"]:
        control = controls[region["from_name"]]
        assert control.tag.lower() == region["type"]
        assert control.get("toName") == region["to_name"] == "image"
        (value,) = region["value"][region["type"]]
        assert value in [label.get("value") for label in control]
        assert (region["original_width"], region["original_height"]) == (WIDTH, HEIGHT)
    assert [region["type"] for region in said["result"]] == ["brushlabels", "choices"]
    np.testing.assert_array_equal(mask_of(said["result"][0]), defect())


def test_boxes_are_in_percent():
    (task,) = to_tasks([prediction()], LIMIT, shape="box")
    box = task["predictions"][0]["result"][0]
    value = box["value"]
    assert (value["x"], value["width"]) == (pytest.approx(100 * X / WIDTH), pytest.approx(100 * W / WIDTH))
    assert (value["y"], value["height"]) == (pytest.approx(100 * Y / HEIGHT), pytest.approx(100 * H / HEIGHT))
    assert box_of(mask_of(box)) == (X, Y, W, H)


def region(type, value, **more):
    return {"type": type, "value": value, "original_width": WIDTH, "original_height": HEIGHT, **more}


def test_other_shapes_mark_what_they_hold():
    square = [(20.0, 10.0), (50.0, 10.0), (50.0, 60.0), (20.0, 60.0)]
    polygon = mask_of(region("polygonlabels", {"points": square, "polygonlabels": ["cut"]}))
    box = mask_of(region("rectanglelabels", {"x": 20, "y": 10, "width": 30, "height": 50}))
    assert [abs(a - b) <= 1 for a, b in zip(box_of(polygon), box_of(box), strict=True)] == [True] * 4
    # A quarter turn around the corner at the left and top of (80, 45): down 16 pixels, left 18.
    turned = mask_of(region("rectanglelabels", {"x": 50, "y": 50, "width": 10, "height": 20, "rotation": 90}))
    assert np.abs(np.subtract(box_of(turned), (62, 45, 18, 16))).max() <= 1
    ellipse = mask_of(region("ellipselabels", {"x": 50, "y": 50, "radiusX": 20, "radiusY": 20}))
    assert ellipse.sum() == pytest.approx(np.pi * 32 * 18, rel=0.01)
    assert np.abs(np.subtract(box_of(ellipse), (48, 27, 64, 36))).max() <= 1
    with pytest.raises(DataError, match="type 'keypointlabels' marks no pixels"):
        mask_of(region("keypointlabels", {"x": 1, "y": 1, "width": 1}))
    with pytest.raises(DataError, match="was turned in the editor"):
        mask_of(region("rectanglelabels", {"x": 1}, image_rotation=90))


def annotation(*results, **more):
    return {"result": list(results), "was_cancelled": False, "updated_at": "2026-01-01", **more}


def task(image, *annotations, id=1):
    return {"id": id, "data": {"image": image}, "annotations": list(annotations)}


def brush(mask, label="scratch"):
    value = {"format": "rle", "rle": list(encode_rle(mask)), "brushlabels": [label]}
    return region("brushlabels", value)


def choice(word):
    return {"type": "choices", "value": {"choices": [word]}}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("sub/a.png", "good.png", "odd.png", "other.png"):
        Image.new("L", (WIDTH, HEIGHT), 90).save(folder / name)
    return folder


def written(tasks, images, tmp_path):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    return from_label_studio(path, images, tmp_path / "set")


def test_an_export_becomes_a_set(images, tmp_path):
    old = annotation(updated_at="2025-01-01")
    made = written(
        [
            task("/data/local-files/?d=parts/images/sub/a.png", old, annotation(brush(defect()))),
            task("/data/upload/3/0a1b2c3d-good.png", annotation(), id=2),
            task("s3://bucket/odd.png", annotation(choice("bad")), id=3),
            task("other.png", annotation(choice("good")), id=4),
        ],
        images,
        tmp_path,
    )
    assert (made.good, made.bad, made.masks, made.left_out) == (2, 2, 1, ())
    dataset = load_dataset(tmp_path / "set")
    bad = {s.path.name: s for s in dataset.test if s.is_anomalous}
    assert (bad["a.png"].defect, bad["odd.png"].defect, bad["odd.png"].mask_path) == (
        "scratch",
        "defect",
        None,
    )
    np.testing.assert_array_equal(read_mask(bad["a.png"].mask_path), defect())


def test_what_nobody_decided_is_left_out_and_named(images, tmp_path):
    cancelled = annotation(brush(defect()), was_cancelled=True)
    other = {**brush(defect().T), "original_width": HEIGHT, "original_height": WIDTH}
    made = written(
        [
            task("sub/a.png", annotation(choice("good"))),
            task("good.png", cancelled, id=2),
            task("odd.png", annotation(choice("review")), id=3),
            task("other.png", annotation(choice("good"), brush(defect())), id=4),
            task("lost.png", annotation(), id=5),
            task("sub/a.png", annotation(other), id=6),
            task("sub/a.png", annotation(brush(defect(), "OK")), id=7),
            task("sub/a.png", annotation({"type": "brushlabels", "value": {}}), id=8),
        ],
        images,
        tmp_path,
    )
    assert (made.good, made.bad) == (1, 0)
    words = (
        "good.png: has no annotation that was submitted",
        "odd.png: its decision is 'review'",
        "other.png: is called good and has a region",
        "lost.png: no such image below",
        "its annotation 90 x 160",
        "a region is called 'OK'",
        "cannot be read in",
    )
    assert [word in line for word, line in zip(words, made.left_out, strict=True)] == [True] * 7


def test_a_name_that_two_images_have_is_not_guessed(images, tmp_path):
    (images / "more").mkdir()
    Image.new("L", (WIDTH, HEIGHT)).save(images / "more" / "a.png")
    made = written([task("a.png", annotation()), task("x/sub/a.png", annotation(), id=2)], images, tmp_path)
    assert made.good == 1
    assert "a.png: may be" in made.left_out[0]


def test_a_relative_name_of_another_folder_is_not_taken(images, tmp_path):
    made = written(
        [task("good.png", annotation()), task("elsewhere/a.png", annotation(), id=2)], images, tmp_path
    )
    assert made.left_out == (f"elsewhere/a.png: no such image below {images}",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "holds no list of tasks"),
        ("[", "unreadable"),
        ('[{"image": "a.png"}]', "as of JSON-MIN"),
        ("[]", "no annotation fits an image"),
    ],
)
def test_a_file_of_another_kind_is_one_line(images, tmp_path, content, words):
    path = tmp_path / "export.json"
    path.write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        from_label_studio(path, images, tmp_path / "set")
    assert "\n" not in str(caught.value)


def test_a_prediction_that_is_accepted_comes_back(images, tmp_path):
    """As when somebody submits the tasks as they are."""
    found = [prediction(images / "sub" / "a.png"), good(images / "good.png")]
    tasks = [
        {**one, "id": i, "annotations": [annotation(*one["predictions"][0]["result"])]}
        for i, one in enumerate(to_tasks(found, LIMIT, images=images))
    ]
    made = written(tasks, images, tmp_path)
    assert (made.good, made.bad, made.masks) == (1, 1, 1)
