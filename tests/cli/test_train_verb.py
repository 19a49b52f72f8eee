"""Training from the command line: what it writes, what it refuses, and that it can be interrupted."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from invad.cli.app import app

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


FAST = ("--preset", "fast")
"""For those to whom it is the same what is fitted."""

TRAINED = ("--preset", "paper-s")
"""With a network, and little beside it."""


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
        "moved",
        "normals",
        "groups",
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
        "sizes",
        "limits",
        "parts",
        "warnings",
        "content_hash",
    ]
    assert told["normals"] == told["held_out"] == {"gasket": 12}
    assert (told["output"], told["preset"], told["steps"], told["seed"]) == (str(folder), "standard", 0, 0)
    assert told["content_hash"] == json.loads((folder / "config.json").read_text())["content_hash"]
    assert "Learned from 12 good images" in result.stderr
    assert "steps = 2: these settings have no network to train" in result.stderr


def test_a_finished_model_is_all_there_is_in_the_folder(trained):
    names = {path.name for path in trained[0].iterdir()}
    assert names == {"model.safetensors", "config.json", "calibration.json", "README.md"}


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


def test_a_missing_folder_is_one_line_and_leaves_nothing(run, tmp_path):
    result = run("train", tmp_path / "nowhere", "--output", tmp_path / "a" / "b")
    assert (result.exit_code, result.stdout) == (1, "")
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
    strict = run("train", own_parts, "--output", tmp_path / "strict", *FAST, "--strict")
    assert strict.exit_code == 1
    one_line(strict, broken)
    assert not (tmp_path / "strict").exists()
    result = run("train", own_parts, "--output", tmp_path / "model", *FAST, "--json", tmp_path / "t")
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
    missing = run(
        "train",
        parts,
        "--output",
        tmp_path / "model",
        "--backbone",
        "invad-s",
        "--weights",
        tmp_path / "none.safetensors",
    )
    assert missing.exit_code == 1
    one_line(missing, "none.safetensors")
    assert not (tmp_path / "model").exists()


def test_hub_weights_without_a_network(run_outside, parts, tmp_path, one_line):
    result = run_outside("train", parts, "--output", tmp_path / "model", "--backbone", "resnet18")
    assert (result.returncode, result.stdout) == (1, "")
    one_line(result, "resnet18", "HF_HUB_OFFLINE", "invad-s", "--weights")
    assert not (tmp_path / "model").exists()


@contextmanager
def small_disk():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_leaves_nothing(run, parts, tmp_path, one_line):
    """A limit on the size of a file stands for the disk; checkpoint and model are larger."""
    with small_disk():
        result = run("train", parts, "--output", tmp_path / "model", *FAST)
    assert result.exit_code == 1
    one_line(result, tmp_path / "model")
    assert not (tmp_path / "model").exists()


# Interruption


def wait_for(process, text, log):
    deadline = time.monotonic() + 60
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


@pytest.fixture
def as_before(monkeypatch):
    """What --deterministic changes in a process is undone."""
    import torch

    threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(exact)


@pytest.mark.usefixtures("as_before")
def test_interrupted_and_resumed_training_equals_an_uninterrupted_one(
    parts, tmp_path, run, command, environment, one_line
):
    options = [*TRAINED, "--steps", 3, "--seed", 3, "--deterministic"]
    log = tmp_path / "log"
    halved = ["train", parts, "--output", tmp_path / "halved", *options]
    with log.open("w") as file:
        process = subprocess.Popen(
            command(*halved), env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=file
        )
        wait_for(process, "fold 2 of 4", log)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert log.read_text().splitlines()[-1] == (
        "error: interrupted; repeat the command with --resume to continue"
    )
    assert [path.name for path in (tmp_path / "halved").iterdir()] == [".training"]
    kept = {path.name for path in (tmp_path / "halved" / ".training").iterdir()}
    assert kept == {"fold-1-of-4.safetensors", "fold-2-of-4.safetensors", "training.jsonl"}
    refused = run(*halved)
    assert refused.exit_code == 1
    one_line(refused, "holds an unfinished training; continue it with --resume")
    resumed = run(*halved, "--resume")
    whole = run("train", parts, "--output", tmp_path / "whole", *options)
    assert (resumed.exit_code, whole.exit_code) == (0, 0), resumed.stderr
    assert weights_hash(tmp_path / "halved") == weights_hash(tmp_path / "whole")
    assert not (tmp_path / "halved" / ".training").exists()


def test_interrupted_before_the_first_step_leaves_nothing(parts, tmp_path, command, environment):
    log = tmp_path / "log"
    arguments = command("train", parts, "--output", tmp_path / "a" / "model", *FAST)
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
    result = run("train", parts, "--output", folder, *TRAINED, "--steps", 1, "--resume")
    assert result.exit_code == 1
    one_line(result, "fold-1-of-4.safetensors", "unreadable checkpoint")
    assert work.is_dir()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
def test_a_terminal_gets_a_bar_with_loss_and_time_left(parts, tmp_path, monkeypatch):
    import pty

    master, slave = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(read_to_the_end(master)))
    reader.start()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        arguments = ["train", parts, "--output", tmp_path / "model", *TRAINED, "--steps", 2]
        app([str(argument) for argument in arguments], standalone_mode=False)
    reader.join(60)
    os.close(master)
    text = b"".join(seen).decode()
    assert "fold 1 of 4" in text
    assert "loss " in text
    assert "0:00:0" in text


def read_to_the_end(terminal):
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            return
        if not part:
            return
        yield part


def test_a_model_that_sees_too_few_drawings_is_still_a_model(run, parts, tmp_path, monkeypatch):
    monkeypatch.setattr("invad.detector.measuring.DRAWINGS", 2)
    model = tmp_path / "model"
    done = run("train", parts, "--output", model, "--preset", "fast", "--sizes", "--json", "-")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["sizes"] is None
    assert "warning: sizes of defects stay those of their places" in done.stderr
    assert (model / "config.json").exists()
