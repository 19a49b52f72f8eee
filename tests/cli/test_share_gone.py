"""A share or a file on it is gone: one line and a status, or a row. A library stands in for the share."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    library = tmp_path_factory.mktemp("shim") / "gone.so"
    source = Path(__file__).with_name("share_gone.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def run_without(shim, command, environment, tmp_path):
    """run_without("gone", 116, "predict", ...): every path that holds the word fails with this error."""

    def call(word, number, *arguments):
        changed = {"GONE": word, "GONE_ERRNO": str(number), "LD_PRELOAD": str(shim)}
        settings = environment(tmp_path, **changed)
        return subprocess.run(command(*arguments), env=settings, capture_output=True, text=True, cwd=tmp_path)

    return call


@pytest.mark.parametrize(
    "words",
    [
        "predict MODEL gone_share",
        "data check gone_share",
        "train gone_share --output o",
        "predict gone_share IMAGE",
        "info gone_share",
        "calibrate gone_share GOOD",
        "verify gone_share",
        "benchmark rescore gone_share",
        "predict MODEL IMAGE --csv gone_share/a.csv",
    ],
)
def test_a_share_that_is_gone_is_one_line(run_without, model, parts, tmp_path, words, one_line):
    good = parts / "gasket" / "train" / "good"
    (tmp_path / "gone_share").mkdir()
    own = {"MODEL": model, "GOOD": good, "IMAGE": good / "000.png"}
    result = run_without("gone_share", 116, *(own.get(word, word) for word in words.split()))
    assert result.returncode == 1
    assert "Stale file handle; is the share mounted?" in one_line(result, "gone_share")
    assert not (tmp_path / "o").exists()


def test_a_stale_file_is_an_unreadable_row(run_without, model, parts, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(parts / "gasket" / "test" / "good", folder)
    shutil.copy(folder / "000.png", folder / "gone_file.png")
    result = run_without("gone_file", 5, "predict", model, folder, folder / "gone_file.png", "--json", "-")
    rows = json.loads(result.stdout)["images"]
    assert [row["decision"] is None for row in rows] == [False] * 4 + [True]
    assert rows[-1]["error"].startswith(
        f"{folder / 'gone_file.png'}: Input/output error; is the share mounted"
    )
    assert (result.returncode, "Traceback" in result.stderr) == (0, False)
