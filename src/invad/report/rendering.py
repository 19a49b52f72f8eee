"""The templates of the pages, ready to be filled. Loads jinja2 when it is asked for."""

from typing import TYPE_CHECKING

from invad.report.wording import counted, fraction, number, p_number, p_value_text, percent, plus_minus, tail
from invad.system.packages import importing

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> "Environment":
    """The templates of this package, which escape what they are given. Raises ConfigError without jinja2."""
    with importing(("jinja2",), None, "HTML"):
        from jinja2 import Environment, PackageLoader, StrictUndefined
    environment = Environment(
        loader=PackageLoader("invad.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "fraction": fraction,
        "percent": percent,
        "p_number": p_number,
        "p_value": p_value_text,
        "counted": counted,
        "tail": tail,
        "plus_minus": plus_minus,
    }
    return environment
