"""The templates of the pages, ready to be filled. Loads jinja2 when it is asked for."""

from typing import TYPE_CHECKING

from invad.errors import ConfigError
from invad.report.wording import counted, fraction, number, p_number, p_value_text, percent, plus_minus, tail

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> "Environment":
    """The templates of this package, which escape what they are given. Raises ConfigError without jinja2."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise ConfigError("HTML needs the package jinja2; pip install jinja2, or use CSV") from None
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
