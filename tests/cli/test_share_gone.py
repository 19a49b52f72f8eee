"""A share or a file on it is gone: one line and a status, or a row. A library stands in for the share."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

VERBS = [
    "predict MODEL gone_share",
    "data check gone_share",
    "train gone_share --output o",
    "predict gone_share IMAGE",
    "info gone_share",
    "calibrate gone_share GOOD",
    "verify gone_share",
    "benchmark rescore gone_share",
    "predict MODEL IMAGE --csv gone_share/a.csv",
]

RUNS = """
import json, os, sys
from typer.testing import CliRunner
from invad.cli.app import app

told = []
for word, number, arguments in json.load(sys.stdin):
    os.environ.update(GONE=word, GONE_ERRNO=str(number))
    result = CliRunner().invoke(app, arguments)
    told.append([result.exit_code, result.stdout, result.stderr])
print(json.dumps(told))
"""
"""Commands one after the other in one process: every path that holds the word fails with this error."""


@pytest.fixture(scope="session")
def shim(once):
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    source = Path(__file__).with_name("share_gone.c")

    def make(folder):
        folder.mkdir()
        library = folder / "gone.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)

    return once("shim", make) / "gone.so"


@pytest.fixture(scope="session")
def told(shim, once, environment, trained, parts):
    """(folder the commands ran in, a result for each of VERBS, then that of a stale file)."""
    model = trained[0]

    def make(folder):
        (folder / "gone_share").mkdir(parents=True)
        good = parts / "gasket" / "train" / "good"
        own = {"MODEL": model, "GOOD": good, "IMAGE": good / "000.png"}
        runs = [["gone_share", 116, [str(own.get(word, word)) for word in line.split()]] for line in VERBS]
        shutil.copytree(parts / "gasket" / "test" / "good", folder / "in")
        stale = shutil.copy(folder / "in" / "000.png", folder / "in" / "gone_file.png")
        runs.append(["gone_file", 5, ["predict", str(model), str(folder / "in"), str(stale), "--json", "-"]])
        done = subprocess.run(
            [sys.executable, "-c", RUNS],
            **{"input": json.dumps(runs), "cwd": folder, "env": environment(folder, LD_PRELOAD=str(shim))},
            **{"capture_output": True, "text": True},
        )
        assert (done.returncode, done.stderr) == (0, "")
        (folder / "told.json").write_text(done.stdout)

    folder = once("gone", make)
    results = json.loads((folder / "told.json").read_text())
    return folder, [SimpleNamespace(exit_code=c, stdout=o, stderr=e) for c, o, e in results]


@pytest.mark.parametrize("words", VERBS)
def test_a_share_that_is_gone_is_one_line(told, words, one_line):
    folder, results = told
    result = results[VERBS.index(words)]
    assert result.exit_code == 1
    assert "Stale file handle; is the share mounted?" in one_line(result, "gone_share")
    assert not (folder / "o").exists()


def test_a_stale_file_is_an_unreadable_row(told):
    folder, (*_, result) = told
    rows = json.loads(result.stdout)["images"]
    assert [row["decision"] is None for row in rows] == [False] * 4 + [True]
    stale = folder / "in" / "gone_file.png"
    assert rows[-1]["error"].startswith(f"{stale}: Input/output error; is the share mounted")
    assert (result.exit_code, "Traceback" in result.stderr) == (0, False)
