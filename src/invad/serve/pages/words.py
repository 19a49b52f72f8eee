"""Figures as people read them."""

SIGNIFICANT = 3


def number(value: float | None, digits: int = SIGNIFICANT) -> str:
    """`digits` significant ones or all before the point, without an exponent where that is readable; a dash
    for None."""
    if value is None:
        return "–"
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share in percent."""
    return "–" if share is None else f"{number(100 * share, digits)} %"


def bytes_(count: float) -> str:
    """Bytes with a unit."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{number(count)} {unit}"
        count /= 1024
    return f"{number(count)} TiB"
