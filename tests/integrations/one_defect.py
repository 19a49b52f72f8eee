"""A picture that is not square with a defect away from its middle, where no two kinds of box agree."""

import numpy as np

from invad.records import Prediction

HEIGHT, WIDTH = 90, 160
LIMIT = 1.0
X, Y, W, H = 101, 13, 23, 9
"""Box of the defect in pixels."""


def defect():
    """Mask H x W: an L, whose box is (X, Y, W, H)."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[Y : Y + H, X : X + 6] = True
    mask[Y + H - 4 : Y + H, X : X + W] = True
    return mask


def prediction(path="a.png", mask=None, decision="bad"):
    """Whose map is 0.25 and, in the mask, 1.5 to 2.5: above LIMIT there alone."""
    mask = defect() if mask is None else mask
    rising = np.linspace(1.5, 2.5, mask.size, dtype=np.float32).reshape(mask.shape)
    anomaly_map = np.where(mask, rising, np.float32(0.25))
    return Prediction(
        path=str(path), category=None, score=3.5, p_value=0.02, decision=decision, anomaly_map=anomaly_map
    )


def good(path="good.png"):
    return prediction(path, np.zeros((HEIGHT, WIDTH), bool), "good")


def box_of(mask):
    """x, y, width, height of what a mask marks."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        int(columns[0]),
        int(rows[0]),
        int(columns[-1] - columns[0] + 1),
        int(rows[-1] - rows[0] + 1),
    )
