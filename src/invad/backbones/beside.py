"""Several backbones together: side by side on one image, or one for the grid and one for the fine grid."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from invad.backbones.base import Backbone, BackboneInfo

JOINT = "+"
"""Between the names: `invad-s+efficientnet-lite2`."""

OVER = "//"
"""Between the name of the grid's backbone and that of the fine grid's: `invad-s//efficientnet-lite2`."""


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
        infos = (grid.info, fine.info)
        info = BackboneInfo(
            name=OVER.join(one.name for one in infos),
            source=f" {OVER} ".join(one.source for one in infos),
            licence="; ".join(dict.fromkeys(one.licence for one in infos)),
            side=max(one.side for one in infos),
            shape={one.name: dict(one.shape) for one in infos},
        )
        multiple = math.lcm(grid.size_multiple, fine.size_multiple)
        super().__init__(info, (0.0,) * 3, (1.0,) * 3, multiple)
        self.grid_part = grid
        self.fine_part = fine

    @property
    def of_grid(self) -> Backbone:
        return self.grid_part

    @property
    def of_fine_grid(self) -> Backbone:
        return self.fine_part

    @property
    def share(self) -> float:
        return self.grid_part.info.side / self.info.side

    def features(self, x_B3HW: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.grid_part(x_B3HW)
        return maps
