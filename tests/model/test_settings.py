import math
from dataclasses import replace

import pytest
import torch

from invad.diffusion.denoiser import build_denoiser
from invad.diffusion.empirical import EmpiricalConfig
from invad.diffusion.gaussian import GaussianPreconditioned
from invad.diffusion.schedule import linear_schedule, timesteps
from invad.errors import ConfigError
from invad.model.settings import PRESETS, Preset, TrainConfig, preset_named
from invad.model.space import SpaceConfig
from invad.system.plain import from_plain, to_plain


@pytest.mark.parametrize("name", ["dit", "paper-s"])
def test_a_preset_builds_its_denoiser(name):
    """It takes every level that the preset reads; untrained it says what its closed form or zero says."""
    settings = preset_named(name)
    denoiser = build_denoiser(settings.denoiser, 8, (4, 6))
    assert isinstance(denoiser, GaussianPreconditioned) == settings.denoiser.gaussian
    x = torch.randn(1, 8, 4, 6, generator=torch.Generator().manual_seed(0))
    for t in settings.reading.timesteps:
        a = linear_schedule().alphas_cumprod[t]
        expected = math.sqrt(1 - a) * x if settings.denoiser.gaussian else torch.zeros_like(x)
        torch.testing.assert_close(denoiser.predict_noise(x, torch.tensor([t])), expected.float())


def test_the_paper_is_the_paper():
    paper = preset_named("paper")
    assert paper.reading.timesteps == timesteps("reference", 3) == (0, 500, 999)
    assert (paper.backbone, paper.strides, paper.pooling) == ("efficientnet_b4", (2, 4, 8, 16), "bilinear")
    assert not paper.space.standardise
    assert (paper.space.components, paper.space.contrast, paper.empirical, paper.scales) == (
        None,
        0.0,
        None,
        (1.0,),
    )
    assert (paper.train.lr, paper.train.batch, paper.train.ema) == (5e-5, 8, 0.999)
    assert (paper.train.epochs, paper.train.warmup_share, paper.train.steps) == (300, 40 / 300, None)
    assert paper.train.steps_for(3629) == 136_088


def test_paper_m_is_the_paper_in_everything_but_size():
    """The rate belongs to the size: an eighth of the width, eight times the rate."""
    paper, small = preset_named("paper"), preset_named("paper-m")
    assert (small.denoiser.kind, small.denoiser.patch, small.denoiser.gaussian) == ("dit", 1, False)
    assert small.train.lr * small.denoiser.width == pytest.approx(paper.train.lr * paper.denoiser.width)
    same = replace(small, backbone=paper.backbone, denoiser=paper.denoiser)
    assert replace(same, train=replace(small.train, lr=paper.train.lr)) == paper
    standardised = preset_named("paper-m-standardised")
    assert standardised.space.standardise
    assert replace(standardised, space=small.space) == small


def test_dit_is_standard_on_its_first_backbone_with_a_network_beside_its_banks():
    dit, standard = PRESETS["dit"], PRESETS["standard"].of_first_backbone
    same = {"denoiser": None, "reading": standard.reading, "train": standard.train}
    assert replace(dit, **same, top_fractions=standard.top_fractions) == standard
    assert dit.top_fractions == (0.02, *standard.top_fractions)
    assert (dit.denoiser.kind, dit.reading.timesteps, dit.steps_for(240)) == ("dit", (100,), 3000)


def test_fast_is_standard_with_less_to_compute():
    fast, standard = PRESETS["fast"], PRESETS["standard"].of_first_backbone
    same = {"area_side": standard.area_side, "fine": standard.fine, "top_fractions": standard.top_fractions}
    same["second_space"] = standard.second_space
    assert replace(fast, **same) == standard
    assert (fast.area_side, fast.fine, fast.denoiser, fast.top_fractions) == (192, None, None, None)


def test_accurate_is_standard_with_smaller_cells():
    accurate, standard = PRESETS["accurate"], PRESETS["standard"]
    assert replace(accurate, grid_stride=None) == standard
    backbone = standard.load_backbone()
    assert (standard.cell_px(backbone), accurate.cell_px(backbone)) == (24, 16)
    first = standard.of_first_backbone
    assert (first.backbone, first.cell_px(first.load_backbone())) == ("invad-s", 16)


def test_every_preset_trains_on_whole_images():
    assert {preset.train.draw for preset in PRESETS.values()} == {"images"}


def test_settings_saved_before_there_was_a_choice_were_trained_on_images():
    plain = to_plain(preset_named("standard"))
    del plain["train"]["draw"]
    assert from_plain(Preset, plain, "config.json").train.draw == "images"


def test_an_unknown_name_lists_the_names():
    with pytest.raises(ConfigError, match="'slow' is unknown; choose one of standard, fast"):
        preset_named("slow")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("strides", ()),
        ("strides", (0,)),
        ("grid_stride", 0),
        ("area_side", 8),
        ("pooling", "max"),
        ("scales", ()),
        ("scales", (1.0, 0.01)),
        ("scales", (2.0,)),
        ("top_fraction", 0.0),
        ("top_fraction", 1.1),
        ("top_fraction", float("nan")),
        ("top_fractions", (0.02,)),
        ("top_fractions", (0.02, 0.02, 0.0)),
        ("second_space", SpaceConfig(contrast=1.0)),
    ],
)
def test_values_out_of_range_are_named(option, value):
    with pytest.raises(ConfigError, match=f"^{option} = "):
        Preset(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("steps", 0),
        ("batch", 0),
        ("lr", 0.0),
        ("lr", float("inf")),
        ("lr", float("nan")),
        ("weight_decay", -1.0),
        ("warmup", -1),
        ("ema", 1.0),
        ("ema", -0.1),
        ("grad_clip", 0.0),
        ("draw", "pixels"),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_training_values_out_of_range_are_named(option, value):
    with pytest.raises(ConfigError, match=f"^train.{option} = "):
        TrainConfig(**{option: value})


def test_every_predictor_counts_alike_whatever_its_levels():
    divided = replace(PRESETS["standard"], backbone="invad-s//efficientnet-lite2", second_space=None)
    assert divided.score_rule.weights == (1 / 2, 1 / 2)
    assert divided.score_rule.predictors == ((0,), (1,))
    assert PRESETS["fast"].score_rule.weights == (1.0,)
    assert Preset().score_rule.weights == pytest.approx((1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 3))
    assert PRESETS["paper"].score_rule.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_banks_in_the_second_space_make_scores_and_no_map():
    standard = PRESETS["standard"].of_first_backbone
    assert [bank.name for bank in standard.banks] == ["", "second.", "fine.", "fine.second."]
    assert [bank.space.contrast for bank in standard.banks] == [0.5, 1.0, 0.5, 1.0]
    assert standard.score_rule.predictors == ((0, 1), (2, 3))
    assert standard.score_rule.weights == (1 / 2, 0, 1 / 2, 0)
    assert PRESETS["dit"].score_rule.predictors == ((0,), (1, 2), (3, 4))
    assert PRESETS["dit"].score_rule.weights == pytest.approx((1 / 3, 1 / 3, 0, 1 / 3, 0))
    levels = replace(
        standard, empirical=EmpiricalConfig(timesteps=(20, 50)), fine=None, top_fractions=(0.02,)
    )
    assert levels.score_rule.weights == (1 / 2, 1 / 2, 0, 0)


def test_the_last_of_several_backbones_draws_and_all_of_them_judge():
    standard = PRESETS["standard"]
    names = ["", "second.", "fine.", "fine.second.", "part1.", "part1.fine."]
    assert [bank.name for bank in standard.banks] == names
    assert [bank.part for bank in standard.banks] == [0, 0, 0, 0, 1, 1]
    assert standard.score_rule.predictors == ((0, 1), (0, 1, 2, 3, 4, 5))
    assert standard.score_rule.weights == (0, 0, 0, 0, 1 / 2, 1 / 2)
    dit = PRESETS["dit"]
    both = replace(standard, denoiser=dit.denoiser, reading=dit.reading, top_fractions=(0.02, 0.02, 0.01))
    assert both.score_rule.predictors == ((0,), (1, 2), (1, 2, 3, 4, 5, 6))
    assert both.score_rule.weights == pytest.approx((1 / 3, 0, 0, 0, 0, 1 / 3, 1 / 3))


def test_several_backbones_want_known_cells_of_each():
    with pytest.raises(ConfigError, match=r"^backbone = 'invad-s,efficientnet-lite2': give one backbone, or"):
        replace(PRESETS["paper-m"], backbone="invad-s,efficientnet-lite2")
