"""Industrial cameras by GenICam: whatever has a GenTL producer, through harvesters."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.data.video import frame_pixels
from invad.errors import ConfigError, DataError, in_one_line
from invad.runtime.predictor import Pixels
from invad.serve.plant.feeds import Feed, Frame, NoFrame, SpoiledFrame
from invad.serve.plant.sources import GenicamSource
from invad.system.packages import importing
from invad.system.signals import INTERRUPT, keeping

GREY = {"Mono8": 8, "Mono10": 10, "Mono12": 12, "Mono14": 14, "Mono16": 16}
"""Bits by pixel format; more than 8 are spread over 0..65535, so that every level survives."""

COLOUR = {"RGB8": (0, 1, 2), "BGR8": (2, 1, 0), "RGBa8": (0, 1, 2), "BGRa8": (2, 1, 0)}
"""Where red, green and blue are; alpha is left out."""

MOSAIC = {
    "BayerRG8": "bayer_rggb8",
    "BayerGR8": "bayer_grbg8",
    "BayerGB8": "bayer_gbrg8",
    "BayerBG8": "bayer_bggr8",
}
"""Colours are interpolated by libswscale; let the camera send RGB8 where it can."""

FORMATS = (*GREY, *COLOUR, *MOSAIC)


_CHANGING = threading.Lock()
_PRODUCERS: "dict[str, _Producer]" = {}
"""Those that are open: a process opens a GenTL library once, for all its cameras."""


@dataclass(slots=True, eq=False)
class _Producer:
    """harvester: with the cameras that were there when it was opened. cameras: how many are open."""

    harvester: Any
    cameras: int = 0


class IndustrialCamera(Feed):
    """A camera that sends pictures."""

    def __init__(self, source: GenicamSource):
        """Raises DataError when it cannot be opened, ConfigError where harvesters or the producer is missing
        or a node cannot be set."""
        with importing(("harvesters",), "genicam", "GenICam"):
            import harvesters.core  # noqa: F401
        if not Path(source.producer).is_file():
            raise ConfigError(f"{source.producer}: no such file; give the .cti of the camera's maker")
        self.source = source
        with _CHANGING:
            try:
                self._camera = _connected(source)
            except (DataError, ConfigError):
                raise
            except Exception as error:  # GenTL's own are not derived from one class
                raise DataError(f"{source.place}: {in_one_line(error)}") from None
        try:
            nodes = self._camera.remote_device.node_map
            for name, value in source.nodes.items():
                _set(nodes, name, value)
            self._camera.start()
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and not isinstance(error, ConfigError):
                raise DataError(f"{source.place}: {in_one_line(error)}") from None
            raise

    def read(self) -> Frame | None:
        try:
            buffer = self._camera.try_fetch(timeout=self.source.timeout)
            now = time.monotonic()
            if buffer is None:
                _ = self._camera.remote_device.node_map.Width.value  # raises where it is gone
                raise NoFrame(f"{self.source.place}: sent nothing for {self.source.timeout:g} s")
            with buffer:  # its memory is used again
                parts = buffer.payload.components
                pixels = pixels_of(parts[0]) if parts else None
        except (DataError, ConfigError):
            raise
        except Exception as error:  # GenTL's own are not derived from one class
            raise DataError(f"{self.source.place}: {in_one_line(error)}") from None
        if pixels is None:
            raise SpoiledFrame("a frame has no picture")
        return Frame(body=lambda: pixels, arrived=now, at=now)

    def close(self) -> None:
        with _CHANGING:
            try:
                self._camera.destroy()
            finally:
                _release(self.source.producer)


def _connected(source: GenicamSource) -> Any:
    """An acquirer of the camera. Raises DataError where it is not there, and whatever GenTL raises."""
    from harvesters.core import Harvester

    producer = _PRODUCERS.get(source.producer)
    if producer is None:
        producer = _PRODUCERS[source.producer] = _Producer(Harvester())
        producer.harvester.add_file(source.producer)
        producer.harvester.update()  # which ends all acquirers, so it is done once
    producer.cameras += 1
    try:
        found = [str(one.serial_number) for one in producer.harvester.device_info_list]
        serials = ", ".join(found) or "none"
        if source.serial is None and len(found) != 1:
            raise DataError(f"{source.place}: {len(found)} cameras are there; give a serial of: {serials}")
        if source.serial is not None and source.serial not in found:
            raise DataError(f"{source.place}: no such camera is there; found: {serials}")
        # In the main thread an acquirer takes Ctrl-C, which then ends nothing but itself.
        with keeping(INTERRUPT):
            return producer.harvester.create(0 if source.serial is None else found.index(source.serial))
    except BaseException:
        _release(source.producer)
        raise


def _release(path: str) -> None:
    """One camera fewer; with the last the library is closed."""
    producer = _PRODUCERS[path]
    producer.cameras -= 1
    if not producer.cameras:
        del _PRODUCERS[path]
        producer.harvester.reset()


def pixels_of(part: Any) -> Pixels:
    """H x W grey or H x W x 3 colour of uint8 or uint16, in memory of its own.

    part: has width, height, data_format and data, as components of harvesters do. Raises ConfigError for a
    format that is not one of FORMATS.
    """
    name, height, width = part.data_format, part.height, part.width
    rows = np.asarray(part.data).reshape(height, -1)  # rows may have padding
    if name in GREY:
        return _spread(rows[:, :width], GREY[name])
    if name in COLOUR:
        channels = 4 if "a8" in name else 3
        colours = rows[:, : channels * width].reshape(height, width, channels)
        return np.ascontiguousarray(colours[..., COLOUR[name]])
    if name in MOSAIC:
        with importing(("av",), "genicam", f"pixel format {name}"):
            from av import VideoFrame

        mosaic = np.ascontiguousarray(rows[:, :width])
        return frame_pixels(VideoFrame.from_ndarray(mosaic, format=MOSAIC[name]))
    raise ConfigError(f"pixel format {name}: set nodes.PixelFormat to one of {', '.join(FORMATS)}")


def _spread(levels: NDArray[Any], bits: int) -> Pixels:
    if bits == 8:
        return np.array(levels, np.uint8)
    # The highest bits again below the lowest: 0 stays 0 and white becomes 65535.
    wide = levels.astype(np.uint32)
    return ((wide << (16 - bits)) | (wide >> (2 * bits - 16))).astype(np.uint16)


def _set(nodes: Any, name: str, value: object) -> None:
    """Raises ConfigError in one line."""
    node = getattr(nodes, name, None)
    if node is None:
        raise ConfigError(f"nodes.{name}: the camera has no such node")
    try:
        node.value = value
    except Exception as error:  # of the camera's own description
        raise ConfigError(f"nodes.{name} = {value!r}: {in_one_line(error)}") from None
