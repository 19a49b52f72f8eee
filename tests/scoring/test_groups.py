from pathlib import Path

import numpy as np
import pytest

from invad.records import Sample
from invad.scoring.calibration import Calibration, group_weights, hold_out, numbered, upper_limit
from invad.scoring.groups import groups_in_words, groups_of_samples, likely_groups
from invad.scoring.rates import Rates


def parts_and_shots(parts: int, shots: int, likeness: float, seed: int) -> np.ndarray:
    """Descriptions of `shots` images of each part; exposure and contrast differ from shot to shot."""
    rng = np.random.default_rng(seed)
    part = np.repeat(rng.normal(size=(parts, 200)) @ rng.normal(size=(200, 400)), shots, axis=0)
    own = likeness * part + np.sqrt(1 - likeness**2) * rng.normal(size=part.shape) * part.std()
    return rng.uniform(0.7, 1.4, (len(own), 1)) * own + rng.normal(size=(len(own), 1))


@pytest.mark.parametrize("shots", [2, 3, 6])
def test_shots_of_one_part_are_found_through_exposure(shots):
    found = likely_groups(parts_and_shots(30, shots, 0.97, seed=1))
    assert found.tolist() == (np.arange(30 * shots) // shots * shots).tolist()


def test_of_independent_images_next_to_none_are_joined():
    """The process of neighbours is only nearly a Poisson one: a few pairs, which costs a little of n."""
    joined = [60 - len(set(likely_groups(parts_and_shots(60, 1, 0.9, seed)))) for seed in range(20)]
    assert np.mean(joined) <= 0.05 * 60, joined


def test_of_few_images_nothing_is_said():
    assert likely_groups(np.ones((5, 3))).tolist() == [0, 1, 2, 3, 4]


def test_what_is_said_of_samples_wins_over_likeness():
    def sample(i, **said):
        return Sample(path=Path(f"{i}.png"), category="a", **said)

    samples = [sample(0, group="x"), sample(1), sample(2, sample_id="y"), sample(3, group="x"), sample(4)]
    groups = groups_of_samples(samples, lambda own: pytest.fail("nothing to describe"))
    assert groups == (0, 1, 2, 0, 4)
    (line,) = groups_in_words(samples, groups)
    assert "5 images are 4 independent groups, as given" in line


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.25])
def test_a_limit_by_groups_agrees_with_its_p_value(rate):
    rng = np.random.default_rng(0)
    for _ in range(200):
        groups = numbered(rng.integers(0, 40, 90).tolist())
        scores = rng.integers(0, 30, 90) / 10
        made = Calibration(scores=tuple(scores), peaks=tuple(scores), rates=Rates(), groups=groups)
        limit = made.limit(rate)
        for score in (*scores, 0.05, 2.95):
            assert (score > limit) == (made.p_value(score) <= rate + 1e-12)


def test_one_image_in_each_group_is_the_plain_rule():
    scores = np.random.default_rng(3).normal(size=30)
    for rate in (0.001, 0.01, 0.05, 0.2):
        assert upper_limit(scores, rate, group_weights(range(30))) == upper_limit(scores, rate)


def test_the_rate_holds_for_images_of_new_parts():
    """20 parts with 10 shots each: by groups the mean rate is at most the one asked, by images it is not."""
    rng = np.random.default_rng(5)
    by_group, by_image = [], []
    for _ in range(400):
        part = rng.normal(size=(21, 1))
        scores = part + 0.3 * rng.normal(size=(21, 10))
        known, new = scores[:20].ravel(), scores[20]
        weights = group_weights(np.repeat(np.arange(20), 10).tolist())
        by_group.append(np.mean(new > upper_limit(known, 0.1, weights)))
        by_image.append(np.mean(new > upper_limit(known, 0.1)))
    error = np.std(by_group) / 20
    assert np.mean(by_group) <= 0.1 + 2 * error
    assert np.mean(by_image) > np.mean(by_group)


def test_groups_are_held_out_as_a_whole():
    groups = [i // 5 for i in range(200)]
    kept, held = hold_out(groups, 0)
    assert not {groups[i] for i in kept} & {groups[i] for i in held}
    assert len({groups[i] for i in held}) == 8
    assert len(kept) + len(held) == 200
