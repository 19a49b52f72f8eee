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
    member: which of several pictures of the part `sample_id` it is, such as a light or a view; `category` is
    then its name, too. page: the number, from 0, of the page or frame of the file; None: the file has one.
    window: see `Preprocess`, of this image instead of the model's.
    """

    path: Path
    category: str
    defect: str = GOOD
    mask_path: Path | None = None
    mask_above: int | None = None
    sample_id: str | None = None
    group: str | None = None
    member: str | None = None
    page: int | None = None
    window: tuple[float, float] | None = None

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
    cells: the same on the model's grid, float32 h x w; None where nobody asked the model itself.
    """

    path: str | None
    category: str | None
    score: float
    p_value: float
    decision: Decision
    anomaly_map: "NDArray[np.float32]"
    cells: "NDArray[np.float32] | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPrediction:
    """What the detector says of one part from several pictures of it.

    part: its name, where it has one. score: fused from the pictures that could be judged, larger is more
    anomalous; p_value: of that among held-out normal parts. Both None where no picture could be judged.
    decision: by the limits of held-out parts; at least "review" where `reason` says that a picture is
    missing, unreadable, there twice or unknown. members: what is said of each picture, by the limits of its
    own member. above: how many spreads of normal ones the picture of each member lies above them;
    seen_by: the member that lies highest. anomaly_map: of the part, float32 in the frame of its pictures,
    where they show the same frame and are compared cell by cell.
    """

    part: str | None
    score: float | None
    p_value: float | None
    decision: Decision
    reason: str = ""
    members: dict[str, Prediction]
    above: dict[str, float]
    seen_by: str | None
    anomaly_map: "NDArray[np.float32] | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSample:
    """One evaluated image: the sample, what the detector said, and its map in the model's input frame.

    anomaly_map: float32 H x W, H x W the model's input size, calibrated units (see scoring.py).
    score_limits: the (review, bad) score limits that applied to this image. cells: the map on the model's
    grid, of a picture that is one of several of a part.
    """

    sample: Sample
    score: float
    p_value: float
    decision: Decision
    anomaly_map: "NDArray[np.float32]"
    score_limits: tuple[float, float]
    cells: "NDArray[np.float32] | None" = None
