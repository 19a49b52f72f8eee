"""The graph for pixels of one integer type, as servers take them that gather images of several requests.

    image_BHW3  uint8 or uint16, as the camera gave them      category_B  int64

What comes out is that of `Graph`, but for the norm maps. Every input and output has the number of images as
its first dimension.
"""

import torch
from torch import Tensor, nn

from invad.graph.graph import OUTPUTS, Graph

PIXEL_INPUTS = ("image", "category")
PIXEL_OUTPUTS = OUTPUTS[:-1]


class PixelGraph(nn.Module):
    """A graph with black and white in it.

    dtype: of the pixels. black_white: their levels, see `grey_range`.
    """

    def __init__(self, graph: Graph, dtype: torch.dtype, black_white: tuple[float, float]) -> None:
        super().__init__()
        # Programs of torch.export have a `graph` of their own.
        self.whole, self.dtype = graph, dtype
        self.register_buffer("range", torch.tensor(black_white, device=graph.judge.median.device))
        self.range: Tensor

    def forward(
        self, image_BHW3: Tensor, category_B: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        score, p_value, decision, map_BHW, map_Bhw, _ = self.whole(image_BHW3.float(), self.range, category_B)
        return score, p_value, decision, map_BHW, map_Bhw
