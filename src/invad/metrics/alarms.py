"""How many false alarms are to be expected of a limit that was itself estimated from few normals."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, betaln, xlog1py, xlogy

MOST_NORMALS = 10**6
"""More than these nobody is asked for."""


def count_interval(
    judged: Iterable[tuple[int, int | None]], rate: float, confidence: float = 0.95
) -> tuple[int, int]:
    """Central interval of the false alarms to expect among normal images, both ends included.

    A limit that is the k-th largest of n calibration scores, k = floor(rate (n + 1)), is itself random: of
    new normals it calls a share that is Beta(k, n + 1 - k) distributed, whatever the scores are (see
    `realised_interval`). So the count among the m images that one calibration judges is
    BetaBinomial(m, k, n + 1 - k); those of several calibrations are independent and add up.
    Definition: from the quantile (1 - confidence) / 2 to the quantile (1 + confidence) / 2 of their sum, so
    that each side outside holds at most (1 - confidence) / 2. Use: are so many false alarms compatible with
    the promised rate?

    judged: for each calibration m and n, the images that it judged and the independent normals (groups of
    them) that it was made from; n None where that is unknown, which counts as a limit that keeps the rate
    exactly (Binomial(m, rate)). rate: in (0, 1). The m images are taken as independent of each other.
    Raises ValueError for m < 0, n < 1, rate or confidence outside (0, 1).
    """
    if not 0 < rate < 1 or not 0 < confidence < 1:
        raise ValueError(f"need rate and confidence in (0, 1); got {rate=}, {confidence=}")
    chances = np.ones(1)
    for m, n in judged:
        if m < 0:
            raise ValueError(f"need m >= 0 images; got {m}")
        chances = np.convolve(chances, _chances(m, None if n is None else _realised_law(n, rate), rate))
    at_most, tail = np.cumsum(chances), (1 - confidence) / 2
    ends = np.searchsorted(at_most, [tail, 1 - tail])
    return int(ends[0]), min(int(ends[1]), len(chances) - 1)


def realised_interval(n: int, rate: float, confidence: float = 0.95) -> tuple[float, float]:
    """Central interval of the share of new normals, in [0, 1], that a limit from n normals calls.

    Definition: quantiles of Beta(k, n + 1 - k), k = floor(rate (n + 1)), the law of the share above the k-th
    largest of n exchangeable scores without ties (the coverage of split conformal prediction given its
    calibration set: Vovk 2012, arXiv 1209.2673). With k < 1 the limit is extrapolated and has no such law;
    Beta(rate (n + 1), (1 - rate) (n + 1)), which has the same mean, rate, and joins on where rate (n + 1) is
    1, stands in for it. n: independent normals; of groups their number, of each of which one image sets the
    limit.
    Raises ValueError for n < 1, rate or confidence outside (0, 1).
    """
    if not 0 < rate < 1 or not 0 < confidence < 1:
        raise ValueError(f"need rate and confidence in (0, 1); got {rate=}, {confidence=}")
    tail = (1 - confidence) / 2
    low, high = betaincinv(*_realised_law(n, rate), [tail, 1 - tail])
    return float(low), float(high)


def _realised_law(n: int, rate: float) -> tuple[float, float]:
    """The two parameters of the Beta distribution above."""
    if n < 1:
        raise ValueError(f"need n >= 1 calibration normals; got {n}")
    k = min(int(np.floor(rate * (n + 1) + 1e-9)), n)  # with the slack of the limit itself
    return (k, n + 1 - k) if k >= 1 else (rate * (n + 1), (1 - rate) * (n + 1))


def _chances(m: int, law: tuple[float, float] | None, rate: float) -> NDArray[np.float64]:
    """Of 0 to m false alarms among m images, m + 1: BetaBinomial by the parameters `law`, else Binomial."""
    # Of scipy.special: importing scipy.stats takes longer than all else that calibrating a model takes.
    k = np.arange(m + 1)
    ways = -np.log1p(m) - betaln(k + 1, m - k + 1)
    if law is None:
        shares = xlogy(k, rate) + xlog1py(m - k, -rate)
    else:
        shares = betaln(k + law[0], m - k + law[1]) - betaln(*law)
    chances: NDArray[np.float64] = np.exp(ways + shares)
    return chances


def normals_to_halve(n: int, rate: float) -> int | None:
    """About how many independent normals halve the width of `realised_interval(n, rate)`.

    By the law with the parameters rate (n + 1) and (1 - rate) (n + 1), which does not jump where another
    score becomes the limit. None where that is more than MOST_NORMALS. Raises as `realised_interval`.
    """
    low, high = realised_interval(n, rate)
    tails = [0.025, 0.975]

    def wide(more: int) -> bool:
        ends = betaincinv(rate * (more + 1), (1 - rate) * (more + 1), tails)
        return bool(ends[1] - ends[0] > (high - low) / 2)

    if wide(MOST_NORMALS):
        return None
    too_few, enough = n, MOST_NORMALS
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (middle, enough) if wide(middle) else (too_few, middle)
    return enough
