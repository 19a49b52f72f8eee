"""supervision: the regions of a prediction as its `Detections`, for its annotators, trackers and metrics."""

from typing import TYPE_CHECKING

import numpy as np

from invad.records import Prediction
from invad.scoring.shapes import parts_above
from invad.system.packages import importing, using

if TYPE_CHECKING:
    import supervision as sv

HOST = ("supervision",)


def to_detections(prediction: Prediction, limit: float, *, masks: bool = True) -> "sv.Detections":
    """The regions of a map above `limit`, highest peak first; N may be 0.

    limit: `Calibration.map_limits()[0]` is the review limit. `xyxy` is N x 4 in pixels, right and lower sides
    excluded; `mask` bool N x H x W, which is large for large images: masks=False leaves it out. `confidence`
    is 1 - p_value of the image, `class_id` 0; `data` has `class_name`, `peak` and `area` of each region.
    Raises ConfigError where supervision is missing, too old or changed.
    """
    with importing(HOST, "supervision", __name__):
        import supervision as sv
    height, width = prediction.anomaly_map.shape
    parts = parts_above(prediction.anomaly_map, limit)
    boxes = [part.box() for part in parts]
    whole = np.zeros((len(parts), height, width), bool) if masks else None
    for number, (x, y, mask) in enumerate(boxes):
        if whole is not None:
            whole[number, y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    xyxy = [(x, y, x + mask.shape[1], y + mask.shape[0]) for x, y, mask in boxes]
    with using(HOST, __name__):
        return sv.Detections(
            xyxy=np.array(xyxy, np.float32).reshape(-1, 4),
            mask=whole,
            confidence=np.full(len(parts), 1 - prediction.p_value, np.float32),
            class_id=np.zeros(len(parts), int),
            data={
                "class_name": np.array(["defect"] * len(parts)),
                "peak": np.array([part.peak for part in parts], np.float32),
                "area": np.array([part.area for part in parts], int),
            },
        )
