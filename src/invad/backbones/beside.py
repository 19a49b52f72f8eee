"""Several backbones side by side: one image, the maps of all."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from invad.backbones.base import Backbone, BackboneInfo

JOINT = "+"
"""Between the names: `invad-s+efficientnet-lite2`."""


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
