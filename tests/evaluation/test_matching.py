"""Names of one part from two working folders, and those that only look alike."""

import numpy as np
import pytest

from invad.evaluation.matching import Exchange, match

FILES = [f"{kind}/{i:03d}.png" for kind in ("good", "dent") for i in range(6)]


def pairs(a, b, **options):
    return [(a[i], b[j]) for i, j in match(a, b, **options).pairs]


@pytest.mark.parametrize(
    ("before_a", "before_b"),
    [
        ("", ""),
        ("/data/plates/", ""),
        ("", "plates/test/"),
        ("../../plates/", "/mnt/nas/plates/"),
        ("./plates/", "plates/"),
        ("/plates/x/../", "/plates/"),
    ],
)
def test_a_file_is_the_same_from_wherever_it_is_named(before_a, before_b):
    a, b = [before_a + name for name in FILES], [before_b + name for name in FILES[::-1]]
    assert pairs(a, b) == [(before_a + name, before_b + name) for name in FILES]


def test_the_same_numbers_in_other_folders_may_be_other_parts():
    a, b = [f"lots/monday/{name}" for name in FILES], [f"lots/tuesday/{name}" for name in FILES]
    found = match(a, b)
    assert (found.pairs, found.exchange) == ((), Exchange(("lots", "monday"), ("lots", "tuesday")))
    assert len(pairs(a, b, same_parts=True)) == 12


def test_names_that_fit_in_two_ways_are_not_matched():
    found = match(["000.png", "001.png"], FILES)
    assert found.pairs == ()
    assert {found.exchange, found.rival} == {Exchange((), ("good",)), Exchange((), ("dent",))}
    # One more tells: there is no good/dent/000.png.
    more = match(["good/000.png", "000.png"], ["test/good/000.png", "test/000.png", "x/y.png"])
    assert more.pairs == ((0, 0), (1, 1))


def test_equal_names_go_before_as_many_that_are_only_alike():
    assert pairs(["a/0.png", "0.png"], ["x/0.png", "0.png"]) == [("0.png", "0.png")]
    assert pairs(["a.png", "../a.png"], ["a.png"]) == [("a.png", "a.png"), ("../a.png", "a.png")][:1]


def test_no_name_has_two_partners():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (
            sorted({"/".join(rng.choice(["x", "y"], rng.integers(1, 5))) for _ in range(8)}) for _ in range(2)
        )
        found = match(a, b, same_parts=True)
        for side in zip(*found.pairs, strict=True):
            assert len(set(side)) == len(side)


def test_ten_thousand_files_of_a_hundred_names_take_a_moment():
    names = [f"part{i:03d}/{j:02d}.png" for i in range(100) for j in range(100)]
    found = match([f"/data/{name}" for name in names], names)
    assert len(found.pairs) == len(names)


def test_nothing_alike_is_no_match():
    assert match(["a.png"], ["b.png"]) == match([], [])
