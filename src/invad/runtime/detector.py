"""An exported detector: the same predictions as `invad.Detector`, by any engine."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.data.images import ImageSource, read_image
from invad.data.preprocess import grey_range
from invad.data.region import Region, inside_of, require_frame
from invad.errors import ConfigError, DataError
from invad.records import Hw, Prediction
from invad.runtime.bundle import ExportInfo
from invad.runtime.engines import Engine, Options, Outputs
from invad.runtime.held import Held
from invad.runtime.held_tiles import HeldTiles
from invad.runtime.judging import DECISIONS, Judging
from invad.runtime.predictor import Pixels, Predictor
from invad.runtime.smallest import sized_score
from invad.scoring.calibration import Calibration, for_category, known_category
from invad.scoring.sizes import Smallest


@dataclass(frozen=True, slots=True)
class Source:
    """Where a detector was read: the folder of its bundle, and by which engine."""

    folder: Path
    engine: str
    options: Options


class ExportedDetector(Predictor):
    """Get one with `runtime.load`, or of this process with `Detector.compile`."""

    def __init__(
        self,
        info: ExportInfo,
        engine: Engine,
        *,
        content_hash: str | None = None,
        streams: int = 1,
        judging: Judging | None = None,
        held: Held | HeldTiles | None = None,
        source: Source | None = None,
    ) -> None:
        """judging: by other limits than those in the graph. held: what other limits can be made of. source:
        None of a graph of this process."""
        self.info, self.engine, self.content_hash = info, engine, content_hash
        self.judging, self.held, self.source = judging, held, source
        self.calibrations = info.calibrations
        self.fusion = info.parts
        self.sizes = info.sizes
        self.streams = streams
        self.numbers = {name: number for number, name in enumerate(info.as_exported.calibrations)}

    def decode(self, image: ImageSource, category: str | None = None) -> Pixels:
        """Pixels of one image. Raises DataError, also for one that has not the one size or type that the
        bundle takes."""
        pixels, size, kind = read_image(image), self.info.size_hw, self.info.pixels
        name = image if isinstance(image, str | Path) else "<array>"
        if kind is not None and pixels.dtype != kind:
            raise DataError(
                f"{name}: {pixels.dtype} pixels, this graph takes {kind} alone; export it with other --bits, "
                "or as a bundle for pixels of any type"
            )
        require_frame(self.region_for(category), (pixels.shape[0], pixels.shape[1]), name)
        if size is not None and pixels.shape[:2] != size:
            raise DataError(
                f"{name}: {pixels.shape[1]} x {pixels.shape[0]} pixels, the bundle takes "
                f"{size[1]} x {size[0]} alone; export without --size for images of any size"
            )
        return pixels

    @property
    def region(self) -> Region | None:
        """The part of the pictures that counts, that of the model which the bundle was made from."""
        return self.info.region

    @property
    def regions(self) -> Mapping[str, Region]:
        """Of categories, those of the model which the bundle was made from."""
        return self.info.regions

    @cached_property
    def inside_HW(self) -> NDArray[np.bool_] | None:
        """The pixels that count, H x W in the frame of the region of interest; None where all do."""
        return None if self.info.region is None else inside_of(self.info.region)

    @property
    def smallest(self) -> Smallest | None:
        """The smallest area of a defect, that of the model which the bundle was made from."""
        return self.info.smallest

    @property
    def grid_hw(self) -> Hw:
        """That of the model which the bundle was made from."""
        return self.info.grid_hw

    def kind(self, pixels: Pixels) -> Hashable:
        """Shape and dtype: neighbours of one size share a run."""
        return pixels.shape, pixels.dtype

    def group_size(self, batch: int) -> int:
        """That of the bundle where it is fixed. Raises ConfigError for another."""
        if self.info.batch not in (None, batch) and batch != 1:
            raise ConfigError(f"batch = {batch}: this bundle runs {self.info.batch} at a time")
        return self.info.batch or batch

    def judge(self, pixels: Sequence[NDArray[Any]], category: str | None = None) -> list[Prediction]:
        """Predictions of decoded images of one shape and dtype, all in one run."""
        pixels = self.levelled(pixels, category)
        outputs = self._run(pixels, [known_category(self.calibrations, category)] * len(pixels))
        calibration = for_category(self.calibrations, category)
        smallest = self.smallest if self.judging is None else None
        return [_prediction(category, outputs, i, calibration, smallest) for i in range(len(pixels))]

    def cell_maps(
        self, pixels: Sequence[NDArray[Any]], categories: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Anomaly maps on the grid, each by the statistics of a category, all in one run."""
        if self.judging is not None:
            read = zip(self.norms(pixels, categories), categories, strict=True)
            return [self.judging.reading(maps_Lhw, category)[1] for maps_Lhw, category in read]
        return list(self._run(pixels, categories).grid_map[: len(pixels)])

    def norms(self, pixels: Sequence[NDArray[Any]], categories: Sequence[str]) -> NDArray[np.float32]:
        """Norm maps B x L x h x w of images of one shape and dtype, before any comparison, all in one run."""
        filled, number_B = self._filled(pixels, categories)
        return self.engine.norms(*grey_levels(filled, self.info.window), number_B)[: len(pixels)]

    def _run(self, pixels: Sequence[NDArray[Any]], categories: Sequence[str]) -> Outputs:
        if self.judging is not None:
            size_hw = (pixels[0].shape[0], pixels[0].shape[1])
            return self.judging.outputs(self.norms(pixels, categories), categories, size_hw)
        filled, number_B = self._filled(pixels, categories)
        if self.info.pixels is None:
            return self.engine.run(*grey_levels(filled, self.info.window), number_B)
        return self.engine.run(np.stack(filled), None, number_B)

    def _filled(
        self, pixels: Sequence[NDArray[Any]], categories: Sequence[str]
    ) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
        """As many images as the graph takes, and the numbers of their categories."""
        missing = (self.info.batch or len(pixels)) - len(pixels)
        # Places of tiles that came after the export have no number; reading tiles needs none.
        numbers = [self.numbers.get(category, 0) for category in categories]
        return [*pixels, *[pixels[-1]] * missing], np.array([*numbers, *[numbers[-1]] * missing], np.int64)


def grey_levels(
    pixels: Sequence[NDArray[Any]], window: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`image` and `range` of a graph for images of one shape and dtype: uint8, uint16 or float32."""
    image = np.stack(pixels).astype(np.float32)
    return image, np.array(grey_range(pixels[0].dtype, window), np.float32)


def _prediction(
    category: str | None,
    outputs: Outputs,
    i: int,
    calibration: Calibration,
    smallest: Smallest | None,
) -> Prediction:
    score, decision = float(outputs.score[i]), DECISIONS[int(outputs.decision[i])]
    if smallest is not None:
        score = sized_score(outputs.grid_map[i], smallest)
        decision = calibration.decide(score)
    return Prediction(
        path=None,
        category=category,
        score=score,
        # The graph's own is the same with the digits of a float32.
        p_value=calibration.p_value(score),
        decision=decision,
        anomaly_map=outputs.anomaly_map[i],
        cells=outputs.grid_map[i],
    )
