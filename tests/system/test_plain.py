import re
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invad.errors import ConfigError
from invad.model.settings import PRESETS, Preset
from invad.scoring.calibration import Calibration
from invad.scoring.rates import Rates
from invad.system.plain import from_plain, to_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    size: int = 1
    share: float = 0.5
    name: str = "a"
    on: bool = True
    levels: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()
    named: dict[str, Inner] = field(default_factory=dict)
    free: dict[str, object] = field(default_factory=dict)


inners = st.builds(
    Inner,
    size=st.integers(-(2**40), 2**40),
    share=st.floats(allow_nan=False, allow_infinity=False),
    name=st.text(),
    on=st.booleans(),
    levels=st.lists(st.integers(0, 999), max_size=3).map(tuple),
)


@given(
    st.builds(
        Outer,
        inner=inners,
        maybe=st.none() | inners,
        many=st.lists(inners, max_size=2).map(tuple),
        named=st.dictionaries(st.text(), inners, max_size=2),
    )
)
def test_round_trip_is_identity(config):
    assert from_plain(Outer, to_plain(config), "here") == config


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives(name):
    assert from_plain(Preset, to_plain(PRESETS[name]), "here") == PRESETS[name]


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"inner": {"sise": 1}}, ["inner.sise", "levels, name, on, share, size"]),
        ({"iner": {}}, ["'iner'", "free, inner, many, maybe, named"]),
        ({"maybe": {"sise": 1}}, ["maybe.sise"]),
        ({"many": [{}, {"sise": 1}]}, ["many.1.sise"]),
        ({"named": {"k": {"sise": 1}}}, ["named.k.sise"]),
        ({"inner": {"size": "3"}}, ["inner.size", "'3'", "integer"]),
        ({"inner": {"size": 3.5}}, ["inner.size", "3.5", "integer"]),
        ({"inner": {"size": True}}, ["inner.size", "True", "integer"]),
        ({"inner": {"size": None}}, ["inner.size", "None"]),
        ({"inner": {"on": 1}}, ["inner.on", "1", "boolean"]),
        ({"inner": {"name": 1}}, ["inner.name", "1", "string"]),
        ({"inner": {"levels": [1, "2"]}}, ["inner.levels.1", "'2'"]),
        ({"inner": {"levels": 1}}, ["inner.levels", "1"]),
        ({"inner": [1]}, ["inner", "[1]"]),
        ({"many": {}}, ["many"]),
        ({"many": [{"share": "x" * 1000}]}, ["many.0.share"]),
        ([], ["[]: expected an object"]),
        (None, ["None: expected an object"]),
    ],
)
def test_what_is_refused_is_named_in_one_line(plain, words):
    with pytest.raises(ConfigError) as caught:
        from_plain(Outer, plain, "model/config.json")
    line = str(caught.value)
    assert line.startswith("model/config.json: ")
    assert "\n" not in line
    assert len(line) < 250
    assert not [word for word in words if word not in line], line


def test_a_free_dictionary_takes_any_key():
    assert from_plain(Outer, {"free": {"x": [1, {"y": 2}]}}, "here").free == {"x": [1, {"y": 2}]}


def test_integers_are_numbers():
    assert from_plain(Inner, {"share": 1}, "here").share == 1.0


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match="here: key 'scores' is missing"):
        from_plain(Calibration, {"peaks": [1.0]}, "here")


def test_values_that_a_dataclass_refuses_name_the_place():
    with pytest.raises(ConfigError, match="here: bad false-alarm rate = 2"):
        from_plain(Rates, {"bad": 2.0}, "here")
    plain = to_plain(PRESETS["standard"])
    plain["train"]["steps"] = 0
    with pytest.raises(ConfigError, match=r"here: train\.steps = 0"):
        from_plain(Preset, plain, "here")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_do_not_pass_for_a_calibration(value):
    with pytest.raises(ConfigError, match="here"):
        from_plain(Calibration, {"scores": [value], "peaks": [1.0]}, "here")


def test_defaults_fill_in():
    assert from_plain(Outer, {"inner": {"size": 5}}, "here") == Outer(inner=replace(Inner(), size=5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    kind: Literal["round"]
    radius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    kind: Literal["square"]
    side: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    first: Round | Square | None = None
    more: tuple[Round | Square, ...] = ()


def test_one_of_several_kinds_is_told_by_its_key():
    plain = {"first": {"kind": "square", "side": 1}, "more": [{"kind": "round", "radius": 2}]}
    made = Shapes(first=Square(kind="square", side=1.0), more=(Round(kind="round", radius=2.0),))
    assert from_plain(Shapes, plain, "here") == made
    assert from_plain(Shapes, {"first": None}, "here") == Shapes()


@pytest.mark.parametrize(
    ("one", "words"),
    [
        ({"side": 1}, "here: key 'first.kind' is missing; give one of round, square"),
        ({"kind": "oval"}, "here: first.kind = 'oval': expected one of round, square"),
        ({"kind": 3}, "here: first.kind = 3: expected one of round, square"),
        ({"kind": "round", "side": 1}, "here: unknown key 'first.side'; known keys are kind, radius"),
        (3, "here: first = 3: expected an object"),
    ],
)
def test_a_kind_that_is_none_is_named(one, words):
    with pytest.raises(ConfigError, match=f"^{re.escape(words)}$"):
        from_plain(Shapes, {"first": one}, "here")
