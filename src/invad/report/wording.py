"""Numbers as people read them, and what each metric means in plain words."""

from math import floor, isfinite, log10

Value = float | int | None
MISSING = "–"
NO_BREAK = "\u00a0"

METRICS: dict[str, tuple[str, str]] = {
    "image_auroc": (
        "Image AUROC",
        "The chance that a random defective image scores higher than a random good one. "
        "1 is perfect, 0.5 is a coin toss.",
    ),
    "image_ap": (
        "Image AP",
        "Average precision: sort all images from most to least suspicious; how purely defective is the top "
        "of that list. Depends on the share of defective images in this test.",
    ),
    "image_f1max": (
        "Image F1-max",
        "The best balance of caught defects and false alarms that any limit could have given, chosen in "
        "hindsight with the answers known: an upper bound, not the operating point.",
    ),
    "pixel_auroc": (
        "Pixel AUROC",
        "The chance that a random defective pixel is hotter than a random good one. Flattering when defects "
        "are small, because most pixels are easy.",
    ),
    "pixel_ap": ("Pixel AP", "Average precision over pixels: how purely defective the hottest pixels are."),
    "pixel_f1max": (
        "Pixel F1-max",
        "The best overlap with the marked defects that any map limit could have given, in hindsight.",
    ),
    "pixel_aupro": (
        "AUPRO",
        "The mean share of every marked defect region that is covered while few good pixels are (up to "
        "30 %). A small defect counts as much as a large one.",
    ),
    "mad": ("mAD", "The plain mean of the seven numbers above."),
    "false_alarm_rate": (
        "False-alarm rate",
        "The share of good images that were not passed as good: sent to review or called bad.",
    ),
    "images_per_second": ("Images per second", "Speed on the machine that made this report."),
}
RATES = frozenset({"false_alarm_rate"})


def number(value: Value) -> str:
    """Four significant digits, whole numbers and thousands in full, a dash for None and not-a-number."""
    if value is None or value != value:
        return MISSING
    if not isfinite(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def fraction(value: Value) -> str:
    """A number of 0..1 with four decimals."""
    return MISSING if value is None or value != value else f"{value:.4f}"


def percent(value: Value) -> str:
    """A share of 0..1 in percent with one decimal; two where one would read as nothing."""
    if value is None or value != value:
        return MISSING
    shown = 100 * value
    return f"{shown:.2f}{NO_BREAK}%" if 0 < shown < 0.1 else f"{shown:.1f}{NO_BREAK}%"


def p_number(p_value: float) -> str:
    """A p-value with two significant digits."""
    return f"{p_value:.2g}" if p_value >= 0.0001 else "< 0.0001"


def p_value_text(p_value: float) -> str:
    """`p = 0.031`; never rounds to zero, which a conformal p-value cannot be."""
    shown = p_number(p_value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def metric_text(key: str, value: Value) -> str:
    """A metric in the form its key asks for."""
    if key in RATES:
        return percent(value)
    return number(value) if key == "images_per_second" else fraction(value)


def counted(n: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def tail(path: str) -> str:
    """The last two parts of a path: enough to find it, short enough for a table."""
    return "/".join(path.replace("\\", "/").split("/")[-2:])


def plus_minus(value: float, bound: float) -> str:
    """`0.9 ± 1.1`: no more digits than the bound, to two of them, leaves a meaning."""
    decimals = max(0, 1 - floor(log10(bound))) if bound > 0 else 2
    return f"{value:.{decimals}f}{NO_BREAK}±{NO_BREAK}{bound:.{decimals}f}"
