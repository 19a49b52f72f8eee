"""Frames of video files, decoded one after the other by PyAV, without losing grey levels.

A file is opened by us and FFmpeg gets its bytes: no name is taken for an address, no playlist leads to
another file, and no demuxer but the ones listed here sees foreign bytes.
"""

import heapq
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from invad.data.decoding import upright
from invad.data.images import pixel_limit
from invad.data.limits import check_size
from invad.errors import ConfigError, DataError, in_one_line, reason
from invad.system.arguments import path_of, require
from invad.system.packages import importing

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer

Seconds: TypeAlias = float | Fraction

_DEMUXERS = "asf,avi,flv,matroska,mov,mpeg,mpegts,mxf,ogg,yuv4mpegpipe"
_GUESSED_RATE = Fraction(25)
"""Frames a second of a file that says neither when they are shown nor how many there are in a second."""

_EXACT = 0x2 | 0x2000 | 0x40000
"""Of libswscale: bilinear where chroma is coarser, chroma for each pixel, exact rounding."""

_ORIENTATION_OF_SIGNS = {
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
"""Signs of a display matrix, a b c d with x' = a x + c y and y' = b x + d y -> EXIF orientation."""

_ORIENTATION_OF_TURN = {180: 3, -180: 3, -90: 6, 90: 8}
"""Degrees against the clock -> EXIF orientation."""


@dataclass(frozen=True, slots=True)
class Frame:
    """number: from 0, in the order of time. time: seconds on the clock of the file.

    pixels: as of `frame_pixels`, or why there are none.
    """

    number: int
    time: float
    pixels: NDArray[Any] | DataError


def read_video(path: "str | os.PathLike[str]", *, every: Seconds | None = None) -> Iterator[Frame]:
    """The frames of a video file in the order of time; one at a time is held, however long it is.

    every: seconds between two frames that are given, by default all of them; of each interval, counted from
    the first frame, the first frame is given, so a varying frame rate does no harm. All are decoded, and
    numbers count all.

    A frame that cannot be decoded, that the decoder knows to be damaged, or that refers to such a one, comes
    with the reason in place of its pixels, also where `every` passes over its neighbours; so does the end of
    a file that is cut off, where the file states its length. Damage that still decodes, as some does in every
    codec, is not found. Raises ConfigError for an `every` that is not above 0, and, when the first frame is
    asked for, DataError for a file that is no video or holds no frames, and without PyAV.
    """
    require(every=(every, float | None))
    interval = None if every is None else Fraction(str(every)) if 0 < every < float("inf") else Fraction(0)
    if interval == 0:
        raise ConfigError(f"every = {every}: give seconds above 0, such as 0.2")
    return _frames(path_of(path, "path"), interval)


def expected_frames(path: "str | os.PathLike[str]", every: Seconds | None = None) -> int:
    """About how many frames `read_video` gives, as the head of the file says; 0 where nobody knows."""
    try:
        with _opened(Path(path)) as (_, stream):
            length = _stated_length(stream) or 0
            return int(length / Fraction(str(every)) if every else stream.frames or length * _rate(stream))
    except DataError:
        return 0


def frame_pixels(frame: "VideoFrame", orientation: int | None = None) -> NDArray[Any]:
    """Upright pixels of a decoded frame: grey H x W or colour H x W x 3 (RGB), uint8, or uint16 of deep ones.

    Eight bits stay as they are. More of them, such as those of yuv420p10 or gray12, are spread over 0..65535,
    so every level survives; gray16 and 16-bit RGB come out bit for bit. YUV becomes RGB of full range by the
    colour space and the range that the frame states. Alpha is ignored.

    orientation: how to turn the frame, as `orientation_of` says. By default that is asked where the frame has
    a rotation, so of all display matrices one is passed over, which turns the picture upside down without
    turning it round: to look at a matrix keeps a frame until the next garbage collection.
    """
    parts = frame.format.components
    colours = [part for part in parts if not part.is_alpha]
    is_grey = len(colours) == 1 and not (frame.format.has_palette or frame.format.is_rgb)
    # The three of a Bayer mosaic share the bits of one pixel.
    bits = sum(part.bits for part in parts) if frame.format.is_bayer else max(part.bits for part in parts)
    shallow, deep = ("gray", "gray16le") if is_grey else ("rgb24", "rgb48le")
    converted = frame.reformat(format=shallow if bits <= 8 else deep, interpolation=_EXACT)
    if orientation is None:
        orientation = orientation_of(frame) if frame.rotation else 1
    return upright(np.asarray(converted.to_ndarray()), orientation)


def orientation_of(frame: "VideoFrame") -> int:
    """How a frame is to be turned, as EXIF says it, 1 to 8: what its display matrix asks for.

    A matrix of no right angle counts as 1; where PyAV cannot hand it out, its rotation alone counts.
    """
    try:
        matrix = np.frombuffer(cast("Any", frame).side_data["DISPLAYMATRIX"], np.int32)
    except KeyError:
        return 1
    except ValueError:  # PyAV does not know another kind of data beside it and gives none at all
        return _ORIENTATION_OF_TURN.get(frame.rotation, 1)
    a, b, _, c, d = (int(np.sign(value)) for value in matrix[:5])
    return _ORIENTATION_OF_SIGNS.get((a, b, c, d), 1)


Found: TypeAlias = "tuple[Fraction, VideoFrame | str]"
"""When a frame is to be shown, and the frame or why there is none."""


def _frames(path: Path, every: Fraction | None) -> Iterator[Frame]:
    due = before = rotation = orientation = None
    number = -1
    with _opened(path) as (container, stream):
        for number, (time, found) in enumerate(_in_order(_found(container, stream))):
            if isinstance(found, str):
                yield _missing(path, number, time, found)
                continue
            if every is not None:
                if due is None or before is None or time < before:  # the first one, or the clock was set back
                    due = start = time
                before = time
                if time < due:
                    continue
                due = start + every * ((time - start) // every + 1)
            try:
                if found.rotation != rotation:
                    rotation, orientation = found.rotation, orientation_of(found)
                pixels = frame_pixels(found, orientation)
            except Exception as error:  # what FFmpeg cannot convert
                yield _missing(path, number, time, f"cannot be converted ({in_one_line(error)})")
                continue
            yield Frame(number, float(time), pixels)
    if number < 0:
        raise DataError(f"{path}: holds no frames; copy the file again, or record the video again")


def _missing(path: Path, number: int, time: Fraction, why: str) -> Frame:
    error = DataError(f"{path}: frame {number} at {float(time):.3f} s {why}")
    return Frame(number, float(time), error)


@contextmanager
def _opened(path: Path) -> "Iterator[tuple[InputContainer, VideoStream]]":
    """The file and its first stream of moving pictures. Raises DataError."""
    with importing(("av",), "camera", f"{path}: a video", DataError):
        import av
    options = {"protocol_whitelist": "none", "format_whitelist": _DEMUXERS}
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise DataError(f"{path}: is empty; copy the file again")
            file.seek(0)
            try:
                container = av.open(file, options=options)
            except (av.FFmpegError, ValueError) as error:
                raise _no_video(path, _said(error)) from None
            with container:
                given = cast("InputContainer", container)
                stream = moving_stream(given)
                if stream is None:
                    raise _without_pictures(path, given)
                limit = pixel_limit()
                codec = stream.codec_context
                if not (codec.width and codec.height):
                    raise _no_video(path, "it states no size")
                check_size(codec.width, codec.height, str(path), limit)
                # A damaged frame shall be an error rather than a picture that was made up.
                codec.options = {"err_detect": "explode", "max_pixels": str(limit)}
                yield given, stream
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from None


def moving_stream(container: "InputContainer") -> "VideoStream | None":
    """The first stream of moving pictures that can be decoded: no cover, and of a kind that FFmpeg knows."""
    for stream in container.streams.video:
        # PyAV says that it is never None, and gives None where there is no decoder.
        if not _is_cover(stream) and cast("object", stream.codec_context) is not None:
            return stream
    return None


def _without_pictures(path: Path, container: "InputContainer") -> DataError:
    """A file that is cut off may still open, with the streams that its rest names."""
    streams = container.streams
    if any(not _is_cover(stream) for stream in streams.video):
        return _no_video(path, "FFmpeg does not know how its pictures are packed")
    if not streams.audio:
        return _no_video(path, "no pictures are in it")
    return DataError(f"{path}: holds audio and no video; give a file with moving pictures")


def _no_video(path: Path, why: str) -> DataError:
    return DataError(
        f"{path}: is no video, or one that is cut off or of another kind than its ending says ({why}); "
        "copy the file again or convert it to MP4"
    )


def _is_cover(stream: "VideoStream") -> bool:
    """Whether it is the one picture that is shown beside music."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def _found(container: "InputContainer", stream: "VideoStream") -> "Iterator[Found]":
    """Frames as the decoder gives them, and why there are none as soon as that is known."""
    import av

    base, step = cast("Fraction", stream.time_base), 1 / _rate(stream)
    start = (stream.start_time or 0) * base
    end, widest, shown = start, step, start - step
    packets, account = container.demux(stream), _Account()
    broken = None
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            broken, packet = _said(error), None
        if packet is not None and not packet.size:
            continue
        pts = None if packet is None else packet.pts
        if packet is not None:
            end = max(end, (end if pts is None else pts * base) + ((packet.duration or 0) * base or step))
        try:
            if packet is not None and packet.is_corrupt:
                raise av.InvalidDataError(0, "its bytes are damaged or cut off")
            decoded = stream.decode(packet)
            account.sent(packet)
        except (av.FFmpegError, OSError) as error:
            account.failed(pts)
            yield (shown + step if pts is None else pts * base), f"cannot be decoded ({_said(error)})"
            decoded = []
        for frame in decoded:
            for lost in account.lost_before(frame.pts):
                yield lost * base, "was lost when another one could not be decoded"
            if account.has_told(frame.pts):
                continue
            before, shown = shown, shown + step if frame.pts is None else frame.pts * base
            widest = max(widest, shown - before)
            yield shown, account.fault(frame) or frame
        if packet is None:
            break
    for lost in account.lost_before(None):
        yield lost * base, "was lost when another one could not be decoded"
    length = _stated_length(stream)
    if broken is not None:
        yield end, f"and what follows cannot be read ({broken}); copy the file again"
    elif length is not None and start + length - end > 2 * widest:
        yield end, f"and what follows is missing, of {float(length):.3f} s in all; copy the file again"


class _Account:
    """Which frames a decoder owes, in units of the stream's clock, and which it made up.

    After a frame that cannot be decoded, those that refer to it are made from a wrong picture until the next
    one that stands by itself, and others are never handed out; the decoder says neither.
    """

    def __init__(self) -> None:
        self.owed: set[int] = set()
        self.told: set[int] = set()
        self.in_doubt = False

    def sent(self, packet: "Packet[VideoStream] | None") -> None:
        if packet is not None and packet.pts is not None and not packet.is_discard:
            self.owed.add(packet.pts)

    def failed(self, pts: int | None) -> None:
        self.in_doubt = True
        self.told |= set() if pts is None else {pts}

    def lost_before(self, pts: int | None) -> list[int]:
        """Frames that do not come any more when the frame of `pts` is there, or (None) all have come."""
        passed = {one for one in self.owed if pts is None or one < pts}
        self.owed -= passed | ({pts} if pts is not None else set())
        return sorted(passed) if self.in_doubt else []

    def has_told(self, pts: int | None) -> bool:
        """Whether a frame comes that could not be decoded."""
        return pts in self.told

    def fault(self, frame: "VideoFrame") -> str | None:
        """What is wrong with a frame."""
        if frame.is_corrupt:
            self.in_doubt = True
            return "is damaged"
        self.in_doubt = self.in_doubt and not frame.key_frame
        return "refers to one that could not be decoded" if self.in_doubt else None


def _in_order(found: "Iterator[Found]") -> "Iterator[Found]":
    """In the order of time: a decoder tells of a damaged frame before it hands out earlier ones."""
    waiting: list[tuple[Fraction, int, str]] = []
    numbers = count()
    for time, one in found:
        if isinstance(one, str):
            heapq.heappush(waiting, (time, next(numbers), one))
            continue
        while waiting and waiting[0][0] <= time:
            before, _, why = heapq.heappop(waiting)
            yield before, why
        yield time, one
    for before, _, why in sorted(waiting):
        yield before, why


def _rate(stream: "VideoStream") -> Fraction:
    return stream.guessed_rate or stream.average_rate or _GUESSED_RATE


def _stated_length(stream: "VideoStream") -> Fraction | None:
    """Seconds, where the file says so of its pictures; that of its sound may be another."""
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")  # Matroska
    minutes, _, seconds = rest.partition(":")
    try:
        return 3600 * Fraction(hours) + 60 * Fraction(minutes) + Fraction(seconds)
    except ValueError:
        return None


def _said(error: BaseException) -> str:
    """What FFmpeg says, without the number and the file."""
    return (getattr(error, "strerror", None) or in_one_line(error))[:200]
