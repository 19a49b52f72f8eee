import numpy as np
import pytest
import torch
from torch import nn

from invad.backbones.base import Backbone, BackboneInfo, pool_to_grid


class Plain(Backbone):
    def __init__(self):
        info = BackboneInfo(name="plain", source="test", licence="none")
        super().__init__(info, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
        self.net = nn.Sequential(nn.Conv2d(3, 5, 2, 2), nn.BatchNorm2d(5), nn.Dropout(0.5))

    def features(self, x_B3HW):
        return [x_B3HW, self.net(x_B3HW)]


def test_the_normalisation_is_inside():
    x = torch.rand(2, 3, 4, 6)
    found = Plain().freeze()(x)[0].numpy()
    expected = (x.numpy() - np.array([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1)) / np.reshape(
        [0.5, 0.25, 2.0], (1, 3, 1, 1)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_the_normalisation_travels_with_the_weights():
    other = Plain()
    other.mean.zero_()
    other.load_state_dict(Plain().state_dict())
    np.testing.assert_allclose(other.mean.flatten(), [0.1, 0.2, 0.3])


def test_probe_reads_shapes_off_the_network():
    assert Plain().freeze().probe((8, 12)) == ((3, 8, 12), (5, 4, 6))


def test_frozen_means_frozen():
    backbone = Plain().freeze()
    x = torch.rand(4, 3, 8, 8)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    torch.testing.assert_close(backbone(x)[1], backbone(x)[1])
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_finer_maps_are_averaged_over_each_cell(factor):
    fine = torch.rand(2, 3, 4 * factor, 6 * factor)
    pooled = pool_to_grid([fine], (4, 6))
    blocks = fine.numpy().reshape(2, 3, 4, factor, 6, factor).mean(axis=(3, 5))
    np.testing.assert_allclose(pooled, blocks, rtol=1e-5)


def test_no_pixel_of_a_fine_map_is_lost():
    """A defect of one pixel counts wherever it is, the same everywhere: that is what antialiasing buys."""
    for y in range(8):
        for x in range(8):
            fine = torch.zeros(1, 1, 8, 8)
            fine[0, 0, y, x] = 16.0
            pooled = pool_to_grid([fine], (2, 2))[0, 0]
            assert pooled[y // 4, x // 4] == 1.0
            assert pooled.sum() == 1.0


def test_coarser_maps_are_interpolated_and_all_are_joined():
    maps = [torch.rand(1, 2, 8, 8), torch.rand(1, 3, 4, 4), torch.full((1, 1, 2, 2), 7.0)]
    joined = pool_to_grid(maps, (4, 4))
    assert joined.shape == (1, 6, 4, 4)
    assert torch.equal(joined[:, 2:5], maps[1])
    torch.testing.assert_close(joined[:, 5], torch.full((1, 4, 4), 7.0))
