"""Batch norms folded into convolutions: other weights, the same numbers."""

import pytest
import torch
from torch import nn

from invad.backbones.timm_backbone import load_timm
from invad.graph.fold import fuse_batch_norm


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
