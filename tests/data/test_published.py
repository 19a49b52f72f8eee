"""The published figures: of known sets, in range, copied without slips; and which sets are recognised."""

import pytest

from invad.data.known import KNOWN, recognised
from invad.data.published import MEAN, PUBLISHED

EVERY = [
    pytest.param(name, publication, id=f"{name}, {publication.method}, {publication.setting}")
    for name, publications in PUBLISHED.items()
    for publication in publications
]


@pytest.mark.parametrize(("name", "publication"), EVERY)
def test_figures_are_of_known_categories_and_in_range(name, publication):
    assert publication.figures
    assert publication.source
    assert publication.figures.keys() <= {MEAN, *KNOWN[name].categories}
    for figures in publication.figures.values():
        assert figures
        assert all(0 < value <= 1 for value in figures.values())


@pytest.mark.parametrize(("name", "publication"), EVERY)
def test_the_published_mean_is_that_of_the_published_categories(name, publication):
    rows = [figures for category, figures in publication.figures.items() if category != MEAN]
    if len(rows) > 1:
        assert len(rows) == len(KNOWN[name].categories)
        for metric, mean in publication.figures[MEAN].items():
            # Both are rounded to a thousandth.
            assert sum(row[metric] for row in rows) / len(rows) == pytest.approx(mean, abs=0.0011)


@pytest.mark.parametrize(
    ("layout", "categories", "found"),
    [
        ("mvtec", ["bottle", "zipper"], ("mvtec", {"bottle": "bottle", "zipper": "zipper"})),
        ("mvtec_ad", ["bottle"], ("mvtec", {"bottle": "bottle"})),
        ("mvtec", ["mvtec_bottle"], ("mvtec", {"mvtec_bottle": "bottle"})),
        ("mvtec", ["visa_capsules"], ("visa", {"visa_capsules": "capsules"})),
        ("real_iad", ["zipper"], ("real_iad", {"zipper": "zipper"})),
        ("auto", ["bottle"], ("mvtec", {"bottle": "bottle"})),
        ("auto", ["zipper"], None),  # of MVTec AD or of Real-IAD
        ("visa", ["bottle"], None),
        ("mvtec", ["bottle", "gasket"], None),
        ("mvtec", [], None),
    ],
)
def test_recognised(layout, categories, found):
    assert recognised(layout, categories) == found
