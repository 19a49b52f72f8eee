"""The numbers of a training are kept, each step once, and trackers get them too."""

import importlib
import json
import time

import pytest
from typer.testing import CliRunner

from invad.cli.app import app
from invad.errors import ConfigError
from invad.fit.tracking import JsonLines, tracking


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, *steps):
    lines = JsonLines(path)
    for stage, step in steps:
        lines.record(stage, step, {"loss": step / 10})


def test_each_step_is_a_line(tmp_path):
    write(tmp_path / "a" / "t.jsonl", ("fold 1", 1), ("fold 1", 2), ("denoiser", 1))
    found = [(row["stage"], row["step"], row["loss"]) for row in rows(tmp_path / "a" / "t.jsonl")]
    assert found == [("fold 1", 1, 0.1), ("fold 1", 2, 0.2), ("denoiser", 1, 0.1)]
    assert all(row["seconds"] >= 0 for row in rows(tmp_path / "a" / "t.jsonl"))


def test_steps_that_are_walked_again_are_replaced(tmp_path):
    path = tmp_path / "t.jsonl"
    write(path, ("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3))
    with path.open("a") as file:
        file.write('{"stage": "b", "st')
    write(path, ("b", 2), ("b", 3), ("b", 4))
    found = [(row["stage"], row["step"]) for row in rows(path)]
    assert found == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3), ("b", 4)]


def record(tmp_path, name, fails=False):
    with tracking(tmp_path / "t.jsonl", [name], "bolts", {"seed": 3, "nested": {"a": 1}}) as recorder:
        for step in (1, 2, 3):
            recorder.record("fold 1 of 4", step, {"loss": step / 4})
        if fails:
            raise ValueError


def test_tensorboard_reads_the_numbers_back(tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(tmp_path)
    record(tmp_path, "tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path / "runs" / "bolts")).Reload()
    scalars = events.Scalars("fold-1-of-4/loss")
    assert [(scalar.step, scalar.value) for scalar in scalars] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert len(rows(tmp_path / "t.jsonl")) == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fails", [False, True])
def test_mlflow_reads_the_numbers_back(tmp_path, monkeypatch, fails):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    if fails:
        with pytest.raises(ValueError, match=r"^$"):
            record(tmp_path, "mlflow", fails)
    else:
        record(tmp_path, "mlflow")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("invad")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("bolts", "FAILED" if fails else "FINISHED")
    assert run.data.params == {"seed": "3", "nested.a": "1"}
    history = client.get_metric_history(run.info.run_id, "fold-1-of-4/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.25), (2, 0.5), (3, 0.75)]


@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_an_offline_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    for key, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(key, value)
    record(tmp_path, "wandb")
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 20  # a process of its own writes the rest
    while b"fold-1-of-4/loss" not in file.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_unknown_tracker_is_refused_before_the_work(tmp_path):
    arguments = ["train", "nowhere", "--output", str(tmp_path / "m"), "--track", "tensorboard,neptune"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr == "error: tracker 'neptune' is unknown; choose from tensorboard, mlflow, wandb\n"


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("tensorboard", "tensorboard", r"tensorboard>=2\.15 \(not installed\); pip install 'invad\[track\]'"),
        ("mlflow", "mlflow", "mlflow-skinny: pip install mlflow-skinny"),
    ],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, name, module, package):
    monkeypatch.setitem(importlib.sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"^--track {name} needs {package}$"):
        record(tmp_path, name)
    assert not (tmp_path / "t.jsonl").exists()
