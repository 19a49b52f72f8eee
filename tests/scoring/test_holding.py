"""Which normals are held out: all of them in turn, or some for good."""

import numpy as np
import pytest

from invad.scoring import holding
from invad.scoring.holding import apart, turns


def test_all_are_held_out_in_turn_and_the_last_model_is_kept():
    how = turns(["a"] * 60 + ["b"] * 12, range(72), 0, once=False)
    assert (len(how.parts), how.whole) == (5, False)
    assert sorted(np.concatenate([out for _, out in how.parts])) == list(range(72))
    for rest, out in how.parts:
        assert sorted([*rest, *out]) == list(range(72))
        assert (out >= 60).sum() in (2, 3)  # of the small category as of the large one
    assert how.unlearned.tolist() == how.parts[-1][1].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_only_picture_of_a_category_is_always_learned(seed):
    """The model that is kept would not know it else. Of two it knows one."""
    how = turns(["a"] * 70 + ["b"] + ["c"] * 2, range(73), seed, once=False)
    assert len(how.parts) == 5
    for rest, out in how.parts:
        assert 70 in rest
        assert {71, 72} & {*rest.tolist()}
        assert sorted([*rest, *out]) == list(range(73))


def test_of_few_the_model_that_is_kept_learns_from_all():
    how = turns(["a"] * 59, range(59), 0, once=False)
    assert (len(how.parts), how.whole, len(how.unlearned)) == (4, True, 0)
    assert turns([str(i) for i in range(60)], range(60), 0, once=True).whole is True
    assert turns(["a"] * 180, [i // 3 for i in range(180)], 0, once=False).whole is False
    assert turns(["a"] * 180, [i // 4 for i in range(180)], 0, once=False).whole is True


@pytest.mark.parametrize("seed", range(3))
def test_some_are_held_out_for_good_where_one_model_is_made(seed):
    how = turns(["a"] * 60 + ["b"] * 12, range(72), seed, once=True)
    ((rest, out),) = how.parts
    assert sorted([*rest, *out]) == list(range(72))
    assert ((out < 60).sum(), (out >= 60).sum()) == (12, 6)
    assert [a.tolist() for a in apart(["a"] * 60 + ["b"] * 12, range(72), seed)] == [
        rest.tolist(),
        out.tolist(),
    ]


def test_of_many_a_fifth_is_enough_where_each_category_has_many(monkeypatch):
    monkeypatch.setattr(holding, "MANY_GROUPS", 70)
    assert len(turns(["a"] * 70, range(70), 0, once=False).parts) == 1
    assert len(turns(["a"] * 70 + ["b"] * 69, range(139), 0, once=False).parts) == 5
    # Pictures of one part are no more than one of it.
    assert len(turns(["a"] * 140, [i // 2 % 69 for i in range(140)], 0, once=False).parts) == 5
