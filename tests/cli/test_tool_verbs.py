"""doctor, backbones list, backbones distill, paper import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from invad.cli import doctor as doctor_module

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def test_doctor_finds_this_machine_healthy(run):
    result = run("doctor", "--json", "-")
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert told["ok"] is True
    assert [check["name"] for check in told["checks"]] == list(doctor_module.CHECKS)
    assert "BROKEN" not in result.stderr


BROKEN_TORCHVISION = 'raise RuntimeError("operator torchvision::nms does not exist")\n'


def test_doctor_reports_a_torchvision_that_does_not_fit(run_outside, tmp_path, environment, command):
    import os

    (tmp_path / "torchvision.py").write_text(BROKEN_TORCHVISION)
    settings = environment(tmp_path)
    settings["PYTHONPATH"] = os.pathsep.join([str(tmp_path), settings["PYTHONPATH"]])
    result = subprocess.run(command("doctor"), env=settings, capture_output=True, text=True)
    assert result.returncode == 1
    assert "BROKEN  torch pair" in result.stdout
    assert "operator torchvision::nms does not exist" in result.stdout
    assert "Traceback" not in result.stderr


def test_backbones_lists_what_is_known(run):
    told = json.loads(run("backbones", "list", "--json", "-").stdout)["backbones"]
    assert told[0]["name"] == "invad-s"
    found = json.loads(run("backbones", "list", "--match", "dinov2", "--json", "-").stdout)["backbones"]
    names = [row["name"] for row in found]
    assert "vit_small_patch14_dinov2" in names
    assert len(names) == len(set(names)) > 4
    assert "No backbone" in run("backbones", "list", "--match", "zzz").stdout


def test_import_reference_converts_the_golden_checkpoint(run, tmp_path, one_line):
    golden = SHARED / "golden" / "reference_dit_tiny.safetensors"
    if not golden.exists():
        pytest.skip("needs the golden checkpoint")
    result = run("paper", "import", golden, "--output", tmp_path / "out", "--json", "-")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"denoiser.safetensors", "denoiser.json"}
    assert told["config"]["kind"] == "dit"
    missing = run("paper", "import", tmp_path / "none.pth", "--output", tmp_path / "out")
    assert missing.exit_code == 1
    one_line(missing, "none.pth", "no such weights file")


def test_distill_checks_before_it_works(run, parts, tmp_path, one_line):
    options = ["--teacher", "resnet50", "--output", tmp_path / "mine"]
    one_line(run("backbones", "distill", *options, "--images", tmp_path / "none"), "none", "no such folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    one_line(run("backbones", "distill", *options, "--images", empty), empty, "no pictures")
    two = ("--teacher", "resnet18", "--weights", "a")
    result = run("backbones", "distill", *options, *two, "--images", parts)
    assert result.exit_code == 2
    one_line(result, "1 --weights for 2 --teacher")
    missing = run("backbones", "distill", *options, "--images", parts, "--start", tmp_path / "no.safetensors")
    one_line(missing, "no.safetensors", "no such file")
    (tmp_path / "mine.json").write_text("{}")
    result = run("backbones", "distill", *options, "--images", parts)
    assert result.exit_code == 1
    one_line(result, "mine.json", "exists already")


def test_a_distilled_backbone_can_be_trained_with(run, parts, tmp_path, monkeypatch):
    import timm
    import torch
    from safetensors.torch import save_file

    monkeypatch.setattr("invad.fit.distill.SAMPLE", 32)
    torch.manual_seed(0)
    teacher = timm.create_model("test_efficientnet", pretrained=False)
    save_file(dict(teacher.state_dict()), tmp_path / "teacher.safetensors")
    stem = tmp_path / "mine" / "small"
    result = run(
        *["backbones", "distill", "--teacher", "test_efficientnet"],
        *["--weights", tmp_path / "teacher.safetensors"],
        *["--images", parts / "gasket" / "train", "--output", stem, "--pools", 1, "--pool-size", 32],
        *["--json", tmp_path / "d.json"],
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "d.json").read_text())["steps"] == 3
    weights = f"{stem}.safetensors"
    options = ["--weights", weights, "--preset", "fast", "--steps", 1, "--output", tmp_path / "model"]
    assert run("train", parts, *options).exit_code == 0
    assert run("info", tmp_path / "model").exit_code == 0


PLAIN = """
import sys
from importlib.machinery import PathFinder

class Plain(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in EXTRAS else super().find_spec(name, path, target)

EXTRAS = set(sys.argv.pop().split(","))
sys.meta_path[sys.meta_path.index(PathFinder)] = Plain
from invad.cli import main
main()
"""
EXTRAS = (
    "ray pyarrow accelerate onnx onnxscript onnxruntime openvino tensorboard pytest xdist hypothesis adeval"
)
EXTRAS += " sklearn moto boto3 pandas"


def test_doctor_finds_a_plain_installation_healthy(environment, tmp_path):
    arguments = [sys.executable, "-c", PLAIN, "doctor", EXTRAS.replace(" ", ",")]
    result = subprocess.run(arguments, env=environment(tmp_path), capture_output=True, text=True)
    assert (result.returncode, "BROKEN" in result.stdout, result.stderr) == (0, False, "")


def test_what_int8_and_distillation_do_not_take_is_named(trained, run, tmp_path):
    (tmp_path / "layers.psd").touch()
    int8 = ["--output", tmp_path / "b", "--format", "onnx", "--precision", "int8", "--calibration", tmp_path]
    student = ["--teacher", "invad-s", "--output", tmp_path / "s", "--images", tmp_path]
    for result in (run("export", trained[0], *int8), run("backbones", "distill", *student)):
        assert result.exit_code != 0
        assert "1 file was not taken (.psd 1)" in result.stderr
