"""A detector as an estimator of scikit-learn: an outlier detector of pictures.

Its signs are those of scikit-learn: larger is more normal, 1 is normal, -1 is not. What `fit` learns is kept
as bytes of a model folder when the estimator is copied or stored, so that no class of torch is in it.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from invad.data.images import ImageSource, read_image
from invad.data.lossless import keep_pixels
from invad.errors import ConfigError, DataError
from invad.records import Decision, Prediction, Sample
from invad.scoring.rates import POOLED, Rates
from invad.system.packages import importing

with importing(("scikit-learn",), "sklearn", __name__):
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from invad.detector.detector import Detector
    from invad.model.settings import Preset

CATEGORY = "images"
COLOURS = (3, 4)
"""Channels by which a single picture is told from several grey ones."""


class PictureError(DataError, ValueError):
    """X or y cannot be used. A ValueError, too, as scikit-learn expects of every estimator."""


class InvADDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Outlier detection of pictures, learned from normal ones.

    X everywhere: an array N x H x W (x 3), or a list or 1-D array of what `read_image` takes: paths, encoded
    bytes, Pillow images, arrays H x W (x 3) of any sizes. Arrays are uint8, uint16 or float in [0, 1].

    preset, backbone: as for `Detector.fit`, by their names; preset may be a Preset. size: side of a square of
    as many pixels as the input has, by default that of the preset. false_alarm_rate, review_rate: of the
    limits, shares of normal pictures. random_state: None for the seed of the preset, an integer, or a
    RandomState. device: a torch device, by default a CUDA GPU if there is one. cache: a folder that keeps
    features, and arrays as files, so that a search over settings computes them once for each fold.

    After `fit`: detector_, the `Detector`; offset_, minus the score above which a picture is bad.
    Raises PictureError for X and y, NotFittedError before `fit`, and what `Detector.fit` raises.
    """

    def __init__(
        self,
        preset: "str | Preset" = "standard",
        backbone: str | None = None,
        size: int | None = None,
        false_alarm_rate: float = 0.01,
        review_rate: float = 0.05,
        random_state: "int | np.random.RandomState | None" = None,
        device: str | None = None,
        cache: str | Path | None = None,
    ):
        self.preset = preset
        self.backbone = backbone
        self.size = size
        self.false_alarm_rate = false_alarm_rate
        self.review_rate = review_rate
        self.random_state = random_state
        self.device = device
        self.cache = cache

    def fit(self, X: Any, y: Any = None) -> "InvADDetector":
        """Learn from normal pictures, of which some are held out and set the limits.

        y: None, or 1 for each normal picture and -1 for each other one, from which nothing is learned.
        """
        from invad.detector.detector import Detector
        from invad.fit.run import Run

        normals = _normals(_pictures(X), y)
        cache = None if self.cache is None else Path(self.cache)
        rates = Rates(review=self.review_rate, bad=self.false_alarm_rate)
        with tempfile.TemporaryDirectory(prefix="invad-sklearn-") as temporary, _as_value_errors():
            kept = Path(temporary) if cache is None else cache / "pictures"
            kept.mkdir(parents=True, exist_ok=True)
            paths = [_path(number, source, kept) for number, source in normals]
            self.detector_ = Detector.fit(
                [Sample(path=path, category=CATEGORY) for path in paths],
                preset=self._settings(),
                seed=_seed(self.random_state),
                rates=rates,
                strict=True,
                device=self.device,
                run=Run(cache=cache),
            )
        self.offset_ = -self.detector_.calibrations[POOLED].score_limits()[1]
        return self

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Minus the anomaly score of each picture: larger is more normal. Shape (N,)."""
        return np.array([-one.score for one in self._predictions(X)], dtype=np.float64)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """`score_samples` minus `offset_`: negative for each picture that is bad. Shape (N,)."""
        scores = self.score_samples(X)
        return scores - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """1 for each picture that is not bad, -1 for each that is. Shape (N,)."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def p_values(self, X: Any) -> NDArray[np.float64]:
        """The conformal p-value of each picture, in (0, 1]. Shape (N,)."""
        return np.array([one.p_value for one in self._predictions(X)], dtype=np.float64)

    def decisions(self, X: Any) -> "list[Decision]":
        """`good`, `review` or `bad` for each picture."""
        return [one.decision for one in self._predictions(X)]

    def anomaly_maps(self, X: Any) -> list[NDArray[np.float32]]:
        """The map of each picture, float32 H x W in its own frame."""
        return [one.anomaly_map for one in self._predictions(X)]

    def _predictions(self, X: Any) -> Iterator[Prediction]:
        check_is_fitted(self, "detector_")
        pictures = _pictures(X)
        with _as_value_errors():
            for one in self.detector_.predict_many(pictures, strict=True):
                assert isinstance(one, Prediction)
                yield one

    def _settings(self) -> "Preset":
        from invad.model.settings import preset_named

        settings = preset_named(self.preset) if isinstance(self.preset, str) else self.preset
        return settings.override(backbone=self.backbone, area_side=self.size)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "detector_" in state:
            state["detector_"] = _folder_bytes(state["detector_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "detector_" in state:
            state = {**state, "detector_": _from_bytes(state["detector_"], state["device"])}
        super().__setstate__(state)


def _folder_bytes(detector: "Detector") -> dict[str, bytes]:
    """The files of the model folder by their names."""
    with tempfile.TemporaryDirectory(prefix="invad-sklearn-") as folder:
        detector.save(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _from_bytes(files: dict[str, bytes], device: str | None) -> "Detector":
    from invad.detector.detector import Detector

    with tempfile.TemporaryDirectory(prefix="invad-sklearn-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return Detector.load(folder, device=device)


def _pictures(X: Any) -> list[ImageSource]:
    """The pictures one by one. Raises PictureError for what is not several pictures."""
    if isinstance(X, str | bytes | os.PathLike):
        raise PictureError(f"X is {X!r:.80}: give a list of pictures or of their paths")
    try:
        shape, kind = np.shape(X) if isinstance(X, np.ndarray) else (len(X),), getattr(X, "dtype", None)
    except TypeError:
        raise PictureError(f"X is a {type(X).__name__}: give an array or a list of pictures") from None
    if isinstance(kind, np.dtype) and kind.kind in "biufc" and len(shape) not in (3, 4):
        said = " x ".join(map(str, shape))
        raise PictureError(f"X has the shape {said}: give pictures, N x H x W or N x H x W x 3")
    if len(shape) == 3 and shape[-1] in COLOURS:
        said = " x ".join(map(str, shape))
        raise PictureError(f"X has the shape {said}, that of one picture: give X[None]")
    if not shape[0]:
        raise PictureError("X holds no picture; give at least one")
    return list(X)


def _normals(pictures: Sequence[ImageSource], y: Any) -> list[tuple[int, ImageSource]]:
    """The pictures that y does not call defective, with their numbers in X."""
    if y is None:
        return list(enumerate(pictures))
    labels = np.asarray(y)
    if labels.shape != (len(pictures),) or not np.isin(labels, (-1, 1)).all():
        raise PictureError(
            f"y: give one label for each of the {len(pictures)} pictures, 1 for a normal and -1 for another, "
            "or no y"
        )
    return [(i, picture) for i, picture in enumerate(pictures) if labels[i] == 1]


def _path(number: int, source: ImageSource, folder: Path) -> Path:
    """Where the picture lies, or is written to."""
    if isinstance(source, str | os.PathLike):
        return Path(source)
    try:
        return keep_pixels(read_image(source), folder)
    except DataError as error:
        raise PictureError(f"X[{number}]: {error}") from None


def _seed(random_state: Any) -> int | None:
    if random_state is None or isinstance(random_state, int | np.integer):
        return None if random_state is None else int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    raise ConfigError(f"random_state = {random_state!r}: give an integer, a RandomState or None")


@contextmanager
def _as_value_errors() -> Iterator[None]:
    try:
        yield
    except PictureError:
        raise
    except DataError as error:
        raise PictureError(str(error)) from error
