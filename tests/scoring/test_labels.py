"""Rates from verdicts that come later, against scipy's binomial test and a simulated line."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from invad.scoring.labels import Labels, binomial_share, false_alarm_rate, miss_share

WHOLE = Labels(parts=1000, flagged=60, said=60, false_alarms=48, audited=5, missed=0)


def test_with_every_verdict_it_is_the_exact_binomial_interval():
    found = false_alarm_rate(WHOLE)
    expected = binomtest(48, 988).proportion_ci(0.95, "exact")
    assert (found.value, found.low, found.high) == pytest.approx((48 / 988, expected.low, expected.high))
    for count, of in ((0, 7), (7, 7), (3, 7)):
        share = binomial_share(count, of, 0.9)
        ends = binomtest(count, of).proportion_ci(0.9, "exact")
        assert (share.low, share.high) == pytest.approx((ends.low, ends.high))


def test_reviewed_parts_stand_for_those_that_were_not():
    half = replace(WHOLE, said=30, false_alarms=24)
    found, whole = false_alarm_rate(half), false_alarm_rate(WHOLE)
    assert found.value == pytest.approx(whole.value)
    assert found.high - found.low > 1.3 * (whole.high - whole.low)
    missing = replace(WHOLE, audited=10, missed=1)  # a tenth of the 940 others is bad
    assert false_alarm_rate(missing).value == pytest.approx(48 / (48 + 940 * 0.9))
    assert miss_share(missing).value == 0.1
    assert miss_share(replace(WHOLE, audited=0)) is None


def test_without_verdicts_nothing_is_known_and_without_flags_something_is():
    assert false_alarm_rate(replace(WHOLE, said=0, false_alarms=0)) is None
    none = false_alarm_rate(Labels(parts=100, flagged=0, said=0, false_alarms=0, audited=0, missed=0))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 100))
    assert false_alarm_rate(Labels(parts=0, flagged=0, said=0, false_alarms=0, audited=0, missed=0)) is None
    for wrong in ({"said": 61}, {"missed": 6}, {"parts": 50}):
        with pytest.raises(ValueError, match="cannot be"):
            false_alarm_rate(replace(WHOLE, **wrong))


@pytest.mark.parametrize(("reviewed", "at_most"), [(1.0, 0.985), (0.5, 1.0)])
def test_the_interval_covers_what_a_line_does(reviewed, at_most):
    """3 % of good parts are flagged, 2 % are defective, a third of them passes."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        bad = rng.random(4000) < 0.02
        flagged = np.where(bad, rng.random(4000) < 2 / 3, rng.random(4000) < 0.03)
        said = flagged & (rng.random(4000) < reviewed)
        audited = ~flagged & (rng.random(4000) < 1 / 50)
        labels = Labels(
            parts=4000,
            flagged=int(flagged.sum()),
            said=int(said.sum()),
            false_alarms=int((said & ~bad).sum()),
            audited=int(audited.sum()),
            missed=int((audited & bad).sum()),
        )
        found = false_alarm_rate(labels)
        covered.append(found.low <= 0.03 <= found.high)
    assert 0.94 <= np.mean(covered) <= at_most
    assert labels + labels == replace(
        labels, **{name: 2 * getattr(labels, name) for name in Labels.__dataclass_fields__}
    )
