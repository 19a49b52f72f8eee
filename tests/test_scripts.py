"""The scripts parse, are executable and stop at the first error; the constraints are complete."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [
    ROOT / name for name in ("scripts/setup", "scripts/demo", "scripts/test", "scripts/lint", ".ci/run")
]


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
DIRECT = requirements([*PROJECT["dependencies"], *EXTRAS])
CHOSEN = re.findall(r'--editable "\$\{root\}\[(.+?)\]', (ROOT / "scripts/setup").read_text())[0].split(",")
BY_SETUP = requirements([line for extra in CHOSEN for line in PROJECT["optional-dependencies"][extra]])
"""What the extras bring that a checkout is set up with; the others need more time or disk."""

BOUNDS = requirements((ROOT / "constraints.txt").read_text().splitlines())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_sound(script: Path) -> None:
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert re.search(r"^set -euo pipefail$", text, re.MULTILINE)
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_setup_says_in_one_line_that_a_python_is_unusable(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python"), "HOME": ""}
    done = subprocess.run(
        [ROOT / "scripts/setup"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"setup: PYTHON=\S+ is not a Python 3\.10 to 3\.13 .*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_every_direct_dependency_has_an_upper_bound_and_no_other_does() -> None:
    assert set(BOUNDS) == set(DIRECT)
    for bound in BOUNDS.values():
        operators = [part.operator for part in bound.specifier if part.operator != "!="]  # withdrawn releases
        assert operators == ["<"], bound


@pytest.mark.parametrize("name", sorted(DIRECT))
def test_installed_version_is_within_the_bounds(name: str) -> None:
    marker = DIRECT[name].marker
    if marker is not None and not marker.evaluate({"extra": ""}):
        pytest.skip(f"not needed here: {marker}")
    try:
        installed = version(name)
    except PackageNotFoundError:
        assert name not in BY_SETUP
        pytest.skip("scripts/setup does not install its extra")
    assert installed in BOUNDS[name].specifier
    assert installed in DIRECT[name].specifier
