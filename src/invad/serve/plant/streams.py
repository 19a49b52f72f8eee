"""Cameras of this machine and of the network, and video files, read by PyAV.

A picture that comes as a file, JPEG or PNG, stays the file that it is; everything else is decoded.
"""

import time
from collections import deque
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from invad.data.video import frame_pixels, moving_stream
from invad.errors import DataError, in_one_line
from invad.serve.plant.feeds import Feed, Frame, SpoiledFrame
from invad.serve.plant.sources import CameraSource
from invad.system.packages import importing

PICTURES = ("mjpeg", "png")
"""Codecs whose packets are picture files."""

FINE = 0.002
"""Seconds; stamps in larger steps say less than the moment at which a frame was read."""

OLDEST = 60.0
"""Seconds that a frame may have waited until its stream was open; a larger age is that of another clock."""

LONGEST_PAUSE = 1.0
"""Seconds between two frames of a file that is played as a camera, whatever its time stamps say."""


class Stream(Feed):
    """What PyAV reads."""

    def __init__(self, source: CameraSource):
        """Raises DataError when it cannot be opened in time, ConfigError where PyAV or a login is missing."""
        with importing(("av",), "camera", "a camera or video file"):
            import av  # noqa: F401
        self.source = source
        self._began = time.monotonic()
        self._decoded: deque[Any] = deque()
        self._count = 0
        self._name = _named(source) if source.is_file and not source.loop else None
        self._open()

    def _open(self) -> None:
        import av

        source = self.source
        kind = "v4l2" if source.is_device else None
        seconds = (source.timeout, source.timeout)
        try:
            self._container = av.open(source.address, format=kind, options=_options(source), timeout=seconds)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise DataError(_said(source, error)) from None
        stream = moving_stream(self._container)
        if stream is None:
            self._container.close()
            raise DataError(f"{source.place}: has no video that can be decoded; check the address")
        stream.codec_context.thread_type = "SLICE"  # threads by frame would hold frames back
        if not source.is_file:
            stream.codec_context.flags |= av.codec.context.Flags.low_delay
        self._are_files = stream.codec_context.name in PICTURES
        self._packets: Iterator[Any] = self._container.demux(stream)
        self._opened = time.time()

    def read(self) -> Frame | None:
        while not self._decoded:
            packet = self._next()
            if packet is None and self.source.loop and self._count:
                self._play_again()
            elif packet is None and self.source.is_file:
                return None
            elif packet is None:
                raise DataError(f"{self.source.place}: the stream has ended")
            elif not self._are_files:
                self._decoded.extend(self._frames_of(packet))
            elif packet.size:
                return self._frame(bytes(packet), packet)
        decoded = self._decoded.popleft()
        if decoded.is_corrupt:
            raise SpoiledFrame("a frame is incomplete")
        return self._frame(lambda: frame_pixels(decoded), decoded)

    def close(self) -> None:
        self._decoded.clear()
        self._container.close()

    def _next(self) -> Any:
        """The next packet, None at the end."""
        import av

        try:
            return next(self._packets, None)
        except (av.FFmpegError, OSError) as error:
            raise DataError(_said(self.source, error)) from None

    def _frames_of(self, packet: Any) -> Any:
        import av

        try:
            return packet.decode()
        except (av.FFmpegError, OSError) as error:
            raise SpoiledFrame(f"a frame cannot be decoded ({_words(error)})") from None

    def _frame(self, body: Any, timed: Any) -> Frame:
        """timed: a packet or decoded frame, which has a time."""
        self._count += 1
        now = time.monotonic()
        stamp = None if timed.pts is None else float(timed.pts * timed.time_base)
        if self.source.is_file:
            if self.source.loop:
                self._keep_pace(stamp or 0.0)
                return Frame(body=body, arrived=time.monotonic(), at=time.monotonic())
            at = float(self._count) if stamp is None else stamp
            return Frame(body=body, arrived=now, at=at, name=f"{self._name}-{self._count}")
        arrived = now - self._age(stamp, float(timed.time_base or 0))
        return Frame(body=body, arrived=arrived, at=arrived)

    def _age(self, stamp: float | None, tick: float) -> float:
        """Seconds since a frame came, by its stamp, which is the time of this machine in steps of a tick.

        A frame may have waited until the stream was open, or for others in a decoder. MJPEG over HTTP has
        steps of 40 ms, and is not decoded: there the stamp only counts for what waited.
        """
        if stamp is None or (tick > FINE and stamp - tick >= self._opened):
            return 0.0
        age = time.time() - stamp + tick
        return age if 0 <= age <= OLDEST else 0.0

    def _keep_pace(self, seconds: float) -> None:
        """Wait until a file that is played has come so far."""
        ahead = self._began + seconds - time.monotonic()
        if ahead > LONGEST_PAUSE:
            self._began -= ahead - LONGEST_PAUSE
        time.sleep(min(max(ahead, 0.0), LONGEST_PAUSE))

    def _play_again(self) -> None:
        self._container.close()
        self._count, self._began = 0, time.monotonic()
        self._open()


def _options(source: CameraSource) -> dict[str, str]:
    """Of FFmpeg; those of the file of stations come last."""
    if source.is_file:
        return {**source.options}
    # What was read while the stream was looked at must not be taken for new.
    live = {"use_wallclock_as_timestamps": "1"}
    if source.url.startswith("rtsp"):
        live["rtsp_transport"] = "tcp"  # packets that are lost spoil frames
    return {**live, **source.options}


def _named(source: CameraSource) -> str:
    """A file as it is now. Raises DataError where there is none."""
    try:
        status = Path(source.url).stat()
    except OSError as error:
        raise DataError(_said(source, error)) from None
    return sha256(f"{source.url}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:40]


def _said(source: CameraSource, error: Exception) -> str:
    """In one line without the address, which may hold a password."""
    import av

    if isinstance(error, av.error.ExitError):
        return f"{source.place}: sent nothing for {source.timeout:g} s; is the camera on and reached?"
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return f"{source.place}: asks for another login; see login_variable"
    if isinstance(error, PermissionError) and source.is_device:
        return f"{source.place}: {_words(error)}; let this user read it, with the group video"
    return f"{source.place}: {_words(error)}"


def _words(error: Exception) -> str:
    """What FFmpeg or the system calls it; the whole text of an error of FFmpeg has the address in it."""
    return getattr(error, "strerror", None) or in_one_line(error)
