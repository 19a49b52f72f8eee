"""Small video files of pictures that a test knows."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[Any]


def write_clip(
    path: Path,
    pictures: Sequence[Picture],
    *,
    codec: str = "ffv1",
    layout: str = "bgr0",
    times: Sequence[int] | None = None,
    **options: str,
) -> Path:
    """Pictures H x W or H x W x 3 of uint8 or uint16 as frames, 40 ms apart, or at `times` in ms.

    The defaults keep every level of 8-bit colours; `gray16le` and `gbrp16le` do so of 16 bits. options: of
    the codec; `movflags` is of the file.
    """
    import av

    names = {(2, "u1"): "gray", (2, "u2"): "gray16le", (3, "u1"): "rgb24", (3, "u2"): "rgb48le"}
    of_file = {key: options.pop(key) for key in ("movflags",) if key in options}
    with av.open(str(path), "w", options=of_file) as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = layout, Fraction(1, 1000)
        for i, picture in enumerate(pictures):
            given = names[picture.ndim, picture.dtype.str[1:]]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), given).reformat(format=layout)
            frame.pts, frame.time_base = 40 * i if times is None else times[i], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def write_sound(path: Path, cover: Picture | None = None) -> Path:
    """A second of silence and no moving picture. cover: H x W x 3 of uint8, shown beside it."""
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000, layout="mono")
        if cover is not None:
            beside = file.add_stream("png", rate=1)
            beside.height, beside.width = cover.shape[:2]
            beside.pix_fmt, beside.disposition = "rgb24", av.stream.Disposition.attached_pic.value
            file.mux(beside.encode(av.VideoFrame.from_ndarray(cover, "rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
