"""At the command line a package of an extra that is missing, old, broken or changed is one line, too."""

import shutil
import sys

import pytest

from invad.system.packages import PACKAGES

CLIP, DICOM = b"no matter what", b"\0" * 128 + b"DICM" + b"\0" * 64
NOWHERE = "http://127.0.0.1:1"
POSTGRES = "postgresql+psycopg://a@127.0.0.1:1/b"


def predicting(*more, name="a.png"):
    def verb(bundle, folder):
        return ["predict", bundle, folder / name, *more]

    return verb


VERBS = {
    "onnxruntime": ("onnx", "engine onnxruntime", predicting("--engine", "onnxruntime")),
    "openvino": ("openvino", "engine openvino", predicting("--engine", "openvino")),
    "pydicom": ("dicom", "{folder}/a.dcm: DICOM", predicting(name="a.dcm")),
    "pillow-heif": ("heif", "{folder}/a.heic: HEIC", predicting(name="a.heic")),
    "av": ("camera", "{folder}/a.mp4: a video", predicting(name="a.mp4")),
    "pyarrow": ("tables", "Parquet", predicting("--defects", "{folder}/d.parquet")),
    "ray": ("archive", "engine ray", predicting("--engine", "ray", "--output", "{folder}/out")),
    "httpx": (
        "serve",
        "--server",
        lambda _, folder: ["predict", "--server", "http://127.0.0.1:1", folder / "a.png"],
    ),
    "uvicorn": ("serve", "the service", lambda bundle, _: ["serve", bundle]),
    "psycopg": (
        "postgres",
        "PostgreSQL",
        lambda _, folder: ["serve", "user", "list", "--data", folder, "--database", POSTGRES],
    ),
}
"""By package: its extra, what says that it needs it, and a verb that comes to it."""


@pytest.fixture
def said(put, run, bundle, tmp_path, write_parts, monkeypatch):
    """said(package, version, code): the error line of the verb that needs it, without its begin."""
    monkeypatch.chdir(tmp_path)
    (part,) = write_parts(tmp_path / "parts", 1)
    shutil.copyfile(part.path, tmp_path / "a.png")
    (tmp_path / "a.dcm").write_bytes(DICOM)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 64)
    (tmp_path / "a.mp4").write_bytes(CLIP)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for name in [one for one in sys.modules if one.startswith("invad.runtime.o")]:
        monkeypatch.delitem(sys.modules, name)

    def say(package, version, code):
        extra, what, verb = VERBS[package]
        put(package, version, code)
        arguments = [str(one).replace("{folder}", str(tmp_path)) for one in verb(bundle, tmp_path)]
        done = run(*arguments)
        assert done.exit_code != 0
        lines = [one for one in done.stderr.splitlines() if "error:" in one or package in one]
        (line,) = lines
        begin = what.replace("{folder}", str(tmp_path))
        assert begin in line
        return line.partition(begin)[2].strip(), f"pip install 'invad[{extra}]'"

    return say


@pytest.mark.parametrize("package", VERBS)
def test_an_old_one(said, package):
    line, command = said(package, "0.0.1", "")
    assert line == f"needs {package}>={PACKAGES[package].oldest} (0.0.1 is installed); {command}"


@pytest.mark.parametrize("package", VERBS)
def test_a_missing_one(said, package):
    line, command = said(package, "", None)
    assert command in line
    assert "not installed" in line


@pytest.mark.parametrize("package", ["onnxruntime", "pydicom", "av", "pyarrow", "psycopg"])
def test_one_that_has_changed_or_is_broken(said, package):
    line, _ = said(package, "99.0", "raise ImportError('libfoo.so.7: cannot open')")
    assert line == (
        f"cannot use {package} 99.0 (ImportError: libfoo.so.7: cannot open): "
        f"newer than invad was tested with; pip install '{package}<{PACKAGES[package].below}'"
    )
