import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invad.scoring.norms import SHRINKAGE
from invad.scoring.typicality import (
    PositionStats,
    ScoreRule,
    ScoreStats,
    combined_scores,
    fit_position_stats,
    fit_score_stats,
    image_scores,
    judge,
    paper_fusion,
    paper_terms,
    predictor_scores,
    typicality_map,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "inversion.json").read_text())


def maps_of(n, levels=2, h=3, w=4, seed=0):
    return torch.rand(n, levels, h, w, generator=torch.Generator().manual_seed(seed)) * 3 + 1


# Statistics of positions


@pytest.mark.parametrize("n", [2, 3, 4, 11])
def test_position_stats_cell_by_cell(n):
    maps = maps_of(n)
    stats = fit_position_stats(maps)
    median, spread, middle = np.empty((2, 3, 4)), np.empty((2, 3, 4)), np.empty((2, 1, 1))
    for cell in np.ndindex(2, 3, 4):
        values = maps[(slice(None), *cell)].double().tolist()
        median[cell] = statistics.median(values)
        spread[cell] = 1.4826 * statistics.median(abs(v - median[cell]) for v in values)
    for level in range(2):
        middle[level] = statistics.median(maps[:, level].double().flatten().tolist())
    own = n / (n + SHRINKAGE)
    typical = (spread**2).mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(stats.median_Lhw, own * median + (1 - own) * middle, rtol=1e-6)
    expected = np.sqrt(own * spread**2 + (1 - own) * typical)
    np.testing.assert_allclose(stats.scale_Lhw, expected, rtol=1e-4)
    assert stats.median_Lhw.dtype == stats.scale_Lhw.dtype == torch.float32


def test_with_many_images_a_cell_has_its_own_statistics():
    generator = torch.Generator().manual_seed(1)
    level, spread = torch.linspace(5, 15, 64).view(8, 8), torch.linspace(1, 3, 64).view(8, 8)
    maps = torch.randn(12000, 1, 8, 8, generator=generator) * spread + level
    stats = fit_position_stats(maps)
    np.testing.assert_allclose(stats.median_Lhw[0], level, atol=0.3)
    np.testing.assert_allclose(stats.scale_Lhw[0], spread, rtol=0.12)


def test_half_of_the_images_may_be_spoilt():
    maps = maps_of(11)
    spoilt = maps.clone()
    spoilt[:5] = 1e9
    assert float(fit_position_stats(spoilt).median_Lhw.max()) <= float(maps.max())


def test_one_image_is_judged_by_the_spread_of_its_cells():
    maps = maps_of(1)
    stats = fit_position_stats(maps)
    cells = maps[0, 0].double().flatten().tolist()
    spread = 1.4826 * statistics.median(abs(c - statistics.median(cells)) for c in cells)
    np.testing.assert_allclose(stats.scale_Lhw[0], spread, rtol=1e-4)


def test_equal_images_do_not_divide_by_zero():
    stats = fit_position_stats(torch.ones(5, 1, 2, 2))
    assert torch.isfinite(typicality_map(torch.full((1, 1, 2, 2), 1.5), stats)).all()


def test_more_numbers_than_torch_takes_in_a_quantile():
    maps = torch.ones(1, 1, 1, 1).expand(17, 1, 1024, 1024)
    assert float(fit_position_stats(maps).median_Lhw.max()) == 1.0


# Maps and scores


def test_typicality_is_the_mean_z_over_levels():
    maps, stats = maps_of(3), fit_position_stats(maps_of(9, seed=1))
    z = (maps.numpy() - stats.median_Lhw.numpy()) / stats.scale_Lhw.numpy()
    np.testing.assert_allclose(typicality_map(maps, stats), z.mean(axis=1), rtol=1e-5, atol=1e-6)


def test_typicality_of_the_median_is_zero():
    stats = fit_position_stats(maps_of(9))
    assert torch.equal(typicality_map(stats.median_Lhw[None], stats), torch.zeros(1, 3, 4))


@given(st.integers(1, 30), st.floats(0.001, 1.0), st.integers(0, 9))
def test_image_scores_by_sorting(cells, top_fraction, seed):
    values = np.random.default_rng(seed).normal(size=(2, cells)).astype(np.float32)
    k = max(1, round(top_fraction * cells))
    expected = np.sort(values, axis=1)[:, ::-1][:, :k].mean(axis=1)
    scores = image_scores(torch.from_numpy(values).view(2, 1, cells), top_fraction)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_a_hot_cell_raises_the_score_wherever_it_is():
    for cell in np.ndindex(4, 4):
        map_hw = torch.zeros(4, 4)
        map_hw[cell] = 5
        assert float(image_scores(map_hw[None], 0.02)) == 5


# The paper's terms


@pytest.mark.parametrize("steps", sorted(GOLDEN["cases"], key=int))
def test_paper_terms_match_the_golden_numbers(steps):
    case = GOLDEN["cases"][steps]
    map_Bhw, nll_B, diff_B = paper_terms(torch.tensor(case["latent"]))
    for found, name in ((map_Bhw, "norm_map"), (nll_B, "nll"), (diff_B, "range")):
        expected = torch.tensor(case[name], dtype=found.dtype).view(found.shape)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_nll_is_that_of_the_unit_gaussian():
    z = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = -torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)
    torch.testing.assert_close(paper_terms(z)[1], expected.double(), rtol=1e-6, atol=0)


def test_paper_fusion_scales_both_terms_over_the_set():
    nll, diff = torch.tensor([1.0, 3.0, 2.0]), torch.tensor([10.0, 10.0, 30.0])
    torch.testing.assert_close(paper_fusion(nll, diff), torch.tensor([0.0, 1.0, 1.5]).double())


@settings(deadline=None)
@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_paper_fusion_ignores_scale_and_offset(scale, offset):
    nll, diff = torch.tensor([1.0, 3.0, 2.0]), torch.tensor([1.0, 5.0, 3.0])
    moved = paper_fusion(nll * scale + offset, diff)
    torch.testing.assert_close(moved, paper_fusion(nll, diff), rtol=1e-4, atol=1e-4)


def test_paper_fusion_of_one_image_or_equal_ones_is_zero():
    assert paper_fusion(torch.tensor([7.0]), torch.tensor([2.0])).tolist() == [0.0]
    assert paper_fusion(torch.ones(3), torch.ones(3)).tolist() == [0.0, 0.0, 0.0]


def test_stats_are_plain_data():
    assert set(PositionStats.__slots__) == {"median_Lhw", "scale_Lhw", "scores"}


# Scores combined from those of the predictors

TWO = ScoreRule.of((1, 1), top_fractions=(0.25, 0.25))


def test_combined_scores_are_lengths_of_what_lies_above_the_normals():
    stats = ScoreStats(torch.tensor([1.0, 2.0]).double(), torch.tensor([0.5, 0.1]).double())
    scores = torch.tensor([[1.0, 2.0], [16.0, 2.0], [16.0, 6.0]])
    found = combined_scores(scores, stats).tolist()
    assert found == pytest.approx([2**0.5 * math.log(2), math.hypot(30, math.log(2)), 50], rel=1e-6)


@given(st.lists(st.floats(-20, 20), min_size=3, max_size=3), st.integers(0, 2), st.floats(0.1, 10))
def test_a_higher_score_of_any_predictor_raises_the_combined_one(z, which, more):
    stats = ScoreStats(torch.zeros(3).double(), torch.ones(3).double())
    low = torch.tensor([z]).double()
    high = low.clone()
    high[0, which] += more
    assert float(combined_scores(high, stats)) >= float(combined_scores(low, stats))


def test_what_one_predictor_sees_is_not_averaged_away():
    """A defect of one grid alone, beside one that both see half as much of."""
    normals = maps_of(40, levels=2, seed=5)
    stats = replace(
        fit_position_stats(normals),
        scores=fit_score_stats(predictor_scores(normals, fit_position_stats(normals), TWO)),
    )
    alone, both = maps_of(1, seed=6), maps_of(1, seed=6)
    alone[0, 1, 1, 1] += 20
    both[0, :, 1, 1] += 10
    averaged = ScoreRule.of((1, 1), top_fraction=0.25)
    ratios = [float(judge(alone, stats, r)[0] / judge(both, stats, r)[0]) for r in (TWO, averaged)]
    assert ratios[0] > 1.25 * ratios[1]
    torch.testing.assert_close(judge(alone, stats, TWO)[1], judge(alone, stats, averaged)[1])


def test_a_norm_map_that_is_not_mapped_changes_the_score_alone():
    rule = ScoreRule.of((2, 1), (1, 1), top_fractions=(0.25, 0.25))
    assert rule.weights == (1 / 2, 0, 1 / 2)
    normals = maps_of(40, levels=3, seed=5)
    stats = fit_position_stats(normals)
    stats = replace(stats, scores=fit_score_stats(predictor_scores(normals, stats, rule)))
    one, other = maps_of(1, levels=3, seed=6), maps_of(1, levels=3, seed=6)
    other[0, 1, 1, 1] += 20
    before, after = judge(one, stats, rule), judge(other, stats, rule)
    assert torch.equal(before[1], after[1])
    assert float(after[0]) > float(before[0]) + 1


def test_a_rule_that_combines_needs_statistics_of_scores():
    with pytest.raises(ValueError, match="the statistics have none of them"):
        judge(maps_of(1), fit_position_stats(maps_of(5)), TWO)


def test_few_or_equal_scores_are_given_the_usual_spread():
    stats = fit_score_stats(torch.tensor([[4.0, 8.0], [4.0, 8.0]]))
    assert stats.mean_P.tolist() == [4, 8]
    assert stats.std_P.tolist() == pytest.approx([(5 / 7) ** 0.5, 2 * (5 / 7) ** 0.5])
    many = torch.randn(5000, 1, generator=torch.Generator().manual_seed(0)) * 3 + 4
    assert float(fit_score_stats(many).std_P) == pytest.approx(3, rel=0.03)


def test_maps_are_weighted():
    maps, stats = maps_of(3), fit_position_stats(maps_of(9, seed=1))
    weights = [0.7, *[0.3 / (maps.shape[1] - 1)] * (maps.shape[1] - 1)]
    z = ((maps - stats.median_Lhw) / stats.scale_Lhw).double().numpy()
    expected = np.tensordot(z, np.array(weights), axes=(1, 0))
    np.testing.assert_allclose(typicality_map(maps, stats, weights), expected, rtol=1e-5, atol=1e-6)


def test_a_share_of_the_floor_is_taken_away():
    """The mean of the lowest fifth of the cells, image by image."""
    maps = maps_of(3, levels=2, h=5, w=4)
    stats = fit_position_stats(maps_of(9, h=5, w=4, seed=1))
    plain = typicality_map(maps, stats)
    for share in (0.25, 1.0):
        found = typicality_map(maps, stats, floor=share)
        for before, after in zip(plain, found, strict=True):
            lowest = sorted(before.flatten().tolist())[:4]
            np.testing.assert_allclose(after, before - share * statistics.mean(lowest), rtol=1e-5, atol=1e-6)


def test_with_all_of_the_floor_gone_a_common_offset_is_gone():
    maps = maps_of(2, levels=1)
    stats = PositionStats(torch.ones(1, 3, 4), torch.full((1, 3, 4), 2.0))
    moved = typicality_map(maps + 6, stats, floor=1.0)
    torch.testing.assert_close(moved, typicality_map(maps, stats, floor=1.0))
    half = typicality_map(maps + 6, stats, floor=0.5) - typicality_map(maps, stats, floor=0.5)
    torch.testing.assert_close(half, torch.full_like(half, 1.5))
