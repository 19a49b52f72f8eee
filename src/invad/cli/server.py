"""invad predict --server: a running service judges, and keeps what it says."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from invad.errors import DataError, reason
from invad.system.packages import require

AT_A_TIME = 2
UNREADABLE = 400
"""Status of the answer to an image that cannot be read; it gets a row, anything else ends the command."""


def rows(
    address: str,
    station: str,
    images: Sequence[Path],
    category: str | None,
    workers: int | None,
    strict: bool,
) -> Iterator[dict[str, Any]]:
    """The row of each image, in their order. workers: requests at a time, 2 by default.

    Raises DataError when the service does not answer, Refused for what it does not do; with `strict` also for
    an image that cannot be read.
    """
    require(("httpx",), "serve", "--server")
    from invad.serve.client import Client
    from invad.serve.records import Refused

    def ask(image: Path) -> dict[str, Any]:
        row: dict[str, Any] = {"path": str(image), **dict.fromkeys(("score", "p_value", "decision"))}
        try:
            found = client.inspect(_content(image), station=station, category=category)
        except (Refused, DataError) as error:
            is_its_own = not isinstance(error, Refused) or error.status == UNREADABLE
            if strict or not is_its_own or client.address in str(error):
                raise
            return {**row, "error": f"{image}: {error}".replace(": the image: ", ": ", 1)}
        return {**row, "score": found.score, "p_value": found.p_value, "decision": found.decision}

    with Client(address) as client, ThreadPoolExecutor(max(1, workers or AT_A_TIME)) as pool:
        waiting: deque[Future[dict[str, Any]]] = deque()
        try:
            for image in images:
                waiting.append(pool.submit(ask, image))
                if len(waiting) > 2 * (workers or AT_A_TIME):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def _content(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise DataError(reason(error, writing=False)) from None
