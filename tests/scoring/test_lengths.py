"""Sizes from places: what a correction learned from drawings keeps, and when there is none."""

import numpy as np
import pytest

from invad.errors import DataError
from invad.scoring.defects import defects
from invad.scoring.lengths import KEPT, Extent, Place, fit_sizes, half_peak
from invad.scoring.scale import Scale
from invad.scoring.shapes import extents, hull_of, parts_above


def drawn(n, seed, spread=0.1):
    """Places and truths: places are larger by 2.5 cells, curved, with errors that grow with size and where
    they are faint."""
    rng = np.random.default_rng(seed)
    length, width = np.sort(rng.uniform(0.8, 8, (n, 2)), axis=1).T[::-1]
    faint = rng.uniform(0, 1, n)
    noise = rng.normal(0, spread, (3, n)) * (length + 3 * faint)
    truths = [Extent(length=a, width=b, root=(a * b) ** 0.5) for a, b in zip(length, width, strict=True)]
    places = [
        Place(
            length=a + 2.5 + x + 0.02 * a**2, width=b + 2.2 + y, root=(a * b) ** 0.5 + 2 + z, faint=float(f)
        )
        for a, b, f, x, y, z in zip(length, width, faint, *noise, strict=True)
    ]
    return places, truths


def test_new_drawings_keep_the_bound_as_often_as_it_says():
    kept = []
    for seed in range(20):
        model = fit_sizes(*drawn(100, seed))
        places, truths = drawn(100, 1000 + seed)
        kept.append(
            [
                abs(model.of(p).length - t.length) <= model.length.bound(p)
                for p, t in zip(places, truths, strict=True)
            ]
        )
    assert np.mean(kept) == pytest.approx(KEPT, abs=0.03)
    # Faint places err more, and so does the bound.
    assert bound_of(4, 0.9) > 1.15 * bound_of(4, 0.1)


def bound_of(length, faint):
    """In the mean of models: one by itself knows its spread roughly."""
    place = Place(length=length, width=3.0, root=3.0, faint=faint)
    return np.mean([fit_sizes(*drawn(100, seed)).length.bound(place) for seed in range(20)])


def test_beyond_the_largest_drawing_a_size_grows_as_its_place():
    model = fit_sizes(*drawn(100, 0))
    largest = Place(length=model.longest, width=3.0, root=5.0, faint=0.5)
    longer = Place(length=model.longest + 4, width=3.0, root=7.0, faint=0.5)
    assert model.of(longer).length == pytest.approx(model.of(largest).length + 4)
    assert model.of(longer).root > model.of(largest).root
    tiny = model.of(Place(length=0.1, width=0.1, root=0.1, faint=0.5))
    truths = drawn(100, 0)[1]
    assert tiny.length == min(t.length for t in truths)
    assert tiny.width == min(t.width for t in truths)


def test_too_few_drawings_or_such_as_are_alike_teach_nothing():
    with pytest.raises(DataError, match="39 drawn defects were found; 40"):
        fit_sizes(*drawn(39, 0))
    place = Place(length=3.0, width=3.0, root=3.0, faint=0.5)
    with pytest.raises(DataError, match="all alike"):
        fit_sizes([place] * 50, [place] * 50)


def cone(x, y, peak, slope=1.0, size=(100, 200)):
    """A map that falls by `slope` for each pixel from a peak."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return np.maximum(peak - slope * np.hypot(rows - y, columns - x), 0).astype(np.float32)


def test_a_place_is_measured_at_half_of_its_peak_whatever_the_limit():
    for limit in (2, 5, 12):
        (part,) = parts_above(cone(100, 50, 20.0), np.float32(limit))
        place = half_peak(cone(100, 50, 20.0), part, limit, cell=10.0)
        # A circle of radius 10 pixels: 2 cells across.
        assert (place.length, place.width, place.root) == pytest.approx((2, 2, np.pi**0.5), abs=0.2)
        assert place.faint == pytest.approx(limit / part.peak)


def test_a_place_that_runs_into_a_higher_one_or_has_no_end_is_not_measured():
    both = np.maximum(cone(60, 50, 30.0), cone(85, 50, 18.0))
    high, low = parts_above(both, np.float32(13.5))
    assert half_peak(both, high, 13.5, cell=10.0) is not None
    assert half_peak(both, low, 13.5, cell=10.0) is None
    flat = np.full((60, 300), 6.0, np.float32)
    flat[30, 150] = 10
    (part,) = parts_above(flat, np.float32(9))
    assert half_peak(flat, part, 9, cell=10.0) is None
    # To the edges of the picture it is a place like others.
    assert half_peak(flat, part, 9, cell=50.0).length == pytest.approx(np.hypot(60, 300) / 50)


def test_a_scratch_that_is_clear_at_both_ends_is_measured_from_end_to_end():
    ends = np.maximum(cone(50, 50, 20.0), cone(150, 50, 18.0))
    ends[48:52, 50:150] = np.maximum(ends[48:52, 50:150], 6)
    (part,) = parts_above(ends, np.float32(5))
    place = half_peak(ends, part, 5, cell=10.0)
    assert place.length == pytest.approx((100 + 10 + 8) / 10, abs=0.2)
    assert place.width == pytest.approx(2, abs=0.2)
    # What lies above half of the peak beside it, but is no part of it, is none of its.
    alone = np.maximum(ends, cone(100, 90, 12.0))
    first, *_ = parts_above(alone, np.float32(5))
    assert half_peak(alone, first, 5, cell=10.0) == place


def test_a_hull_of_points_holds_what_one_of_pixels_does():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((40, 60), np.float32)
        y, x = rng.integers(5, 30, 2)
        mask[y : y + rng.integers(1, 9), x : x + rng.integers(1, 20)] = 1
        mask += cone(x, y, float(rng.uniform(1, 9)), size=(40, 60))
        (part,) = parts_above(mask, np.float32(0.5))
        hull = part.hull()
        assert extents(hull_of(rng.permutation(hull))) == pytest.approx(extents(hull))


def test_a_defect_has_the_size_that_was_learned_and_says_so():
    model = fit_sizes(*drawn(100, 0))
    map_HW = cone(100, 50, 40.0)
    (place,) = defects(map_HW, 5.0, (10, 20))
    (one,) = defects(map_HW, 5.0, (10, 20), Scale.per_pixel(0.1, 0.2), sizes=model)
    seen = half_peak(map_HW, parts_above(map_HW, np.float32(5))[0], 5.0, 10.0)
    assert (place.size_of, one.size_of) == ("place", "defect")
    assert (place.x, place.width, place.peak) == (one.x, one.width, one.peak)
    assert one.length_px == pytest.approx(model.of(seen).length * 10)
    assert one.length_px < place.length_px - 20
    assert one.length_uncertainty_px == pytest.approx(model.length.bound(seen) * 10)
    assert one.width_uncertainty_px == pytest.approx(model.width.bound(seen) * 10)
    root, bound = model.of(seen).root * 10, model.root.bound(seen) * 10
    assert one.area_px == pytest.approx(root**2)
    assert one.area_uncertainty_px == pytest.approx((root + bound) ** 2 - root**2)
    # On the part a pixel is 0.02 mm²; the longest way across this place is down, of 0.2 mm a pixel.
    assert one.area_mm2 == pytest.approx(one.area_px * 0.02)
    assert one.area_uncertainty_mm2 == pytest.approx(one.area_uncertainty_px * 0.02)
    assert one.length_mm / one.length_px == pytest.approx(0.2, rel=0.02)
    # Of one that runs into another the place is told.
    both = np.maximum(cone(60, 50, 30.0), cone(85, 50, 18.0))
    assert [d.size_of for d in defects(both, 13.5, (10, 20), sizes=model)] == ["defect", "place"]
