"""Pictures of results as files: the image under its map, the image alone, or the map."""

import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from invad.errors import DataError
from invad.serve.delivery import Sink, Unwanted
from invad.serve.pictures import draw_overlay, shown_png
from invad.serve.plant.outputs import FolderOutput
from invad.serve.plant.sinks.files import problem, put, reaching, require, word
from invad.serve.records import Refused, Result
from invad.serve.service import Service

LOG = logging.getLogger("invad.serve")
QUALITY = 92


class Pictures(Sink):
    """The files DATE/STATION_PART_ID.png of a folder."""

    kind = "folder"

    def __init__(self, output: FolderOutput, service: Service | None):
        """service: that has the pictures; None where nothing will be delivered."""
        self.output, self.service = output, service
        self.folder, self.place = Path(output.path), f"{output.picture}s in {output.path}"
        self.without = 0

    def deliver(self, results: Sequence[Result]) -> Iterator[str]:
        before = self.without
        try:
            for one in results:
                content = self._content(one)
                if content is None:
                    self.without += 1
                else:
                    with reaching(self.folder):
                        path = self.folder / one.time[:10] / self._name(one)
                        path.parent.mkdir(exist_ok=True)
                        put(path, content)
                yield one.id
        finally:
            if self.without > before:
                LOG.warning(
                    "%s: %d results have no picture, because it is not kept; %d since the start",
                    *(self.folder, self.without - before, self.without),
                )

    def idle(self) -> None:
        require(self.folder)

    def problems(self) -> Iterator[str]:
        if (wrong := problem(self.folder)) is not None:
            yield wrong

    def _name(self, one: Result) -> str:
        ending = "jpg" if self.output.form == "jpeg" else "png"
        return "_".join([one.station, *([word(one.part_id)] if one.part_id else []), f"{one.id}.{ending}"])

    def _content(self, one: Result) -> bytes | None:
        """None where the picture is not kept, or can no longer be drawn."""
        assert self.service is not None, "a sink that delivers has a service"
        what = self.output.picture
        try:
            stored = self.service.result(one.id)
            image = b"" if what == "map" else self.service.picture(stored, "image")
            map_png = b"" if what == "image" else self.service.picture(stored, "map")
        except Refused:
            return None
        except DataError as error:  # of the service's own disk
            raise Unwanted(str(error)) from None
        try:
            if what == "map":
                return map_png
            if what == "image":
                drawn = shown_png(image, self.output.side)
            else:
                drawn = draw_overlay(image, map_png, stored.map_limits, self.output.side)
        except DataError as error:
            LOG.error("the picture of result %s cannot be drawn: %s", one.id, error)
            return None
        return drawn if self.output.form == "png" else _jpeg(drawn)


def _jpeg(png: bytes) -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(png)) as drawn:
        drawn.convert("RGB").save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()
