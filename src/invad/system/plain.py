"""JSON that invad wrote itself, read back strictly: no unknown key, none missing, no type for another.

What a file holds is a frozen dataclass; `to_plain` turns one into JSON data and `from_plain` back.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from invad.errors import ConfigError, InvadError, reason

T = TypeVar("T")

_SCALARS = {bool: "a boolean", int: "an integer", float: "a finite number", str: "a string"}


class _Refused(Exception):
    """What does not fit, and where in the data."""


def to_plain(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON data: dicts, lists, numbers, strings, None."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain


def from_plain(
    cls: type[T], plain: Any, where: str, error: type[InvadError] = ConfigError, advice: str = ""
) -> T:
    """Build `cls` from plain data; a list stands for a tuple, an integer for a number, and no more.

    Raises `error` of one line that names `where`, the key, its value and what was expected, then `advice`.
    """
    try:
        made: T = _read(cls, plain, "")
    except _Refused as refused:
        said = " ".join(str(refused).split())
        raise error(f"{where}: {said}{advice and '; '}{advice}") from None
    return made


def read_json(path: Path, error: type[InvadError], advice: str) -> dict[str, Any]:
    """The object in a JSON file. Raises `error` of one line, ending in `advice`, when it holds none."""
    try:
        # Editors of Windows begin a file with a mark of the encoding.
        plain = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
    except OSError as failed:
        raise error(f"{path}: {reason(failed, writing=False)}") from None
    except (ValueError, RecursionError) as damage:
        raise error(f"{path}: unreadable ({' '.join(str(damage).split())}); {advice}") from None
    if not isinstance(plain, dict):
        raise error(f"{path}: holds {_shown(plain)} where an object was expected; {advice}")
    return plain


def read_plain(cls: type[T], path: Path, error: type[InvadError], advice: str) -> T:
    """`from_plain` of a JSON file."""
    return from_plain(cls, read_json(path, error, advice), str(path), error, advice)


def _read(hint: Any, plain: Any, at: str) -> Any:
    """The value of type `hint` at the key `at`."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return plain
    if is_dataclass(hint):
        return _read_fields(hint, plain, at)
    if origin in (Union, UnionType):
        wanted = [one for one in inner if one is not NoneType]
        if plain is None and NoneType in inner:
            return None
        return _read(wanted[0] if len(wanted) == 1 else _of_kind(wanted, plain, at), plain, at)
    if origin is Literal:
        if not isinstance(plain, str) or plain not in inner:
            raise _refused(at, plain, f"one of {', '.join(inner)}")
        return plain
    if origin is tuple:
        return _read_items(inner, plain, at)
    if origin is dict:
        _require(dict, plain, at, "an object")
        keys = {key: _read_key(inner[0], key, at) for key in plain}
        return {keys[key]: _read(inner[1], value, _below(at, key)) for key, value in plain.items()}
    return _read_scalar(hint, plain, at)


def _of_kind(classes: Sequence[Any], plain: Any, at: str) -> Any:
    """The one among dataclasses whose key `kind`, a literal, is that of the data."""
    _require(dict, plain, at, "an object")
    kinds = {get_args(_hints(one)["kind"])[0]: one for one in classes}
    if "kind" not in plain:
        raise _Refused(f"key {_below(at, 'kind')!r} is missing; give one of {', '.join(sorted(kinds))}")
    found = plain["kind"]
    if not isinstance(found, str) or found not in kinds:
        raise _refused(_below(at, "kind"), found, f"one of {', '.join(sorted(kinds))}")
    return kinds[found]


def _read_fields(cls: Any, plain: Any, at: str) -> Any:
    _require(dict, plain, at, "an object")
    known = {field.name: field for field in fields(cls)}
    for key in plain:
        if key not in known:
            names = ", ".join(sorted(known))
            raise _Refused(f"unknown key {_shown(_below(at, key))}; known keys are {names}")
    for name, field in known.items():
        if name not in plain and field.default is MISSING and field.default_factory is MISSING:
            raise _Refused(f"key {_below(at, name)!r} is missing")
    hints = _hints(cls)
    read = {key: _read(hints[key], value, _below(at, key)) for key, value in plain.items()}
    try:
        return cls(**read)
    except (InvadError, ValueError) as refused:  # a dataclass may check its own values, and not know where
        words = str(refused)
        is_placed = not at or words.startswith(f"{at}.")
        raise _Refused(words if is_placed else f"{at}: {words}") from None


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    return get_type_hints(cls)


def _read_items(hints: tuple[Any, ...], plain: Any, at: str) -> tuple[Any, ...]:
    _require(list, plain, at, "a list")
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(plain)
    if len(plain) != len(hints):
        raise _refused(at, plain, f"{len(hints)} items")
    items = zip(hints, plain, strict=True)
    return tuple(_read(hint, item, _below(at, _called(item, i))) for i, (hint, item) in enumerate(items))


def _read_key(hint: Any, key: str, at: str) -> Any:
    """JSON writes the integers among its keys as text."""
    if hint is not int:
        return key
    if not re.fullmatch(r"0|-?[1-9]\d*", key, re.ASCII):
        raise _refused(_below(at, key), key, "an integer as key")
    return int(key)


def _read_scalar(hint: Any, plain: Any, at: str) -> Any:
    if hint is float and type(plain) is int and abs(plain) < 2**1023:
        return float(plain)
    if type(plain) is not hint or (hint is float and not math.isfinite(plain)):
        raise _refused(at, plain, _SCALARS[hint])
    return plain


def _require(kind: type, plain: Any, at: str, words: str) -> None:
    if not isinstance(plain, kind):
        raise _refused(at, plain, words)


def _refused(at: str, plain: Any, words: str) -> _Refused:
    return _Refused(f"{at}{at and ' = '}{_shown(plain)}: expected {words}")


def _called(item: Any, number: int) -> str:
    """An item of a list as people find it again: by its name, or by its number from 0 on."""
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) and name else str(number)


def _below(at: str, key: object) -> str:
    return f"{at}.{key}" if at else str(key)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
