"""A tiny set, a tiny model, and two ways to run the command line: inside this process and outside it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from invad.cli.app import app
from invad.data.synthetic import write_dataset

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(scope="session")
def run():
    """run("predict", model, image) in this process; the result has exit_code, stdout, stderr."""

    def call(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def _command(*arguments):
    return [sys.executable, "-m", "invad", *map(str, arguments)]


def _environment(home, **changed):
    """Only what a fresh user has; no network for the hub."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")}
    own = {"HOME": str(home), "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return {**kept, **own, **changed}


@pytest.fixture
def run_outside(tmp_path):
    """The same in a fresh process with an empty home."""

    def call(*arguments, **options):
        return subprocess.run(
            _command(*arguments),
            env=_environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )

    return call


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """12 training images, 4 good ones and one of each of 5 defects, 64 x 64. Not to be written to."""
    folder = tmp_path_factory.mktemp("images") / "parts"
    return write_dataset(folder, categories=["gasket"], train=12, test_good=4, per_defect=1, size=64)


@pytest.fixture
def own_parts(parts, tmp_path):
    """A copy of `parts` to spoil."""
    return Path(shutil.copytree(parts, tmp_path / "own_parts"))


@pytest.fixture(scope="session")
def trained(parts, run, once):
    """(model folder, result) of a training. Not to be written to."""

    def make(folder):
        model = folder / "model"
        result = run("train", parts, "--output", model, "--steps", 2, "--json", "-")
        kept = {name: getattr(result, name) for name in ("exit_code", "stdout", "stderr")}
        (folder / "result.json").write_text(json.dumps(kept))

    folder = once("trained", make)
    return folder / "model", SimpleNamespace(**json.loads((folder / "result.json").read_text()))


@pytest.fixture
def model(trained):
    return trained[0]


@pytest.fixture
def own_model(model, tmp_path):
    """A copy of the model to spoil."""
    return Path(shutil.copytree(model, tmp_path / "own_model"))


@pytest.fixture(scope="session")
def one_line():
    """one_line(result, word, ...): the error line that ends standard error, which must hold the words."""

    def line_of(result, *words):
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, result.stderr
        assert result.stderr.splitlines()[-1] == lines[0]
        assert "Traceback" not in result.stderr
        assert not [word for word in words if str(word) not in lines[0]], lines[0]
        return lines[0]

    return line_of


@pytest.fixture(scope="session")
def command():
    """command("train", folder): the argument list of a process."""
    return _command


@pytest.fixture(scope="session")
def environment():
    """environment(home): the variables of a process."""
    return _environment
