"""What an evaluation says of a model with a region of interest."""

from copy import copy

import numpy as np
import pytest
from PIL import Image

from invad.data.region import Region, inside_of
from invad.errors import DataError
from invad.evaluation.evaluate import evaluate
from invad.metrics.exact import pixel_metrics
from invad.records import Sample

RIGHT = Region(frame=(64, 64), include=(((30.0, 0.0), (64.0, 0.0), (64.0, 64.0), (30.0, 64.0)),))


@pytest.fixture(scope="module")
def partial(detector):
    own = copy(detector)
    own.calibrate(region=RIGHT)
    return own


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, draw):
    """Two good parts, one with a spot that counts and one that does not, and one with both."""
    root = tmp_path_factory.mktemp("labelled")
    samples = []

    def write(name, places):
        picture, mask = draw(500 + len(samples)).copy(), np.zeros((64, 64), np.uint8)
        for x, y in places:
            spot = np.random.default_rng(x).integers(0, 256, (10, 10, 3), np.uint8)
            picture[y : y + 10, x : x + 10], mask[y : y + 10, x : x + 10] = spot, 255
        Image.fromarray(picture).save(root / f"{name}.png")
        if places:
            Image.fromarray(mask).save(root / f"{name}_mask.png")
        samples.append(
            Sample(
                path=root / f"{name}.png",
                category="part",
                defect="spot" if places else "good",
                mask_path=root / f"{name}_mask.png" if places else None,
            )
        )

    write("good", [])
    write("fine", [])
    write("inside", [(40, 20)])
    write("outside", [(5, 20)])
    write("both", [(40, 40), (8, 8), (8, 40)])
    return samples


def test_only_defects_that_count_are_counted(partial, labelled):
    found = evaluate(partial, labelled)
    assert found.metrics["n_anomalous"] == 2
    assert found.metrics["defects_ignored"] == 3
    assert found.metrics["images_ignored"] == [str(labelled[3].path)]
    assert any(
        "ignores 3 defects of the masks; 1 defective image shows no other and is not counted" in line
        for line in found.metrics["warnings"]
    )
    assert [one.sample.path.stem for one in found.scored] == ["good", "fine", "inside", "both"]
    outside = ~inside_of(RIGHT)
    for one, row in zip(found.scored, found.defects, strict=True):
        assert (one.anomaly_map[outside] == 0).all()
        assert all(defect.x >= 30 for defect in row)


def test_normal_pixels_outside_do_not_count(partial, labelled):
    found = evaluate(partial, labelled)
    inside = inside_of(RIGHT)
    masks = [np.zeros((64, 64), bool) for _ in found.scored]
    masks[2][20:30, 40:50] = masks[3][40:50, 40:50] = True
    maps = [one.anomaly_map for one in found.scored]
    expected = pixel_metrics([m[:, 30:] for m in maps], [m[:, 30:] for m in masks])
    assert found.metrics["pixel_auroc"] == pytest.approx(expected["pixel_auroc"], abs=1e-9)
    assert found.metrics["pixel_aupro"] == pytest.approx(expected["pixel_aupro"], abs=1e-9)
    assert pixel_metrics(maps, masks, inside) == expected


def test_without_a_region_nothing_is_ignored(detector, labelled):
    found = evaluate(detector, labelled)
    assert found.metrics["n_anomalous"] == 3
    assert "defects_ignored" not in found.metrics


def test_a_set_of_ignored_defects_alone_is_refused(partial, labelled):
    with pytest.raises(DataError, match="ignores all defects"):
        evaluate(partial, [labelled[3]])


def test_pictures_of_another_size_are_named(partial, labelled, draw, tmp_path):
    Image.fromarray(draw(0, size=(80, 64))).save(tmp_path / "wide.png")
    found = evaluate(partial, [*labelled, Sample(path=tmp_path / "wide.png", category="part")])
    assert found.metrics["skipped"] == [str(tmp_path / "wide.png")]
