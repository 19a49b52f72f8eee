"""An exported detector: the same predictions as `invad.Detector`, by any engine."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from invad.calibration import Calibration, for_category
from invad.data.images import ImageSource, read_image
from invad.errors import ConfigError, DataError
from invad.records import Decision, Prediction
from invad.runtime.bundle import ExportInfo, read_bundle
from invad.runtime.engines import AUTO, Engine, Options, Outputs, open_engine

DECISIONS: tuple[Decision, ...] = ("good", "review", "bad")
BATCH = 16
READERS = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


class ExportedDetector:
    """Get one with `runtime.load`, or of this process with `Detector.compile`."""

    def __init__(
        self,
        info: ExportInfo,
        engine: Engine,
        *,
        content_hash: str | None = None,
        batch: int | None = None,
        streams: int = 1,
    ) -> None:
        self.info, self.engine, self.content_hash = info, engine, content_hash
        self.batch = info.batch or batch or BATCH
        self.streams = streams
        self.numbers = {name: number for number, name in enumerate(info.calibrations)}

    @property
    def calibrations(self) -> dict[str, Calibration]:
        return self.info.calibrations

    @overload
    def predict(self, x: ImageSource, *, category: str | None = None) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, x: Iterable[ImageSource], *, category: str | None = None) -> list[Prediction]: ...
    def predict(self, x: Any, *, category: str | None = None) -> Prediction | list[Prediction]:
        """Score one image, or each of an iterable, one by one; as `Detector.predict`.

        Raises DataError naming an image that is unreadable or has not the one size the bundle takes.
        """
        if _is_one_image(x):
            return self._judge([self._read(x)], category)[0]
        return [self._judge([self._read(one)], category)[0] for one in x]

    def predict_many(
        self, images: Iterable[ImageSource], *, category: str | None = None
    ) -> Iterator[Prediction]:
        """Score images in their order, decoding ahead; memory does not grow with their number.

        Neighbours of one size share a batch where the bundle allows more than one image, and as many batches
        run at a time as there are streams. Raises DataError as `predict`, when it comes to that image.
        """
        limit = 1 if self.info.batch == 1 else self.batch
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(self.streams) as runners:
            decoded = _ahead(readers, self._read, images, READERS + limit)
            batches = _groups(decoded, limit)
            for predictions in _ahead(
                runners, lambda batch: self._judge(batch, category), batches, self.streams
            ):
                yield from predictions

    def _read(self, x: ImageSource) -> tuple[str | None, NDArray[Any]]:
        pixels = read_image(x)
        name, size = str(x) if isinstance(x, str | Path) else None, self.info.size_hw
        if size is not None and pixels.shape[:2] != size:
            raise DataError(
                f"{name or '<array>'}: {pixels.shape[1]} x {pixels.shape[0]} pixels, the bundle takes "
                f"{size[1]} x {size[0]} alone; export without --size for images of any size"
            )
        return name, pixels

    def _judge(
        self, batch: Sequence[tuple[str | None, NDArray[Any]]], category: str | None
    ) -> list[Prediction]:
        """Images of one shape and dtype."""
        count = self.info.batch or len(batch)
        pixels = [array for _, array in batch]
        pixels += pixels[-1:] * (count - len(pixels))
        number = np.full(count, self.numbers.get(category or "", 0), np.int64)
        outputs = self.engine.run(*grey_levels(pixels, self.info.window), number)
        n = for_category(self.calibrations, category).n
        return [_prediction(name, category, outputs, i, n) for i, (name, _) in enumerate(batch)]


def load(
    bundle: str | Path,
    engine: str = AUTO,
    *,
    threads: int | None = None,
    streams: int = 1,
    batch: int | None = None,
    device: str | None = None,
) -> ExportedDetector:
    """Read an exported detector and make it ready to run.

    engine: onnxruntime, openvino or torch; auto takes the first installed one for this bundle. threads: per
    image, by default the engine's choice. streams: images at the same time in `predict_many`. batch: images
    in one run there, of a bundle that takes any number. device: as the engine names it.
    Raises ArtifactError for a bundle that is damaged or of another format, ConfigError for an engine or
    device that is not there.
    """
    folder = Path(bundle)
    info, content_hash = read_bundle(folder)
    if batch is not None and (batch < 1 or info.batch not in (None, batch)):
        raise ConfigError(f"batch = {batch}: this bundle runs {info.batch or 'at least 1'} at a time")
    options = Options(threads=threads, streams=streams, device=device)
    opened = open_engine(engine, info.format, folder / info.graph, options)
    return ExportedDetector(info, opened, content_hash=content_hash, batch=batch, streams=streams)


def grey_levels(
    pixels: Sequence[NDArray[Any]], window: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`image` and `range` of a graph for images of one shape and dtype: uint8, uint16 or float32."""
    ranges = {"uint8": (0.0, 255.0), "uint16": (65535 * window[0], 65535 * window[1]), "float32": (0.0, 1.0)}
    image = np.stack(pixels).astype(np.float32)
    return image, np.array(ranges[pixels[0].dtype.name], np.float32)


def _prediction(name: str | None, category: str | None, outputs: Outputs, i: int, n: int) -> Prediction:
    return Prediction(
        path=name,
        category=category,
        score=float(outputs.score[i]),
        # The graph's number is a float32 of k / (n + 1); this is the same k with the double's digits.
        p_value=round(float(outputs.p_value[i]) * (n + 1)) / (n + 1),
        decision=DECISIONS[int(outputs.decision[i])],
        anomaly_map=outputs.anomaly_map[i],
    )


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Iterator[Result]:
    """work(item) in order, up to `count` items ahead of what was asked for."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _groups(
    images: Iterable[tuple[str | None, NDArray[Any]]], limit: int
) -> Iterator[list[tuple[str | None, NDArray[Any]]]]:
    """Neighbours of one shape and dtype, at most `limit`."""
    group: list[tuple[str | None, NDArray[Any]]] = []
    for name, pixels in images:
        first = group[0][1] if group else pixels
        if len(group) == limit or (pixels.shape, pixels.dtype) != (first.shape, first.dtype):
            yield group
            group = []
        group.append((name, pixels))
    if group:
        yield group


def _is_one_image(x: Any) -> bool:
    from PIL.Image import Image

    return isinstance(x, str | Path | bytes | Image | np.ndarray) or hasattr(x, "detach")
