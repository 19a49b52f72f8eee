"""Plain data that travels between modules.

Legend of shape suffixes used in the whole package: B images in a batch, C channels, H W pixels,
h w cells of the feature grid, N images of a set, L noise levels, S inversion steps.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the command line is quicker there without it
    import numpy as np
    from numpy.typing import NDArray

Decision = Literal["good", "review", "bad"]

Hw = tuple[int, int]
"""Height and width, in this order, in pixels or in cells."""

GOOD = "good"
"""Name of the defect kind that means "no defect", as in the MVTec layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image of a set and what is known of it.

    mask_above: the level of the mask above which a pixel is defective; None: see `read_mask`.
    sample_id: the object shown, which other images show from other sides; None: this image alone shows it.
    group: what is shared with images that are not independent of this one, such as a part, a patient or a
    lot; None: nothing is known but `sample_id`.
    """

    path: Path
    category: str
    defect: str = GOOD
    mask_path: Path | None = None
    mask_above: int | None = None
    sample_id: str | None = None
    group: str | None = None

    @property
    def is_anomalous(self) -> bool:
        """Whether the image shows a defect."""
        return self.defect != GOOD


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the detector says of one image.

    score: calibrated-scale anomaly score, larger is more anomalous (unitless).
    p_value: split-conformal p-value in (0, 1]; the share of normal images at least this atypical.
    decision: "good", "review" or "bad" for the false-alarm rates stored in the calibration.
    anomaly_map: float32 H x W in the frame and resolution of the image given.
    """

    path: str | None
    category: str | None
    score: float
    p_value: float
    decision: Decision
    anomaly_map: "NDArray[np.float32]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSample:
    """One evaluated image: the sample, what the detector said, and its map in the model's input frame.

    anomaly_map: float32 H x W, H x W the model's input size, calibrated units (see scoring.py).
    score_limits: the (review, bad) score limits that applied to this image.
    """

    sample: Sample
    score: float
    p_value: float
    decision: Decision
    anomaly_map: "NDArray[np.float32]"
    score_limits: tuple[float, float]
