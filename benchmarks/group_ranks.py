"""What rules for limits by groups realise on scores that are only drawn: which one invad takes, and why.

    python benchmarks/group_ranks.py --output benchmarks/results/group_ranks.json

K groups of ten scores, normally or Student (3 degrees of freedom) distributed, with the given correlation
within a group; the share of new groups' scores above the limit, mean and deviation over the draws. `one`: the
rank of one score of each group; `shares`: every score counts one tenth of its group; `median` and `mean` of
the limits over 100 choices of one score each. Each rule is shown where a rank can reach the rate.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHOTS, CHOICES, NEW = 10, 100, 20000


def scores(law: str, groups: int, correlation: float, draws: int, rng: np.random.Generator) -> NDArray[Any]:
    """draws x groups x SHOTS."""

    def noise(*shape: int) -> NDArray[Any]:
        return rng.standard_normal(shape) if law == "normal" else rng.standard_t(3, shape)

    of_group = np.sqrt(correlation) * noise(draws, groups, 1)
    return of_group + np.sqrt(1 - correlation) * noise(draws, groups, SHOTS)


def limits(known: NDArray[Any], rate: float, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """By rule the limit of each draw."""
    draws, groups, shots = known.shape
    k = int(rate * (groups + 1) + 1e-9)
    chosen = np.empty((draws, CHOICES))
    for choice in range(CHOICES):
        which = rng.integers(0, shots, (draws, groups, 1))
        one_each = np.take_along_axis(known, which, axis=2)[:, :, 0]
        chosen[:, choice] = -np.partition(-one_each, k - 1, axis=1)[:, k - 1]
    falling = -np.sort(-known.reshape(draws, -1), axis=1)
    above = int((rate * (groups + 1) - 1) * shots + 1e-6)
    return {
        "one": chosen[:, 0],
        "shares": falling[:, above],
        "median": np.median(chosen, axis=1),
        "mean": chosen.mean(axis=1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=3000)
    options = parser.parse_args()
    rng, rows = np.random.default_rng(0), []
    for law in ("normal", "student"):
        for groups, rate in ((20, 0.05), (50, 0.05), (200, 0.05), (200, 0.01)):
            for correlation in (0.0, 0.5, 0.9, 1.0):
                draws = options.draws if groups <= 50 else options.draws // 5
                new = np.sort(scores(law, 1, correlation, NEW, rng).ravel())
                row = {"law": law, "groups": groups, "rate": rate, "correlation": correlation}
                for rule, limit in limits(scores(law, groups, correlation, draws, rng), rate, rng).items():
                    realised = 1 - np.searchsorted(new, limit, side="right") / len(new)
                    row[rule] = [round(float(realised.mean()), 4), round(float(realised.std()), 4)]
                rows.append(row)
                print(row, flush=True)
    options.output.write_text(json.dumps({"what": __doc__.split("\n")[0], "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
