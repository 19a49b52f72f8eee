"""Any number of images through a detector: decoding ahead, groups that share a run, results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from invad.data.ahead import Decoded, read_ahead
from invad.data.images import ImageSource, read_image
from invad.errors import ConfigError, DataError
from invad.records import Prediction

Pixels = NDArray[Any]
Item = TypeVar("Item")
Result = TypeVar("Result")


def predict_many(
    judge: Callable[[Sequence[Pixels]], list[Prediction]],
    images: Iterable[ImageSource],
    *,
    batch: int,
    workers: int,
    strict: bool,
    streams: int = 1,
    read: Callable[[ImageSource], Pixels] = read_image,
    kind: Callable[[Pixels], object] = lambda pixels: None,
) -> Iterator[Prediction | DataError]:
    """Predictions of images in their order, or why one cannot be read; with `strict` that is raised.

    judge: says of decoded images that share a run what they are. streams: runs at the same time. kind: of an
    image; other kinds cannot share its run. Raises ConfigError for batch < 1 or workers < 0.
    """
    if batch < 1 or workers < 0:
        raise ConfigError(f"batch = {batch}, workers = {workers}: give at least 1 and at least 0")

    def run(group: list[Decoded]) -> list[Prediction | DataError]:
        readable = [found for _, found in group if not isinstance(found, DataError)]
        predictions = iter(judge(readable) if readable else ())
        return [
            found if isinstance(found, DataError) else replace(next(predictions), path=_path(source))
            for source, found in group
        ]

    decoded = read_ahead(images, workers, batch * streams + workers, read)
    for made in _in_order(run, _groups(decoded, batch, kind), streams):
        for one in made:
            if strict and isinstance(one, DataError):
                raise one
            yield one


def predict_all(
    x: Any, predict: Callable[[Iterable[ImageSource]], Iterator[Prediction | DataError]]
) -> Prediction | list[Prediction]:
    """`predict` of one image or of many, as the type of x says; `predict` raises what it cannot read."""
    single = is_one_image(x)
    made = [one for one in predict([x] if single else x) if isinstance(one, Prediction)]
    return made[0] if single else made


def is_one_image(x: Any) -> bool:
    from PIL.Image import Image

    # Only tensors have `detach`, and torch need not be there.
    known = (str, os.PathLike, bytes, bytearray, memoryview, Image, np.ndarray)
    return isinstance(x, known) or hasattr(x, "detach") or hasattr(x, "read")


def _groups(
    decoded: Iterable[Decoded], limit: int, kind: Callable[[Pixels], object]
) -> Iterator[list[Decoded]]:
    """Neighbours of one kind, at most `limit`, and the unreadable among them."""
    group: list[Decoded] = []
    kinds: set[object] = set()
    for source, found in decoded:
        own = set() if isinstance(found, DataError) else {kind(found)}
        if len(kinds | own) > 1:
            yield group
            group, kinds = [], set()
        group.append((source, found))
        kinds |= own
        if len(group) == limit:
            yield group
            group, kinds = [], set()
    if group:
        yield group


def _in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """work(item) of each item, as many at a time as there are threads; in this thread if there is one."""
    if threads == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _path(source: ImageSource) -> str | None:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None
