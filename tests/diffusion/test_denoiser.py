import math

import pytest
import torch

from invad.diffusion.denoiser import (
    DENOISERS,
    SIZES,
    DenoiserConfig,
    build_denoiser,
    sized,
)
from invad.errors import ConfigError

CHANNELS = 5


def trained(kind, **options):
    """A small network whose every weight is random, as if trained; seeded."""
    torch.manual_seed(0)
    network = build_denoiser(DenoiserConfig(kind=kind, width=32, depth=2, **options), CHANNELS, (4, 6)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def features(batch=3, h=4, w=6):
    return torch.randn(batch, CHANNELS, h, w, generator=torch.Generator().manual_seed(1))


kinds = pytest.mark.parametrize("kind", sorted(DENOISERS))


@kinds
@torch.no_grad()
def test_predicts_features_shape_on_any_grid(kind):
    network = trained(kind)
    for h, w in ((4, 6), (1, 1), (7, 3)):
        assert network.predict_noise(features(2, h, w), torch.tensor([0, 999])).shape == (2, CHANNELS, h, w)


@kinds
@torch.no_grad()
def test_forward_is_predict_noise(kind):
    network, x, t_B = trained(kind), features(), torch.tensor([1, 2, 3])
    assert torch.equal(network(x, t_B), network.predict_noise(x, t_B))


@kinds
@torch.no_grad()
def test_untrained_network_predicts_zero(kind):
    network = build_denoiser(DenoiserConfig(kind=kind, width=32, depth=2), CHANNELS, (4, 6))
    assert torch.count_nonzero(network.predict_noise(features(), torch.tensor([0, 5, 9]))) == 0


@kinds
@torch.no_grad()
def test_images_of_a_batch_do_not_influence_each_other(kind):
    network, x, t_B = trained(kind), features(), torch.tensor([0, 500, 999])
    together = network.predict_noise(x, t_B)
    alone = torch.cat([network.predict_noise(x[i : i + 1], t_B[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert (together[0] - network.predict_noise(x, t_B.flip(0))[0]).abs().max() > 1e-3


@kinds
@torch.no_grad()
def test_one_expanded_level_equals_the_level_repeated(kind):
    network, x = trained(kind), features()
    expanded, repeated = torch.tensor([7]).expand(3), torch.tensor([7, 7, 7])
    torch.testing.assert_close(network(x, expanded), network(x, repeated), rtol=1e-5, atol=1e-5)


@kinds
@torch.no_grad()
def test_positions_matter_only_when_asked_for(kind):
    x, t_B = features(1), torch.tensor([300])
    for positional in (True, False):
        network = trained(kind, positional=positional)
        moved = network.predict_noise(x.flip((2, 3)), t_B).flip((2, 3))
        distance = (moved - network.predict_noise(x, t_B)).abs().max()
        assert distance > 1e-2 if positional else distance < 1e-5


@kinds
def test_learns_to_predict_noise(kind):
    """On unit Gaussian data the best prediction is sqrt(1 - abar) x; at abar = 1/2 its loss is 1/2."""
    torch.manual_seed(0)
    network = build_denoiser(DenoiserConfig(kind=kind, width=32, depth=1, mlp_ratio=1.0), CHANNELS, (4, 6))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        noise, clean = torch.randn(2, 16, CHANNELS, 4, 6)
        predicted = network(math.sqrt(0.5) * (clean + noise), torch.full((16,), 333))
        loss = (predicted - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1.0, abs=0.1)
    assert sum(losses[-10:]) / 10 == pytest.approx(0.5, abs=0.06)
    assert all(parameter.grad is not None for parameter in network.parameters())


@kinds
def test_half_precision_and_double_precision_networks_work(kind):
    for dtype in (torch.bfloat16, torch.float64):
        network = trained(kind).to(dtype)
        assert network.predict_noise(features().to(dtype), torch.tensor([1, 2, 3])).dtype is dtype


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    [
        ("mlp-s", 192, 1_886_208),
        ("dit-s", 192, 5_095_872),
        ("dit-b", 192, 38_927_040),
        ("dit-l", 192, 230_483_136),
        ("dit-paper", 272, 1_222_682_896),
    ],
)
def test_presets_have_the_sizes_the_table_says(name, channels, parameters):
    with torch.device("meta"):
        network = build_denoiser(sized(name), channels, (16, 16))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_paper_preset_spends_a_third_on_time_modulation():
    with torch.device("meta"):
        network = build_denoiser(sized("dit-paper"), 272, (16, 16))
    modulation = sum(p.numel() for name, p in network.named_parameters() if "adaLN" in name)
    assert round(modulation / 1e6) == 411


def test_every_preset_is_listed_above():
    assert list(SIZES) == ["mlp-s", "dit-s", "dit-b", "dit-l", "dit-paper"]


def test_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match=r"denoiser = 'mlp-xl' is unknown; choose one of \['mlp-s'"):
        sized("mlp-xl")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "unet"}, r"denoiser\.kind = 'unet' is unknown; choose one of \['dit', 'mlp'\]"),
        ({"kind": ["dit"]}, r"denoiser\.kind"),
        ({"width": 0}, r"denoiser\.width = 0"),
        ({"width": 30}, "multiple of 4"),
        ({"width": 32.0}, r"denoiser\.width = 32\.0"),
        ({"depth": True}, r"denoiser\.depth = True"),
        ({"heads": 5}, r"denoiser\.heads = 5: give a divisor"),
        ({"patch": 0}, r"denoiser\.patch = 0"),
        ({"kind": "mlp", "patch": 2}, r"denoiser\.patch = 2: the mlp"),
        ({"mlp_ratio": "4"}, r"denoiser\.mlp_ratio = '4'"),
        ({"mlp_ratio": 0.0}, r"denoiser\.mlp_ratio = 0\.0"),
        ({"mlp_ratio": math.nan}, r"denoiser\.mlp_ratio = nan"),
        ({"mlp_ratio": math.inf}, r"denoiser\.mlp_ratio = inf"),
        ({"positional": 1}, r"denoiser\.positional = 1"),
    ],
)
def test_impossible_configurations_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        DenoiserConfig(**{"kind": "dit", "width": 32, "depth": 2, **options})


def test_patch_must_divide_the_grid():
    config = DenoiserConfig(kind="dit", width=32, depth=1, patch=2)
    with pytest.raises(ConfigError, match=r"denoiser\.patch = 2: give a divisor of the 4 x 5"):
        build_denoiser(config, CHANNELS, (4, 5))


def test_empty_features_are_refused():
    with pytest.raises(ConfigError, match="channels = 0"):
        build_denoiser(SIZES["mlp-s"], 0, (4, 4))
