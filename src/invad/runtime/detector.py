"""An exported detector: the same predictions as `invad.Detector`, by any engine."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from invad.data.images import ImageSource, read_image
from invad.data.preprocess import grey_range
from invad.errors import ConfigError, DataError
from invad.records import Decision, Prediction
from invad.runtime.bundle import ExportInfo
from invad.runtime.engines import Engine, Outputs
from invad.runtime.many import predict_all, predict_many
from invad.scoring.calibration import Calibration, for_category, known_category

DECISIONS: tuple[Decision, ...] = ("good", "review", "bad")


class ExportedDetector:
    """Get one with `runtime.load`, or of this process with `Detector.compile`."""

    def __init__(
        self,
        info: ExportInfo,
        engine: Engine,
        *,
        content_hash: str | None = None,
        streams: int = 1,
    ) -> None:
        self.info, self.engine, self.content_hash = info, engine, content_hash
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
        return predict_all(x, lambda many: self.predict_many(many, category=category, workers=0, strict=True))

    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        category: str | None = None,
        batch: int = 1,
        workers: int = 2,
        strict: bool = False,
    ) -> Iterator[Prediction | DataError]:
        """Score any number of images, in their order; as `Detector.predict_many`.

        batch: neighbours of one size that share a run, at most; a bundle for a fixed number has its own. As
        many runs go on at a time as there are streams. An image of a size that the bundle does not take
        counts as unreadable.
        """
        known_category(self.calibrations, category)
        if self.info.batch not in (None, batch) and batch != 1:
            raise ConfigError(f"batch = {batch}: this bundle runs {self.info.batch} at a time")
        return predict_many(
            lambda pixels: self.judge(pixels, category),
            images,
            batch=self.info.batch or batch,
            workers=workers,
            strict=strict,
            streams=self.streams,
            read=self._read,
            kind=lambda pixels: (pixels.shape, pixels.dtype),
        )

    def judge(self, pixels: Sequence[NDArray[Any]], category: str | None = None) -> list[Prediction]:
        """Predictions of decoded images of one shape and dtype, all in one run."""
        count = self.info.batch or len(pixels)
        filled = [*pixels, *[pixels[-1]] * (count - len(pixels))]
        number = np.full(count, self.numbers[known_category(self.calibrations, category)], np.int64)
        outputs = self.engine.run(*grey_levels(filled, self.info.window), number)
        n = for_category(self.calibrations, category).n
        return [_prediction(category, outputs, i, n) for i in range(len(pixels))]

    def _read(self, x: ImageSource) -> NDArray[Any]:
        pixels, size = read_image(x), self.info.size_hw
        if size is not None and pixels.shape[:2] != size:
            name = x if isinstance(x, str | Path) else "<array>"
            raise DataError(
                f"{name}: {pixels.shape[1]} x {pixels.shape[0]} pixels, the bundle takes "
                f"{size[1]} x {size[0]} alone; export without --size for images of any size"
            )
        return pixels


def grey_levels(
    pixels: Sequence[NDArray[Any]], window: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`image` and `range` of a graph for images of one shape and dtype: uint8, uint16 or float32."""
    image = np.stack(pixels).astype(np.float32)
    return image, np.array(grey_range(pixels[0].dtype, window), np.float32)


def _prediction(category: str | None, outputs: Outputs, i: int, n: int) -> Prediction:
    return Prediction(
        path=None,
        category=category,
        score=float(outputs.score[i]),
        # The graph's number is a float32 of k / (n + 1); this is the same k with the double's digits.
        p_value=round(float(outputs.p_value[i]) * (n + 1)) / (n + 1),
        decision=DECISIONS[int(outputs.decision[i])],
        anomaly_map=outputs.anomaly_map[i],
    )
