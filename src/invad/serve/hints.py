"""What the pictures say of the cause where the scores say that something has changed."""

import numpy as np
from numpy.typing import NDArray

FEWEST = 20
"""Pictures on each side, below which nothing is said."""

LARGE = 0.5
"""Standard deviations of before by which a mean has moved when it is worth a word."""

SURE = 5.0
"""Standard errors, likewise."""

SMALLEST = 1e-4
"""Of a standard deviation: pictures of one level are alike to the last bit."""

CAUSES = (
    ("mean grey", "the lamp, its ageing or daylight, exposure and aperture"),
    ("clipped share", "exposure, reflections, parts of another surface"),
    ("sharpness", "focus, vibration, dirt on the lens or the window"),
)


def hints(before_N3: NDArray[np.float64], after_N3: NDArray[np.float64]) -> tuple[str, ...]:
    """One line for each statistic that moved: from what to what, and where to look.

    Both are rows of (grey, clipped, sharpness), each of one picture, before and after a change. Empty when
    there are too few of either.
    """
    if min(len(before_N3), len(after_N3)) < FEWEST:
        return ()
    lines = []
    for column, (name, look) in enumerate(CAUSES):
        before, after = before_N3[:, column], after_N3[:, column]
        spread = max(float(before.std()), SMALLEST)
        error = np.sqrt(max(before.var(), SMALLEST**2) / len(before) + after.var() / len(after))
        moved = float(after.mean() - before.mean())
        if abs(moved) >= LARGE * spread and abs(moved) >= SURE * error:
            verb = "rose" if moved > 0 else "fell"
            lines.append(f"{name} {verb} from {before.mean():.3g} to {after.mean():.3g}: look at {look}")
    return tuple(lines) or (
        "the pictures are as bright and as sharp as before: look at the parts themselves, their material, "
        "supplier and position",
    )
