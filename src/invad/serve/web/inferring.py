"""What comes by the Open Inference Protocol is a part like any other: queued, judged, stored."""

import asyncio
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.concurrency import run_in_threadpool

from invad.data.preprocess import resize_map
from invad.serve.models import Loaded
from invad.serve.options import DEFAULT_STATION
from invad.serve.pictures import decode_map
from invad.serve.records import Part, Result
from invad.serve.service import Service
from invad.serve.web import oip
from invad.serve.web.auth import Caller


class PartsOfTheLine(oip.Judge):
    """Judges by a service. It raises Refused, and what `Service.submit` and its answers raise."""

    words = oip.WORDS
    keeps = True
    map_note = "only when it is named in outputs; as it is kept, in 65536 levels"

    def __init__(self, service: Service):
        self.service = service

    def is_ready(self) -> bool:
        """As /readyz."""
        return self.service.readiness().ready

    def active(self) -> Sequence[Loaded]:
        """Those that judge at some station."""
        return list(self.service.models.all_active().values())

    def chosen(self, caller: Caller, name: str, version: str | None, words: Mapping[str, str]) -> Loaded:
        """What judges at the station of the request. Raises Refused where the caller may not ask."""
        station = words.get("station", DEFAULT_STATION)
        caller.require(station)
        (found,) = oip.fitting([self.service.active(station)], name, version, f" at station {station}")
        return found

    async def judge(
        self, model: Loaded, images: Sequence[oip.Image], category: str | None, words: Mapping[str, str]
    ) -> Sequence[oip.Judged]:
        """The answers come when all parts are stored. Those before one that is refused are stored, too."""
        answers = await run_in_threadpool(self._submitted, images, category, words)
        found = await asyncio.gather(*(asyncio.wrap_future(one) for one in answers))
        return [self._judged(one) for one in found]

    def _submitted(
        self, images: Sequence[oip.Image], category: str | None, words: Mapping[str, str]
    ) -> "list[Future[Result]]":
        request_id = words.get("request_id")
        return [
            self.service.submit(
                Part(
                    body=image if isinstance(image, bytes) else _as_file(image),
                    station=words.get("station", DEFAULT_STATION),
                    part_id=words.get("part_id"),
                    lot=words.get("lot"),
                    category=category,
                    source="oip",
                    request_id=f"{request_id}/{i}" if request_id and len(images) > 1 else request_id,
                )
            )
            for i, image in enumerate(images)
        ]

    def _judged(self, one: Result) -> oip.Judged:
        size = (one.height, one.width)

        def kept_map() -> NDArray[np.float32]:
            content = self.service.picture(self.service.result(one.id), "map")
            return resize_map(decode_map(content), size)

        return oip.Judged(
            model=one.model,
            version=one.model_version,
            score=one.score,
            p_value=one.p_value,
            decision=one.decision,
            size_hw=size,
            anomaly_map=kept_map,
            result_id=one.id,
        )


def _as_file(pixels: NDArray[Any]) -> bytes:
    """PNG of 8 bits, TIFF of 16 bits or float: files that hold every level, so a score is that of a file."""
    stream = io.BytesIO()
    if pixels.dtype == np.uint8:
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
    else:
        from tifffile import imwrite

        imwrite(stream, pixels, photometric="rgb")
    return stream.getvalue()
