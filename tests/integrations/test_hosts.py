"""Every guest tells a missing, old, broken or changed host in one line, with what to install."""

import importlib
import re
import sys

import pytest

from integrations.one_defect import LIMIT, prediction
from invad.errors import ConfigError
from invad.system.packages import PACKAGES


def imported(guest):
    importlib.import_module(f"invad.integrations.{guest}")


def diffusers(_):
    _ = importlib.import_module("invad.integrations.diffusers").from_pipeline


def spark(folder):
    importlib.import_module("invad.integrations.spark").score_udf(folder)


def supervision(_):
    importlib.import_module("invad.integrations.supervision").to_detections(prediction(), LIMIT)


def fiftyone(folder):
    from invad.integrations.fiftyone import add_predictions

    class Sample:
        filepath = "a.png"

    add_predictions([Sample()], [prediction()], (LIMIT, 2 * LIMIT), folder / "files")


GUESTS = {
    "anomalib": ("anomalib", "anomalib", lambda _: imported("anomalib")),
    "diffusers": ("diffusers", "diffusers", diffusers),
    "fiftyone": ("fiftyone", None, fiftyone),
    "hub": ("huggingface-hub", "hub", lambda _: imported("hub")),
    "mlflow": ("mlflow-skinny", "mlflow", lambda _: imported("mlflow")),
    "sklearn": ("scikit-learn", "sklearn", lambda _: imported("sklearn")),
    "spark": ("pyspark", "spark", spark),
    "supervision": ("supervision", "supervision", supervision),
}
each_guest = pytest.mark.parametrize("guest", GUESTS)


@pytest.fixture
def said(put, tmp_path):
    """said(guest, version, code): what the guest says with such a host; code None for none."""
    pytest.importorskip("torch", reason="some guests are those of the full install")
    before = {name: one for name, one in sys.modules.items() if name.startswith("invad.integrations")}

    def say(guest, version, code):
        name, extra, use = GUESTS[guest]
        others = {"anomalib": ("lightning",), "spark": ("pandas", "pyarrow")}.get(guest, ())
        for other in others:
            if code is not None:
                put(other, PACKAGES[other].oldest)
        put(name, version, code)
        for loaded in before:
            sys.modules.pop(loaded, None)
        with pytest.raises(ConfigError) as raised:
            use(tmp_path)
        (line,) = str(raised.value).splitlines()
        about = f"invad.integrations.{guest} "
        assert line.startswith(about)
        wanted = f"'{name}>={PACKAGES[name].oldest}'" if extra is None else f"'invad[{extra}]'"
        return line.removeprefix(about), f"pip install {wanted}"

    yield say
    for name in [one for one in sys.modules if one.startswith("invad.integrations")]:
        del sys.modules[name]
    sys.modules.update(before)
    for name, module in before.items():
        parent, _, own = name.rpartition(".")
        setattr(sys.modules[parent], own, module)


@each_guest
def test_a_missing_host_is_named(said, guest):
    name = GUESTS[guest][0]
    line, command = said(guest, "", None)
    assert line.startswith(f"needs {name}>={PACKAGES[name].oldest} (not installed)")
    assert line.endswith(f"; {command}")


@each_guest
def test_an_old_host_is_named_with_what_was_found(said, guest):
    name = GUESTS[guest][0]
    line, command = said(guest, "0.1.2", "")
    assert line == f"needs {name}>={PACKAGES[name].oldest} (0.1.2 is installed); {command}"


@each_guest
def test_a_host_that_has_changed_is_named_with_what_was_tested(said, guest):
    name = GUESTS[guest][0]
    line, _ = said(guest, "99.0", "")
    below = re.escape(PACKAGES[name].below)
    assert re.fullmatch(
        rf"cannot use {name} 99\.0 \(\w+Error: .+\): "
        rf"newer than invad was tested with; pip install '{name}<{below}'",
        line,
    )


@each_guest
def test_a_host_that_is_broken_is_named_with_why(said, guest):
    name = GUESTS[guest][0]
    line, _ = said(guest, PACKAGES[name].oldest, "raise RuntimeError('no such symbol')")
    assert line.startswith("cannot use ")
    assert f"{name} {PACKAGES[name].oldest}" in line
    assert "(RuntimeError: no such symbol): install anew what 'pip check' names, or " in line
