"""Folded predictors against predict_noise: other arithmetic, the same numbers."""

import pytest
import torch
from torch import nn

from invad.backbones.timm_backbone import load_timm
from invad.diffusion.denoiser import PRESETS, DenoiserConfig, build_denoiser
from invad.diffusion.dit import DiT
from invad.diffusion.empirical import EmpiricalDenoiser
from invad.diffusion.schedule import SCHEDULES
from invad.diffusion.schedule import timesteps as named_levels
from invad.graph.fold import fold_denoiser, fuse_batch_norm
from invad.model.settings import PRESETS as DETECTOR_PRESETS

GRID = (4, 6)
CHANNELS = 10
LEVELS = {f"schedule {name}": named_levels(name, 3) for name in SCHEDULES} | {
    f"preset {name}": preset.reading.timesteps for name, preset in DETECTOR_PRESETS.items()
}
assert len(LEVELS) == len(SCHEDULES) + len(DETECTOR_PRESETS)
KINDS = {
    "mlp": DenoiserConfig(kind="mlp", width=16, depth=2, mlp_ratio=2.0),
    "mlp without places": DenoiserConfig(kind="mlp", width=16, depth=1, positional=False),
    "mlp gaussian": DenoiserConfig(kind="mlp", width=16, depth=2, mlp_ratio=1.0, gaussian=True),
    "dit": DenoiserConfig(kind="dit", width=16, depth=2, heads=4, gaussian=True),
    "dit patch": DenoiserConfig(kind="dit", width=16, depth=2, heads=4, patch=2, gaussian=True),
    "dit bare": DenoiserConfig(kind="dit", width=16, depth=1, heads=4, patch=2, positional=False),
}


def drawn(network):
    """The same network with weights as after a training: none zero."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if not name.endswith("abar"):
            spread = 0.3 if tensor.ndim < 2 else tensor[0].numel() ** -0.5
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * spread)
        if name.endswith("variance"):
            tensor.abs_().add_(0.1)
    return network.eval()


def built(kind):
    if kind == "reference":
        return drawn(DiT(CHANNELS, width=16, depth=2, heads=4, mlp_ratio=2.0, stored_grid_hw=GRID))
    return drawn(build_denoiser(KINDS[kind], CHANNELS, GRID))


@torch.no_grad()
def difference(denoiser, levels, grid_hw=GRID, channels=CHANNELS):
    """Largest relative difference over the levels, of a batch of two."""
    x = torch.randn(2, channels, *grid_hw, generator=torch.Generator().manual_seed(2))
    worst = 0.0
    for t, folded in zip(levels, fold_denoiser(denoiser, levels, grid_hw), strict=True):
        expected = denoiser.predict_noise(x, torch.full((2,), t))
        found = folded(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)
        worst = max(worst, float((found - expected).norm() / expected.norm()))
    return worst


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("kind", [*KINDS, "reference"])
def test_folded_equals_unfolded(kind, levels):
    assert difference(built(kind), LEVELS[levels]) < 1e-5


@pytest.mark.parametrize("name", ["mlp-s", "dit-s"])
def test_folded_equals_unfolded_at_full_size(name):
    network = build_denoiser(PRESETS[name], 24, (8, 8))
    assert difference(drawn(network), (200, 400), (8, 8), 24) < 1e-5


def test_the_empirical_predictor_is_called_at_its_level():
    empirical = EmpiricalDenoiser(CHANNELS, 30)
    empirical.set_bank(torch.randn(30, CHANNELS, generator=torch.Generator().manual_seed(3)), 0)
    assert difference(empirical, (20, 300)) < 1e-5


def test_a_wrong_level_is_seen():
    """That the comparison can fail."""
    denoiser = built("mlp gaussian")
    x = torch.randn(1, CHANNELS, *GRID)
    (folded,) = fold_denoiser(denoiser, (300,), GRID)
    with torch.no_grad():
        expected = denoiser.predict_noise(x, torch.tensor([400]))
        found = folded(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)
    assert float((found - expected).norm() / expected.norm()) > 1e-3


def test_modulations_are_dropped_and_layers_shared():
    """A third of the paper's network computes what the level alone decides."""
    network = built("dit")
    folded = fold_denoiser(network, (0, 500, 999), GRID)
    unused = sum(p.numel() for n, p in network.named_parameters() if "adaLN" in n or "t_embedder" in n)
    output = network.net.final_layer.linear
    copies = 2 * sum(p.numel() for p in output.parameters())
    kept = sum(p.numel() for p in folded.parameters())
    assert kept == sum(p.numel() for p in network.parameters()) - unused + copies


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet18", "resnetv2_50"])
def test_batch_norms_go_into_the_convolutions(name):
    torch.manual_seed(0)
    net = load_timm(name, pretrained=False)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, scale in ((module.running_mean, 0.1), (module.running_var, 0.2)):
                tensor.add_(scale * torch.rand(tensor.shape))
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = net(x)
        norms = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
        fused = fuse_batch_norm(net, x)
        for found, wanted in zip(fused(x), expected, strict=True):
            assert float((found - wanted).norm() / wanted.norm()) < 1e-5
    left = sum(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert left == 0 or (name == "resnetv2_50" and left < norms)
