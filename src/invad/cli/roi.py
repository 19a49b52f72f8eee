"""invad roi draw"""

from pathlib import Path
from typing import Annotated

import typer

from invad.cli.options import written_file
from invad.cli.voice import Voice
from invad.system.files import write_atomically


def draw(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture as the camera takes them.")],
    to: Annotated[Path, typer.Option(metavar="FILE.html", callback=written_file, help="The page to write.")],
    roi: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Region to go on with: JSON or a mask picture.")
    ] = None,
) -> None:
    """Write a page on which one draws, with mouse or finger, what of the pictures counts.

    It needs no network; the region is saved as JSON, for --roi of train and calibrate.
    """
    voice = Voice(None)
    from invad.data.images import read_image
    from invad.data.region import read_region, require_frame
    from invad.report.region import region_page

    pixels = read_image(image)
    region = None if roi is None else read_region(roi)
    require_frame(region, (pixels.shape[0], pixels.shape[1]), image)
    write_atomically(to, region_page(pixels, image.name, region).encode())
    voice.say(
        f"Page: {to}",
        "Open it in a browser, draw, and save region.json; then: invad calibrate MODEL --roi region.json",
    )
