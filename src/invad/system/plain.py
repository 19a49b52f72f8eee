"""Strict conversion between frozen dataclasses and plain JSON data: an unknown key is an error."""

import json
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from invad.errors import ConfigError, InvadError

T = TypeVar("T")


def to_plain(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON data: dicts, lists, numbers, strings, None."""
    plain: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(asdict(config), mode="json")
    return plain


def from_plain(cls: type[T], plain: Any, where: str) -> T:
    """Build `cls` from plain data; a list stands for a tuple, no other type for another.

    Raises ConfigError of one line naming `where`, the key, its value and what was expected.
    """
    if not isinstance(plain, dict):
        raise ConfigError(f"{where}: expected an object with keys, found {type(plain).__name__}")
    for key, known in _unknown_keys(cls, plain, ""):
        raise ConfigError(f"{where}: unknown key {key!r}; known keys are {', '.join(sorted(known))}")
    try:
        # Through JSON text: its strict mode takes arrays for tuples, and still no "3" or true for 3.
        return TypeAdapter(cls).validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"].startswith("missing"):
            raise ConfigError(f"{where}: key {key!r} is missing") from None
        raise ConfigError(f"{where}: {key} = {_shown(first['input'])}: {_one_line(first['msg'])}") from None
    except InvadError as error:  # a dataclass that checks its own values
        raise ConfigError(f"{where}: {error}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {_one_line(str(error))}") from None


def _unknown_keys(hint: Any, plain: Any, path: str) -> Iterator[tuple[str, set[str]]]:
    """Keys that no dataclass inside `hint` has, each with the keys known at its place."""
    if is_dataclass(hint):
        if not isinstance(plain, dict):
            return
        known = {f.name for f in fields(hint)}
        yield from ((f"{path}{key}", known) for key in sorted(map(str, plain.keys() - known)))
        for name, inner in get_type_hints(hint).items():
            yield from _unknown_keys(inner, plain.get(name), f"{path}{name}.")
    elif get_origin(hint) in (Union, UnionType):
        for inner in get_args(hint):
            yield from _unknown_keys(inner, plain, path)
    elif isinstance(plain, dict | list):
        for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
            for inner in get_args(hint):
                yield from _unknown_keys(inner, value, f"{path}{key}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(text: str) -> str:
    return " ".join(text.split()).lower()
