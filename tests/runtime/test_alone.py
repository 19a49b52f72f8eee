"""Bundles in use where PyTorch is not: the package invad-runtime, and the example in C++."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from copy import copy
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from clips import write_clip
from invad.data.region import read_region

pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        blocked = {"torch", "timm", "scipy", "torchvision", "safetensors", "jinja2"}
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from invad.cli import main
sys.argv[0] = "invad"
main()
"""


@pytest.fixture(scope="module")
def runtime_package(built, tmp_path_factory):
    """The wheel of invad-runtime, unpacked as pip would."""
    place = tmp_path_factory.mktemp("runtime")
    with zipfile.ZipFile(next(built.glob("invad_runtime-*.whl"))) as packed:
        packed.extractall(place)
    return place


@pytest.fixture
def without_torch(tmp_path, runtime_package):
    """Run the command line of invad-runtime in a process in which the heavy libraries cannot be imported."""

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-c", BLOCKED, *map(str, arguments)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(runtime_package), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call


def test_bundles_are_used_without_torch(without_torch, bundle, two_categories, draw, tmp_path):
    Image.fromarray(draw(3, defect=True)).save(tmp_path / "a.png")
    pictures = [tmp_path / "a.png"]
    if find_spec("pydicom"):
        pictures.append(tmp_path / "IM0001")
        pictures[1].write_bytes(import_module("dicoms").dicom(draw(3, defect=True)))
    rows = tmp_path / "p.json"
    options = ("--threads", 1, "--output", tmp_path / "seen", "--json", rows, "--csv", tmp_path / "p.csv")
    done = without_torch("predict", bundle, *pictures, *options)
    assert done.returncode == 0, done.stderr
    row, *same = json.loads(rows.read_text())["images"]
    assert row["decision"] == two_categories.predict(tmp_path / "a.png").decision
    assert [one["score"] for one in same] == [row["score"]] * (len(pictures) - 1)
    assert len(list((tmp_path / "seen").iterdir())) == len(pictures)
    done = without_torch("info", bundle)
    assert (done.returncode, "onnx, fp32" in done.stdout) == (0, True), done.stderr
    done = without_torch("verify", bundle)
    assert (done.returncode, "the same as PyTorch" in done.stdout) == (0, True), done.stderr
    region = {"frame": [64, 64], "ignore": [[[30, 30], [64, 30], [64, 64], [30, 64]]]}
    (tmp_path / "roi.json").write_text(json.dumps(region))
    looking = tmp_path / "looking"
    options = ("--roi", tmp_path / "roi.json", "--output", looking, "--json", rows)
    done = without_torch("calibrate", bundle, *options)
    assert done.returncode == 0, done.stderr
    limits = json.loads(rows.read_text())["limits"]  # by SciPy, which the runtime lacks
    assert limits is None
    options = ("--category", "part", "--threads", 1, "--json", rows)
    assert without_torch("predict", looking, tmp_path / "a.png", *options).returncode == 0
    told = copy(two_categories)
    told.calibrate(region=read_region(tmp_path / "roi.json"))
    (row,) = json.loads(rows.read_text())["images"]
    expected = told.predict(tmp_path / "a.png", category="part")
    assert (row["score"], row["decision"]) == (pytest.approx(expected.score, rel=1e-3), expected.decision)
    done = without_torch("predict", tmp_path, tmp_path / "a.png")
    assert done.returncode == 1
    assert "which is not installed; 'pip install invad' brings all of it" in done.stderr
    assert "Traceback" not in done.stderr


def test_defects_are_measured_without_torch_and_scipy(without_torch, bundle, two_categories, draw, tmp_path):
    picture = tmp_path / "a.png"
    Image.fromarray(draw(3, defect=True)).save(picture)
    made = tmp_path / "d.json"
    done = without_torch("predict", bundle, picture, "--threads", 1, "--defects", made, "--scale", "0.1mm")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(made.read_text())["images"]
    found = two_categories.defects(two_categories.predict(picture))
    assert len(row["defects"]) == len(found) > 0
    assert row["defects"][0]["length_mm"] == pytest.approx(found[0].length_px / 10, abs=0.2)
    assert row["defects"][0]["cell_px"] == found[0].cell_px
    done = without_torch("predict", bundle, picture, "--threads", 1, "--defects", tmp_path / "d.html")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "HTML needs jinja2>=3.1 (not installed); pip install 'jinja2>=3.1'" in done.stderr


def test_a_video_is_judged_without_torch(without_torch, bundle, two_categories, draw, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    clip = write_clip(tmp_path / "clip.mkv", [draw(3), draw(3, defect=True)])
    done = without_torch("predict", bundle, clip, "--threads", 1, "--json", "-")
    assert done.returncode == 0, done.stderr
    told = [row["decision"] for row in json.loads(done.stdout)["images"]]
    assert told == [found.decision for _, found in two_categories.predict_video(clip)]


def test_the_example_in_cpp(bundle, two_categories, draw, tmp_path):
    """It reads the ONNX file with the headers that the openvino wheel brings."""
    if shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler, g++")
    pytest.importorskip("openvino", reason="needs invad[openvino], for headers and libraries")
    program, picture = tmp_path / "predict", tmp_path / "a.ppm"
    build = Path(__file__).resolve().parents[2] / "examples" / "cpp" / "build"
    subprocess.run([build, program], env={**os.environ, "PYTHON": sys.executable}, check=True)
    Image.fromarray(draw(3, defect=True, size=(90, 60))).save(picture)
    expected = two_categories.predict(draw(3, defect=True, size=(90, 60)))
    done = subprocess.run(
        [program, bundle / "model.onnx", picture], capture_output=True, text=True, check=True
    )
    decision, _, p_value, _, score = done.stdout.split()
    assert decision == expected.decision
    assert float(p_value) == pytest.approx(expected.p_value, rel=1e-4)
    assert float(score) == pytest.approx(expected.score, rel=1e-3)
    done = subprocess.run([program, bundle / "model.onnx", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_bundle_is_opened_by_the_module_for_the_hub(bundle, draw, runtime_package, tmp_path):
    pytest.importorskip("huggingface_hub", reason="needs invad[hub]")
    Image.fromarray(draw(1)).save(tmp_path / "part.png")
    code = BLOCKED.partition("from invad.cli")[0] + (
        "from invad.integrations.hub import HubModel\n"
        "print(HubModel(sys.argv[1]).open().predict(sys.argv[2]).decision)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle), str(tmp_path / "part.png")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(runtime_package), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    assert done.stdout in ("good\n", "review\n", "bad\n")
