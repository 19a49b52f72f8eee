"""Several backbones together: in one feature space, in one each, or one for each grid."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from invad.backbones.base import Backbone, BackboneInfo, Part

JOINT = "+"
"""Between the names: `invad-s+efficientnet-lite2`."""

OVER = "//"
"""Between the name of the grid's backbone and that of the fine grid's: `invad-s//efficientnet-lite2`."""

EACH = ","
"""Between the names of backbones with known cells of their own: `invad-s,efficientnet-lite2`."""


class SideBySide(Backbone):
    """The maps of each part, in the order of the parts; each part normalises the image for itself."""

    def __init__(self, parts: Sequence[Backbone]):
        infos = [part.info for part in parts]
        info = BackboneInfo(
            name=JOINT.join(one.name for one in infos),
            source=f" {JOINT} ".join(one.source for one in infos),
            licence="; ".join(dict.fromkeys(one.licence for one in infos)),
            shape={one.name: dict(one.shape) for one in infos},
        )
        super().__init__(info, (0.0,) * 3, (1.0,) * 3, math.lcm(*(part.size_multiple for part in parts)))
        self.parts = nn.ModuleList(parts)

    def features(self, x_B3HW: Tensor) -> list[Tensor]:
        return [m for part in self.parts for m in part(x_B3HW)]


class Divided(Backbone):
    """The maps of one part on the feature grid, those of another on the fine one, each at its best size.

    `forward` gives the maps of the first.
    """

    def __init__(self, grid: Backbone, fine: Backbone):
        super().__init__(*_joined(OVER, (grid, fine)))
        self.grid_part = grid
        self.fine_part = fine

    @property
    def apart(self) -> tuple[Part, ...]:
        share = self.grid_part.info.side / self.info.side
        return Part(self.grid_part, share, on_fine=False), Part(self.fine_part, on_grid=False)

    def features(self, x_B3HW: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.grid_part(x_B3HW)
        return maps


class Each(Backbone):
    """The maps of each part on both grids, each at its best size, never in one feature space.

    `forward` gives the maps of all parts, of one size of image.
    """

    def __init__(self, parts: Sequence[Backbone]):
        super().__init__(*_joined(EACH, parts))
        self.parts = nn.ModuleList(parts)

    @property
    def apart(self) -> tuple[Part, ...]:
        nets = [net for net in self.parts if isinstance(net, Backbone)]
        return tuple(Part(net, net.info.side / self.info.side) for net in nets)

    def features(self, x_B3HW: Tensor) -> list[Tensor]:
        return [m for part in self.parts for m in part(x_B3HW)]


def _joined(
    joint: str, parts: Sequence[Backbone]
) -> tuple[BackboneInfo, tuple[float, ...], tuple[float, ...], int]:
    """What parts that normalise the image for themselves, each at a size of its own, are together."""
    infos = [part.info for part in parts]
    info = BackboneInfo(
        name=joint.join(one.name for one in infos),
        source=f" {joint} ".join(one.source for one in infos),
        licence="; ".join(dict.fromkeys(one.licence for one in infos)),
        side=max(one.side for one in infos),
        shape={one.name: dict(one.shape) for one in infos},
    )
    return info, (0.0,) * 3, (1.0,) * 3, math.lcm(*(part.size_multiple for part in parts))
