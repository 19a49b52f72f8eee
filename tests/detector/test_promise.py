from dataclasses import replace
from types import SimpleNamespace

import pytest

from invad.cli.train import _closing_lines
from invad.detector.card import normals_in_words
from invad.metrics.alarms import MOST_NORMALS, normals_to_halve, realised_interval
from invad.model.settings import PRESETS
from invad.runtime.promise import made_once, promise
from invad.scoring.calibration import Calibration
from invad.scoring.rates import POOLED, Rates


def made(n, groups=(), **rates):
    scores = tuple(map(float, range(n)))
    return Calibration(scores=scores, peaks=scores, groups=groups, rates=Rates(**rates))


@pytest.mark.parametrize(
    ("n", "rate"), [(24, 0.05), (43, 0.05), (99, 0.05), (1000, 0.05), (1000, 0.01), (43, 0.2)]
)
def test_so_many_normals_halve_the_width(n, rate):
    """Up to the jumps where another score becomes the limit."""
    low, high = realised_interval(n, rate)
    enough = normals_to_halve(n, rate)
    whole = round(round(rate * (enough + 1)) / rate) - 1  # with which the limit keeps the rate exactly
    less, more = realised_interval(whole, rate)
    assert (more - less) / (high - low) == pytest.approx(0.5, rel=0.15)
    assert normals_to_halve(MOST_NORMALS, 0.05) is None


def test_the_category_with_the_fewest_normals_promises_least():
    one = promise({POOLED: made(43), "a": made(43)}, once=True)
    assert (one.category, one.n, one.unit, one.rate) == (POOLED, 43, "good images", 0.05)
    assert one.realised_95 == realised_interval(43, 0.05)
    assert (one.n_to_halve, one.normals_to_halve) == (208, 1040)
    assert str(one) == (
        "43 good images set the limit for 5.0% false alarms: what it realises lies between 0.6% and 12.3% in "
        "95% of cases; about 1,000 to train on, or 210 others for 'invad calibrate', would halve that range"
    )
    assert promise({POOLED: made(43)}).normals_to_halve == 208  # each is held out once
    assert promise({POOLED: made(900)}).normals_to_halve > 5 * 2500  # but of so many a fifth is
    several = promise({POOLED: made(63), "a": made(43), "b": made(20)})
    assert (several.category, several.n) == ("b", 20)
    assert "20 good images set the limit of b for" in str(several)


def test_tiles_and_networks_are_made_once(detector):
    """Of a model and of a bundle, which has no settings."""
    assert made_once(detector.info)
    assert not made_once(replace(detector.info, settings=PRESETS["fast"]))
    assert made_once(SimpleNamespace(tiles="some"))
    assert not made_once(SimpleNamespace(tiles=None))


def test_groups_count_and_are_named(detector):
    one = promise({POOLED: made(40, tuple(i // 5 for i in range(40)), review=0.1)})
    assert (one.n, one.rate, one.realised_95) == (8, 0.1, realised_interval(8, 0.1))
    assert "8 independent groups of good images set the limit" in str(one)
    # So few that a training would hold all of them out, in folds.
    assert one.n_to_halve == one.normals_to_halve < 60
    fit = replace(detector.info.fit, normals={"a": 64, "b": 9}, groups={"a": 12, "b": 9})
    assert normals_in_words(fit) == "a 64 in 12 independent groups, b 9"
    assert normals_in_words(replace(fit, groups={})) == "a 64, b 9"  # of a model that did not count them


def test_the_closing_lines_of_a_training_tell_both():
    result = {
        **{"normals": {"a": 64}, "groups": {"a": 12}, "held_out": {"a": 64}, "train_seconds": 3.0},
        **{"output": "model", "skipped": [], "copies": [], "parts": None, "moved": 0.0},
    }
    first, second, *_ = _closing_lines(result, "kept")
    assert first == (
        "Learned from 64 good images (12 independent groups) in 3 s; all of them, held out in turn, set the "
        "limits."
    )
    once = _closing_lines({**result, "held_out": {"a": 13}}, "")[0]
    assert once.endswith("in 3 s; 13 of them, held out, set the limits.")
    assert second == "kept."
    assert "independent" not in _closing_lines({**result, "groups": {"a": 64}}, "")[0]
