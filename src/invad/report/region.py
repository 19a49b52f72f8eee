"""One page that needs nothing else, on which a person draws the region of interest of a picture."""

from base64 import b64encode
from dataclasses import asdict
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from invad.data.region import Region
from invad.report.colours import Pixels, display
from invad.report.rendering import environment

SIDE = 1600
"""Pixels of the longer side of the picture as it is shown; the region is in pixels of the picture itself."""


def region_page(pixels: Pixels, name: str, region: Region | None = None) -> str:
    """The page for a picture, H x W x 3. name: what it is called. region: to go on with."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(np.ascontiguousarray(display(pixels)))
    image.thumbnail((SIDE, SIDE))
    stream = BytesIO()
    image.save(stream, "JPEG", quality=90)
    uri = "data:image/jpeg;base64," + b64encode(stream.getvalue()).decode("ascii")
    start: dict[str, Any] = {"frame": [width, height], "include": [], "ignore": [], "min_cover": 0.5}
    if region is not None:
        start = asdict(region)
    page = environment().get_template("region.html.j2")
    return page.render(name=name, uri=uri, width=width, height=height, region=start)
