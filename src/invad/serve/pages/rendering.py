"""Templates, filled in."""

from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup, escape

from invad.serve.pages import words


@cache
def environment() -> Environment:
    """Templates lie in the folder beside, those shared with pages without a service under `report/`; what
    they are given is escaped."""
    own, shared = PackageLoader("invad.serve.pages", "templates"), PackageLoader("invad.report", ".")
    made = Environment(
        loader=ChoiceLoader([own, PrefixLoader({"report": shared})]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=words.number, percent=words.percent, bytes=words.bytes_, code=code)
    return made


def render(template: str, **values: Any) -> str:
    """The text of a template."""
    return environment().get_template(template).render(**values)


def code(text: str) -> Markup:
    """Plain text in which `words between backticks` are code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # one is left over, so it is no mark
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if number % 2 else escape(piece)
        for number, piece in enumerate(pieces)
    )
