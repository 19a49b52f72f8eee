"""Decoding in threads, ahead of a network that is busy with the images before."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeAlias

from numpy.typing import NDArray

from invad.data.images import ImageSource, read_image
from invad.errors import DataError

Decoded: TypeAlias = "tuple[ImageSource, NDArray[Any] | DataError]"
"""An image as it was named, and its pixels (see `read_image`) or why there are none."""


def read_ahead(
    sources: Iterable[ImageSource],
    workers: int,
    ahead: int,
    read: Callable[[ImageSource], NDArray[Any]] = read_image,
) -> Iterator[Decoded]:
    """The pixels of the sources, in their order.

    workers: decoding threads; Pillow and tifffile leave the interpreter free while they decode. With 0 each
    image is decoded when it is asked for, and nothing is taken from `sources` before. ahead: images that may
    wait decoded, at least one; no more than these and one more are held, however many there are. read: what
    the threads do, for whom an image has to pass more than `read_image`.
    """

    def decoded(source: ImageSource) -> Decoded:
        try:
            return source, read(source)
        except DataError as error:
            return source, error

    if workers < 1:
        yield from map(decoded, sources)
        return
    waiting: deque[Future[Decoded]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="invad-decode")
    remaining = iter(sources)
    try:
        waiting.extend(pool.submit(decoded, source) for source in islice(remaining, max(1, ahead)))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(decoded, source) for source in islice(remaining, 1))
            yield done
    finally:
        pool.shutdown(cancel_futures=True)
