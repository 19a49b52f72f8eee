"""What is asked of the limits; without numpy, because the command line says it in its help."""

from dataclasses import dataclass

from invad.errors import ConfigError
from invad.system.arguments import require_fields

POOLED = ""
"""Key of the calibration over all categories, which needs no label at run time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """False-alarm rates asked for: shares of normal images at or above the `review` and the `bad` limit.

    Both between 0 and 1, `bad` at most `review`; ConfigError otherwise.
    """

    review: float = 0.05
    bad: float = 0.01

    def __post_init__(self) -> None:
        require_fields(self)
        for name, rate in (("review", self.review), ("bad", self.bad)):
            if not 0 < rate < 1:
                raise ConfigError(
                    f"{name} false-alarm rate = {rate}: give a share between 0 and 1, such as 0.01"
                )
        if self.bad > self.review:
            raise ConfigError(
                f"bad rate {self.bad} > review rate {self.review}: the review band needs review >= bad; "
                f"give a review rate (--review-rate) of at least {self.bad} as well, or a smaller bad rate"
            )
