"""COCO files against pycocotools, and by hand."""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from integrations.one_defect import HEIGHT, LIMIT, WIDTH, defect, good, prediction
from invad.data.datasets import load_dataset
from invad.data.masks import read_mask
from invad.errors import DataError
from invad.integrations.coco import decode_rle, encode_rle, from_coco, mask_of, to_coco, to_results

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24))


def coco_file(path, content, **changed):
    path.write_text(json.dumps({**content, **changed}))
    return path


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("sub/a.png", "good.png", "other.png"):
        Image.new("L", (WIDTH, HEIGHT), 90).save(folder / name)
    return folder


def dataset_of(images):
    found = [prediction(images / "sub" / "a.png"), good(images / "good.png"), good(images / "other.png")]
    return to_coco(found, LIMIT, images)


def test_runs_go_down_the_columns_and_begin_outside():
    mask = np.array([[0, 1, 1], [0, 0, 1]], bool)
    assert encode_rle(mask) == {"size": [2, 3], "counts": [2, 1, 1, 2]}
    assert encode_rle(~mask) == {"size": [2, 3], "counts": [0, 2, 1, 1, 2]}


@given(masks)
def test_masks_come_back(mask):
    np.testing.assert_array_equal(decode_rle(encode_rle(mask)["counts"], mask.shape), mask)


@given(masks, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_a_part_is_encoded_as_the_whole_image(mask, left, right, above, below):
    whole = np.pad(mask, ((above, below), (left, right)))
    assert encode_rle(mask, (left, above), whole.shape) == encode_rle(whole)


@given(masks)
def test_pycocotools_agrees(mask):
    tools = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    theirs = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    np.testing.assert_array_equal(decode_rle(theirs["counts"], mask.shape), mask)
    ours = tools.frPyObjects(encode_rle(mask), *mask.shape)
    np.testing.assert_array_equal(tools.decode(ours), mask)
    assert ours["counts"] == theirs["counts"]


def test_pycocotools_reads_the_files_and_evaluates_them(images, tmp_path, capsys):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools.cocoeval import COCOeval

    made = dataset_of(images)
    truth = coco.COCO(str(coco_file(tmp_path / "truth.json", made)))
    assert len(truth.getImgIds()) == 3
    (annotation,) = truth.loadAnns(truth.getAnnIds())
    np.testing.assert_array_equal(truth.annToMask(annotation), defect())
    assert annotation["area"] == defect().sum()
    results = coco_file(tmp_path / "results.json", {})
    results.write_text(json.dumps(to_results(made)))
    for kind in ("bbox", "segm"):
        measured = COCOeval(truth, truth.loadRes(str(results)), kind)
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
        assert measured.stats[0] == pytest.approx(1)


def test_annotations_become_a_set(images, tmp_path):
    file = coco_file(tmp_path / "coco.json", dataset_of(images))
    written = from_coco(file, images, tmp_path / "set", "bolt")
    assert (written.good, written.bad, written.masks, written.left_out) == (2, 1, 1, ())
    dataset = load_dataset(tmp_path / "set")
    assert dataset.problems == ()
    assert [s.path for s in dataset.train] + [s.path for s in dataset.test if not s.is_anomalous]
    (bad,) = [s for s in dataset.test if s.is_anomalous]
    assert (bad.path, bad.defect, bad.category) == (images / "sub" / "a.png", "defect", "bolt")
    np.testing.assert_array_equal(read_mask(bad.mask_path, size_hw=(HEIGHT, WIDTH)), defect())
    assert {s.category for s in dataset.train} == {"bolt"}


def test_polygons_and_boxes_mark_what_they_hold():
    box = {"segmentation": [], "bbox": [20, 10, 30, 5]}
    square = {"segmentation": [[20, 10, 50, 10, 50, 15, 20, 15]]}
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[10:15, 20:50] = True
    np.testing.assert_array_equal(mask_of(box, (HEIGHT, WIDTH)), expected)
    np.testing.assert_array_equal(mask_of(square, (HEIGHT, WIDTH)), expected)


@given(st.integers(0, 2**32 - 1))
@example(599)  # a tip that holds one centre, which pycocotools leaves out
def test_polygons_differ_from_those_of_pycocotools_within_a_pixel_of_their_sides(seed):
    tools = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
    corners = np.stack([80 + 60 * np.cos(angles), 45 + 40 * np.sin(angles)], 1)
    polygon = corners.ravel().tolist()
    theirs = tools.decode(tools.frPyObjects([polygon], HEIGHT, WIDTH))[..., 0] > 0
    differ = np.argwhere(mask_of({"segmentation": [polygon]}, (HEIGHT, WIDTH)) ^ theirs)[:, None, ::-1] + 0.5
    sides = np.roll(corners, -1, axis=0) - corners
    along = ((differ - corners) * sides).sum(-1) / (sides**2).sum(-1)
    nearest = corners + along.clip(0, 1)[..., None] * sides
    assert (np.linalg.norm(differ - nearest, axis=-1).min(1, initial=np.inf) <= 1).all()


def test_what_does_not_fit_is_left_out_and_named(images, tmp_path):
    made = dataset_of(images)
    Image.new("L", (20, 20)).save(images / "other.png")
    made["images"].append({"id": 9, "file_name": "lost.png", "width": WIDTH, "height": HEIGHT})
    made["annotations"] += [
        {**made["annotations"][0], "image_id": 2, "segmentation": {"size": [WIDTH, HEIGHT], "counts": [9]}},
        {**made["annotations"][0], "image_id": 77},
    ]
    written = from_coco(coco_file(tmp_path / "coco.json", made), images, tmp_path / "set")
    assert (written.good, written.bad) == (0, 1)
    said = "\n".join(written.left_out)
    assert len(written.left_out) == 4
    assert "1 annotations are of image 77" in said
    assert f"good.png: a mask is of [{WIDTH}, {HEIGHT}]" in said
    assert f"other.png: is 20 x 20 pixels, its annotation {WIDTH} x {HEIGHT}" in said
    assert f"lost.png: no such image below {images}" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "is a list, such as results"),
        ("{", "unreadable"),
        ('{"images": []}', "has no list annotations and no list categories"),
        ('{"images": [{}], "annotations": [], "categories": []}', "is no COCO data set (no 'id')"),
        (
            '{"images": [{"id": 1}, {"id": 1}], "annotations": [], "categories": []}',
            "two images have the id 1",
        ),
        ('{"images": [], "annotations": [], "categories": []}', "no annotation fits an image"),
        (
            '{"images": [{"id": 1, "file_name": "good.png", "width": 1e9, "height": 9}], "annotations": [],'
            ' "categories": []}',
            "a size of 1000000000 x 9 pixels",
        ),
    ],
)
def test_a_file_of_another_kind_is_one_line(images, tmp_path, content, words):
    path = tmp_path / "coco.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        from_coco(path, images, tmp_path / "set")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_two_annotations_of_an_image_and_a_full_folder_are_refused(images, tmp_path):
    made = dataset_of(images)
    made["images"][2]["file_name"] = "good.png"
    file = coco_file(tmp_path / "coco.json", made)
    with pytest.raises(DataError, match=r"good.png: is meant by good.png and by good.png"):
        from_coco(file, images, tmp_path / "set")
    with pytest.raises(DataError, match="is not empty"):
        from_coco(file, images, images)


@pytest.mark.parametrize("counts", ["", "~~", [1, -1, 4], [5], [1.5, 2.5], "PPPPPPPPPPPPPPPPPPPPPP"])
def test_damaged_runs_are_refused(counts):
    with pytest.raises(DataError):
        decode_rle(counts, (2, 2))
