"""What an editor knows of `import invad`: every name, each with its types and its documentation."""

import inspect
from importlib.resources import files

import pytest

import invad

NAMES = [name for name in invad.__all__ if inspect.isroutine(x := getattr(invad, name)) or inspect.isclass(x)]


def members(thing):
    """The public methods and properties that a class defines itself."""
    kinds = (classmethod, staticmethod, property)
    own = vars(thing) if inspect.isclass(thing) else {}
    return [
        v for k, v in own.items() if not k.startswith("_") and (isinstance(v, kinds) or inspect.isfunction(v))
    ]


def test_every_name_is_listed_before_it_is_used():
    assert set(invad.__all__) <= set(dir(invad))
    assert files("invad").joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_every_name_says_what_it_is(name):
    thing = getattr(invad, name)
    assert vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    assert [member for member in members(thing) if not member.__doc__] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_and_result_has_a_type(name):
    thing = getattr(invad, name)
    for member in [thing, *members(thing)]:
        call = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not inspect.isfunction(call):
            continue
        signature = inspect.signature(call)
        bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
        assert bare in ([], ["self"], ["cls"]), call
        assert signature.return_annotation is not signature.empty, call
