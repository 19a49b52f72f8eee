"""Map, score and limits in numpy are those of PyTorch."""

import numpy as np
import pytest
import torch

from invad.scoring import crossfit, norms, typicality

RULES = {
    "one predictor": {"counts": (1,), "floor": 0.5},
    "one map": {"counts": (2, 1), "floor": 0.5, "top_fraction": 0.1},
    "scores of predictors": {"counts": (2, 1), "floor": 0.5, "top_fractions": (0.1, 0.02)},
    "no floor": {"counts": (1, 2), "top_fractions": (0.02, 0.1)},
}


@pytest.mark.parametrize("called", RULES)
@pytest.mark.parametrize("by_largest", [False, True])
def test_it_is_the_same_as_with_torch(called, by_largest):
    rng, settings = np.random.default_rng(3), RULES[called]
    maps = rng.gamma(3, 2, (23, sum(settings["counts"]), 6, 7)).astype(np.float32)
    categories, groups = ["a"] * 13 + ["b"] * 10, [*range(20), 19, 19, 18]
    own = norms.CellRule(**settings)
    torched = typicality.ScoreRule(
        **settings, of_map=(lambda map_Bhw: map_Bhw.flatten(1).amax(dim=1)) if by_largest else None
    )
    of_map = (lambda map_hw: float(map_hw.max())) if by_largest else None
    expected = crossfit.cross_fit(torch.from_numpy(maps), torched, categories, groups)
    found = norms.cross_fit(maps, own, categories, groups, of_map)
    stats = found.stats
    assert found.scores == pytest.approx(expected.scores, rel=1e-5)
    assert found.peaks == pytest.approx(expected.peaks, rel=1e-5)
    np.testing.assert_allclose(found.maps_Nhw, expected.maps_Nhw.numpy(), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(stats.median_Lhw, expected.stats.median_Lhw.numpy())
    np.testing.assert_array_equal(stats.scale_Lhw, expected.stats.scale_Lhw.numpy())
    far = (maps * np.linspace(0.2, 40, 23, dtype=np.float32)[:, None, None, None]).astype(np.float32)
    told_B, map_Bhw = typicality.judge(torch.from_numpy(far), expected.stats, torched)
    found_B, found_Bhw = norms.judge(far, stats, own, of_map)
    np.testing.assert_allclose(found_B, told_B.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found_Bhw, map_Bhw.numpy(), rtol=1e-5, atol=1e-4)
