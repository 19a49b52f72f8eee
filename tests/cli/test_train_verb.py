"""Training from the command line: what it writes, what it refuses, and that it can be interrupted."""

import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def weights_hash(model):
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def images(folder):
    return folder / "gasket" / "train" / "good"


def test_json_on_standard_output_is_all_there_is_on_it(trained):
    folder, result = trained
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert list(told) == [
        "output",
        "preset",
        "backbone",
        "seed",
        "steps",
        "normals",
        "held_out",
        "folds",
        "skipped",
        "copies",
        "train_seconds",
        "final_loss",
        "device",
        "threads",
        "processes",
        "precision",
        "warnings",
        "content_hash",
    ]
    assert told["normals"] == told["held_out"] == {"gasket": 12}
    assert (told["output"], told["preset"], told["steps"], told["seed"]) == (str(folder), "standard", 5, 0)
    assert told["content_hash"] == json.loads((folder / "config.json").read_text())["content_hash"]
    assert "Learned from 12 good images" in result.stderr
    assert "denoiser: 5" in result.stderr


def test_a_finished_model_is_all_there_is_in_the_folder(trained):
    names = {path.name for path in trained[0].iterdir()}
    assert names == {"model.safetensors", "config.json", "calibration.json", "README.md", "training.jsonl"}


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_finished_model_is_not_overwritten(trained, parts, run, resume, one_line):
    before = weights_hash(trained[0])
    result = run("train", parts, "--output", trained[0], *resume)
    assert result.exit_code == 1
    one_line(result, trained[0], "finished model", "--output")
    assert weights_hash(trained[0]) == before


def test_a_folder_in_use_is_refused_before_anything_else(parts, run, tmp_path, one_line):
    (tmp_path / "notes.txt").write_text("mine")
    result = run("train", parts, "--output", tmp_path)
    assert result.exit_code == 1
    one_line(result, tmp_path, "not empty", "notes.txt", "--output")
    assert "features" not in result.stderr
    result = run("train", parts, "--output", tmp_path / "notes.txt")
    one_line(result, "is a file")


def test_a_file_where_a_folder_is_needed(parts, run, tmp_path, one_line):
    (tmp_path / "file").write_text("")
    result = run("train", parts, "--output", tmp_path / "file" / "model")
    assert result.exit_code == 1
    one_line(result, "cannot be written", "a part of it is a file")


def test_a_missing_folder_is_one_line_and_leaves_nothing(run_outside, tmp_path, one_line):
    result = run_outside("train", tmp_path / "nowhere", "--output", tmp_path / "a" / "b")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"error: {tmp_path}/nowhere: no such folder; give a folder of images\n"
    assert list(tmp_path.iterdir()) == []


def test_too_few_images(run, own_parts, tmp_path, one_line):
    for path in sorted(images(own_parts).iterdir())[1:]:
        path.unlink()
    one = run("train", own_parts, "--output", tmp_path / "model")
    assert one.exit_code == 1
    one_line(one, "1 readable image", "at least 2")
    next(images(own_parts).iterdir()).unlink()
    none = run("train", own_parts, "--output", tmp_path / "model")
    assert none.exit_code == 1
    one_line(none, images(own_parts), "no images")
    empty = tmp_path / "empty"
    empty.mkdir()
    one_line(run("train", empty, "--output", tmp_path / "model"), empty, "no images")
    assert not (tmp_path / "model").exists()


def test_category_names_that_clash_or_do_not_exist(run, own_parts, tmp_path, one_line):
    result = run("train", own_parts, "--output", tmp_path / "model", "--categories", "screw,gasket")
    one_line(result, "no category screw", "choose from gasket")
    shutil.copytree(own_parts / "gasket", own_parts / "Gasket")
    result = run("train", own_parts, "--output", tmp_path / "model")
    assert result.exit_code == 1
    one_line(result, "differ only in case")


def test_an_unreadable_image_is_skipped_and_named_or_fails_when_strict(run, own_parts, tmp_path, one_line):
    broken = images(own_parts) / "005.png"
    broken.write_bytes(broken.read_bytes()[:200])
    strict = run("train", own_parts, "--output", tmp_path / "strict", "--steps", 1, "--strict")
    assert strict.exit_code == 1
    one_line(strict, broken)
    assert not (tmp_path / "strict").exists()
    result = run("train", own_parts, "--output", tmp_path / "model", "--steps", 1, "--json", tmp_path / "t")
    assert result.exit_code == 0
    assert f"skipped: {broken}" in result.stderr
    assert "Skipped as unreadable: 1" in result.stdout
    told = json.loads((tmp_path / "t").read_text())
    assert (told["skipped"], told["normals"]) == ([str(broken)], {"gasket": 11})


def test_weights_of_another_network(run, parts, tmp_path, one_line):
    other = tmp_path / "other.safetensors"
    if not (SHARED / "teachers" / "resnet50.safetensors").exists():
        pytest.skip("needs a checkpoint of another network")
    other.symlink_to(SHARED / "teachers" / "resnet50.safetensors")
    options = ["--backbone", "mobilenetv3_small_050", "--weights", other]
    result = run("train", parts, "--output", tmp_path / "model", *options)
    assert result.exit_code == 1
    one_line(result, other, "does not fit backbone mobilenetv3_small_050")
    missing = run("train", parts, "--output", tmp_path / "model", "--weights", tmp_path / "none.safetensors")
    assert missing.exit_code == 1
    one_line(missing, "none.safetensors")
    assert not (tmp_path / "model").exists()


def test_hub_weights_without_a_network(run_outside, parts, tmp_path, one_line):
    result = run_outside("train", parts, "--output", tmp_path / "model", "--backbone", "resnet18")
    assert (result.returncode, result.stdout) == (1, "")
    one_line(result, "resnet18", "HF_HUB_OFFLINE", "invad-s", "--weights")
    assert not (tmp_path / "model").exists()


def limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


def test_a_full_disk_is_one_line_and_leaves_nothing(run_outside, parts, tmp_path, one_line):
    """A limit on the size of a file stands for the disk; checkpoint and model are larger."""
    options = ["--output", tmp_path / "model", "--steps", 1]
    result = run_outside("train", parts, *options, preexec_fn=limited)
    assert result.returncode == 1
    one_line(result, tmp_path / "model")
    assert not (tmp_path / "model").exists()


# Interruption


def wait_for(process, text, log):
    deadline = time.monotonic() + 60
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_interrupted_and_resumed_training_equals_an_uninterrupted_one(parts, tmp_path, command, environment):
    options = ["--steps", 3, "--seed", 3, "--deterministic"]
    settings = {"env": environment(tmp_path), "stdout": subprocess.DEVNULL}
    whole = subprocess.Popen(
        command("train", parts, "--output", tmp_path / "whole", *options),
        stderr=subprocess.DEVNULL,
        **settings,
    )
    log = tmp_path / "log"
    halved = command("train", parts, "--output", tmp_path / "halved", *options)
    with log.open("w") as file:
        process = subprocess.Popen(halved, stderr=file, **settings)
        wait_for(process, "fold 2 of 4", log)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert log.read_text().splitlines()[-1] == (
        "error: interrupted; repeat the command with --resume to continue"
    )
    assert [path.name for path in (tmp_path / "halved").iterdir()] == [".training"]
    kept = {path.name for path in (tmp_path / "halved" / ".training").iterdir()}
    assert kept == {"fold-1-of-4.safetensors", "fold-2-of-4.safetensors", "training.jsonl"}
    refused = subprocess.run(halved, env=settings["env"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "holds an unfinished training; continue it with --resume" in refused.stderr
    resumed = subprocess.run([*halved, "--resume"], env=settings["env"], capture_output=True, text=True)
    assert (resumed.returncode, whole.wait(60)) == (0, 0), resumed.stderr
    assert weights_hash(tmp_path / "halved") == weights_hash(tmp_path / "whole")
    assert not (tmp_path / "halved" / ".training").exists()


def test_interrupted_before_the_first_step_leaves_nothing(parts, tmp_path, command, environment):
    log = tmp_path / "log"
    arguments = command("train", parts, "--output", tmp_path / "a" / "model")
    with log.open("w") as file:
        process = subprocess.Popen(arguments, env=environment(tmp_path), stderr=file)
        wait_for(process, "features: 12", log)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert log.read_text().splitlines()[-1].endswith("nothing is left behind")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_resume_of_other_options_is_refused(parts, run, tmp_path, one_line):
    folder = tmp_path / "model"
    work = folder / ".training"
    work.mkdir(parents=True)
    (work / "fold-1-of-4.safetensors").write_bytes(b"")
    result = run("train", parts, "--output", folder, "--steps", 1, "--resume")
    assert result.exit_code == 1
    one_line(result, "fold-1-of-4.safetensors", "unreadable checkpoint")
    assert work.is_dir()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
def test_a_terminal_gets_a_bar_with_loss_and_time_left(parts, tmp_path, command, environment):
    import os
    import pty

    master, slave = pty.openpty()
    arguments = command("train", parts, "--output", tmp_path / "model", "--steps", 2)
    process = subprocess.Popen(
        arguments, env=environment(tmp_path, TERM="xterm"), stdout=subprocess.DEVNULL, stderr=slave
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    assert process.wait(60) == 0
    os.close(master)
    text = seen.decode()
    assert "fold 1 of 4" in text
    assert "loss " in text
    assert "0:00:0" in text
