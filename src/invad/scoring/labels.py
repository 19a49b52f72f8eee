"""What verdicts that come days later say of a calibration: how many false alarms it gave, and what it missed.

Flagged parts are all to be reviewed, of the others a few drawn by lot. Each reviewed part stands for those of
its kind that were not: a flagged one for 1 / (share of the flagged that were reviewed), which is 1 in the
end, an audited one for (unflagged parts) / (audited parts), which is 200 where one in 200 is drawn. So

false-alarm rate = G / (G + U (1 - m)),

G the good ones among the flagged, U the parts that were not flagged, m the share of defects among the
audited. The interval is that of Clopper and Pearson for the reviewed false alarms among the good parts that
they stand for; the estimate of how many those are moves it little, because nearly all parts are good. While
some flagged parts wait it is wider than it had to be. Both hold if those that were reviewed are no chosen
half."""

from dataclasses import dataclass

from scipy.stats import beta


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Numbers of parts that one calibration judged. flagged: above the review limit. said: flagged ones that
    were called good or bad. false_alarms: good ones of those. audited: of the others, drawn by lot and called
    good or bad. missed: bad ones of those."""

    parts: int
    flagged: int
    said: int
    false_alarms: int
    audited: int
    missed: int

    def __add__(self, other: "Labels") -> "Labels":
        names = self.__dataclass_fields__
        return Labels(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """An estimate in 0..1 with the ends of its interval."""

    value: float
    low: float
    high: float


def false_alarm_rate(labels: Labels, confidence: float = 0.95) -> Share | None:
    """The share of good parts that were flagged, dated by when they were inspected; see above.

    None as long as no flagged part has a verdict although there are some, or no good part is known. Raises
    ValueError for numbers that cannot be.
    """
    _require_possible(labels)
    if labels.flagged and not labels.said:
        return None
    reviewed = labels.said / labels.flagged if labels.flagged else 1.0
    missed = labels.missed / labels.audited if labels.audited else 0.0
    good = labels.false_alarms / reviewed + (labels.parts - labels.flagged) * (1 - missed)
    return binomial_share(labels.false_alarms, reviewed * good, confidence) if good else None


def miss_share(labels: Labels, confidence: float = 0.95) -> Share | None:
    """The share of defects among parts that were not flagged, by the audited ones; None without any."""
    _require_possible(labels)
    return binomial_share(labels.missed, labels.audited, confidence) if labels.audited else None


def binomial_share(count: int, of: float, confidence: float = 0.95) -> Share:
    """`count / of` with the central interval of Clopper and Pearson. of: above 0, at least `count`; where it
    is an estimate it need not be whole. Raises ValueError."""
    if not (0 <= count <= of * (1 + 1e-12) and of > 0 and 0 < confidence < 1):
        raise ValueError(f"need 0 <= count <= of, of > 0, confidence in (0, 1); got {count=}, {of=}")
    tail, rest = (1 - confidence) / 2, max(0.0, of - count)
    low = float(beta.ppf(tail, count, rest + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, rest)) if rest else 1.0
    return Share(value=min(1.0, count / of), low=low, high=high)


def _require_possible(labels: Labels) -> None:
    if not (
        0 <= labels.false_alarms <= labels.said <= labels.flagged <= labels.parts
        and 0 <= labels.missed <= labels.audited <= labels.parts - labels.flagged
    ):
        raise ValueError(f"{labels}: these numbers cannot be")
