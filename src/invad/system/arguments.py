"""What people give a public function or a dataclass, refused in one line where it is of another kind."""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from invad.errors import ConfigError

_NUMBERS = {int: Integral, float: Real}
"""What stands for a number, numpy's own too."""

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    Path: "a path",
    Mapping: "a dict",
    NoneType: "None",
}


def require(**given: tuple[Any, Any]) -> None:
    """Raises ConfigError of one line for an argument of another type.

    given: by the name of the argument its value and its type: a class, an optional one or a tuple of some.
    """
    for name, (value, hint) in given.items():
        if not _fits(value, hint):
            raise ConfigError(f"{name} = {shown(value)}: give {_in_words(hint)}")


def require_fields(config: Any, prefix: str = "") -> None:
    """The same of all fields of a dataclass, which begins its `__post_init__` with it."""
    hints = _hints(config.__class__)
    require(**{f"{prefix}{one.name}": (getattr(config, one.name), hints[one.name]) for one in fields(config)})


def path_of(given: Any, name: str) -> Path:
    """A path that was given. Raises ConfigError of one line for what is none."""
    if isinstance(given, PathLike):
        given = given.__fspath__()
    if isinstance(given, str) and given:
        return Path(given)
    raise ConfigError(f"{name} = {shown(given)}: give a path")


def shown(value: Any) -> str:
    """A value on one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


@cache
def _hints(cls: type[Any]) -> Mapping[str, Any]:
    return get_type_hints(cls)


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner if isinstance(value, str) else False
    if origin is tuple:
        if not isinstance(value, tuple):  # a list has no hash, which what is kept is found by
            return False
        if inner[-1] is Ellipsis:
            return all(_fits(one, inner[0]) for one in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if isinstance(value, bool) and hint is not bool:
        return hint is Any or hint is object
    return hint is Any or isinstance(value, _NUMBERS.get(hint, origin or hint))


def _in_words(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, inner))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        number = "" if inner[-1] is Ellipsis else f" of {len(inner)}"
        return f"a tuple{number}, each {_in_words(inner[0])}"
    kind = origin or hint
    return _WORDS.get(kind) or f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}"
