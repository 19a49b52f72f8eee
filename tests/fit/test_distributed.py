"""Several real processes give what one gives; a lost one costs a line and nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from invad.cli.app import app
from invad.detector.detector import Detector
from invad.diffusion.denoiser import DenoiserConfig, build_denoiser
from invad.errors import ConfigError
from invad.fit.distributed import BUCKET, Solo, _buckets, workers
from invad.fit.state import _owners
from invad.fit.training import Checkpoint, Execution, train_denoiser
from invad.model.settings import TrainConfig

pytest.importorskip("accelerate", reason="several processes need accelerate")

SRC = Path(__file__).resolve().parents[2] / "src"
CONFIG = TrainConfig(steps=12, batch=5, warmup=2, seed=3)
NET = DenoiserConfig(kind="dit", width=16, depth=2, heads=2)
CPU = torch.device("cpu")


def torchrun(*arguments):
    launch = ["--standalone", "--nproc_per_node", "2"]
    return [*map(str, (sys.executable, "-m", "torch.distributed.run", *launch, *arguments))]


FORKED = """
import os, sys
from pathlib import Path
import accelerate
import torch.distributed.nn.functional
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
import torch._dynamo  # what an optimiser imports when it is made
import invad.detector.detector
{rank}
for attempt in range({attempts}):
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id=str(attempt), rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, start_method="fork",
    )
    try:
        elastic_launch(config, rank)(*sys.argv[1:])
        print("ended")
    except ChildFailedError:
        print("failed")
"""
"""torchrun's own launcher, `attempts` times, with processes that need not import torch each for itself."""


def forked(rank, *arguments, attempts=1):
    """Command that calls `rank` of this source text in two processes and prints how each attempt ended."""
    return [sys.executable, "-c", FORKED.format(rank=rank, attempts=attempts), *map(str, arguments)]


def environment(**changed):
    return {
        **os.environ,
        "PYTHONPATH": str(SRC),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **changed,
    }


def features():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(1, 4, 3, 5)) * 2 + 0.1 * rng.normal(size=(12, 4, 3, 5))).astype(np.float32)


def train(config=CONFIG, **options):
    torch.manual_seed(3)
    net = build_denoiser(NET, 4, (3, 5))
    loss = train_denoiser(net, features(), np.arange(12), config, device=CPU, **options)
    return net, loss


def assert_close(net, other, tolerance=2e-5):
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, other[name], rtol=tolerance, atol=tolerance)


# One process


def test_one_process_needs_no_group():
    with workers() as team:
        assert isinstance(team, Solo)
        assert (team.rank, team.size, team.gather({2: "b", 1: "a"})) == (0, 1, {1: "a", 2: "b"})


@pytest.mark.parametrize("execution", [Execution(accumulate=3), Execution(checkpointing=True)])
def test_less_memory_gives_the_same_training(execution):
    whole, loss = train()
    net, other = train(execution=execution)
    assert_close(whole, net.state_dict())
    assert other == pytest.approx(loss, rel=1e-5)


def test_checkpointing_computes_the_blocks_twice_and_ends_with_the_training():
    calls = []
    torch.manual_seed(3)
    net = build_denoiser(NET, 4, (3, 5))
    net.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    options = {"device": CPU, "execution": Execution(checkpointing=True)}
    train_denoiser(net, features(), np.arange(12), CONFIG, **options)
    assert (len(calls), net.checkpointing) == (24, False)


def test_bf16_is_near_but_not_the_same():
    whole, loss = train()
    net, other = train(execution=Execution(precision="bf16"))
    assert other == pytest.approx(loss, rel=0.02)
    assert not torch.equal(next(whole.parameters()), next(net.parameters()))


def test_options_that_cannot_be():
    with pytest.raises(ConfigError, match="fp32 or bf16"):
        Execution(precision="fp16")
    with pytest.raises(ConfigError, match="fewer images than 1 processes x 6 parts; raise --batch"):
        train(execution=Execution(accumulate=6))


def test_every_tensor_has_one_owner_and_the_shares_are_even():
    sizes = {f"w{i}": size for i, size in enumerate([100, 60, 40, 30, 20, 10, 5])}
    owner = _owners(sizes, 3)
    held = [sum(sizes[name] for name in sizes if owner[name] == rank) for rank in range(3)]
    assert sum(held) == 265
    assert max(held) - min(held) <= 20
    assert set(_owners({"a": 1}, 3).values()) == {0}


def test_tensors_travel_together_by_dtype_up_to_a_limit():
    small, large = torch.zeros(3), torch.empty(BUCKET // 4)
    tensors = [small, small, small.double(), large, small, small]
    assert [len(bucket) for bucket in _buckets(tensors)] == [2, 1, 1, 2]
    assert [id(t) for bucket in _buckets(tensors) for t in bucket] == [id(t) for t in tensors]
    assert list(_buckets([])) == []


# Two processes

TRAIN_TWICE = """
import torch
sys.path.insert(0, os.environ["TESTS"])
from test_distributed import train
from invad.fit.distributed import workers
from invad.fit.training import Checkpoint

def press(step, loss):
    if step == 7 and os.environ["RANK"] == "1":
        raise KeyboardInterrupt

def rank(folder):
    folder = Path(folder)
    with workers("cpu") as team:
        try:
            checkpoint = Checkpoint(folder / "halved.safetensors", "mark", 0.0)
            train(workers=team, on_step=press, checkpoint=checkpoint)
            raise SystemExit(3)
        except KeyboardInterrupt:
            pass
        net, loss = train(workers=team)
        torch.save({"loss": loss, **net.state_dict()}, folder / f"rank{team.rank}.pt")
        own = {5 - 2 * team.rank: "a", 2 + 2 * team.rank: "b"}
        assert list(team.gather(own).items()) == [(2, "b"), (3, "a"), (4, "b"), (5, "a")]
        assert team.any(team.rank == 1, False) == (True, False)
    names = [file.read_text() for file in Path("/proc/self/task").glob("*/comm")]
    assert not any("gloo" in name for name in names), names
"""


def test_two_processes_train_as_one_and_one_continues_what_two_began(tmp_path):
    """Five images a step, so the processes' parts differ; interrupted in one process, both stop."""
    done = subprocess.run(
        forked(TRAIN_TWICE, tmp_path),
        env=environment(TESTS=str(Path(__file__).parent)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
    whole, loss = train()
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["loss"] == second["loss"] == pytest.approx(loss, rel=1e-5)
    assert_close(whole, first)
    assert all(torch.equal(first[name], second[name]) for name in first if name != "loss")
    steps = []
    checkpoint = Checkpoint(tmp_path / "halved.safetensors", "mark")
    resumed, again = train(checkpoint=checkpoint, on_step=lambda step, loss: steps.append(step))
    assert steps == [8, 9, 10, 11, 12]
    assert_close(whole, resumed.state_dict())
    assert again == pytest.approx(loss, rel=1e-5)


@pytest.fixture(scope="module")
def parts(write_parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    write_parts(folder / "train" / "good", 21)
    write_parts(folder / "test" / "good", 4, first=30)
    write_parts(folder / "test" / "spot", 4, first=40, defect=True)
    return folder


def invad_train(parts, output, *more):
    options = ["--steps", "3", "--batch", "6", "--preset", "paper-s", "--device", "cpu"]
    return ["train", parts, "--output", output, *options, *more]


@pytest.fixture(scope="module")
def alone(parts, tmp_path_factory):
    """The model that one process makes, and what it says of it."""
    output = tmp_path_factory.mktemp("alone") / "model"
    done = CliRunner().invoke(app, [str(word) for word in invad_train(parts, output, "--json", "-")])
    return output, json.loads(done.stdout)


def judged(model, parts):
    found = {}
    detector = Detector.load(model, device="cpu")
    for path in sorted((parts / "test").rglob("*.png")):
        prediction = detector.predict(path)
        found[path.name] = (prediction.score, prediction.p_value)
    return found


def error_lines(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


INVAD = """
def rank(folder, *words):
    (Path(folder) / f"process {os.environ['RANK']}").write_text(str(os.getpid()))
    sys.argv = ["invad", *words]
    from invad.cli import main
    main()
"""


def test_a_killed_process_costs_one_line_and_a_rerun_gives_the_model_of_one_process(parts, tmp_path, alone):
    """Two processes, one killed in the third of five trainings; then the same command again."""
    log, told = tmp_path / "log", tmp_path / "told.json"
    words = invad_train(parts, tmp_path / "model", "--resume", "--json", told)
    command = forked(INVAD, tmp_path, *words, attempts=2)
    with log.open("w") as file:
        launcher = subprocess.Popen(
            command, env=environment(), stderr=file, stdout=subprocess.PIPE, text=True
        )
        wait_for(tmp_path / "model" / ".training" / "fold-2-of-4.safetensors", launcher)
        os.kill(int((tmp_path / "process 1").read_text()), signal.SIGKILL)
        said, _ = launcher.communicate(timeout=240)
    text = log.read_text()
    assert [line for line in said.splitlines() if line in ("failed", "ended")] == ["failed", "ended"], text
    # One line, or none where the launcher ends the survivor before it has noticed.
    lines = error_lines(text)
    assert len(lines) <= 1, text
    assert all("another process of this training ended" in line for line in lines)
    assert f"features: 16 found in {tmp_path}" in text or "features: 21 found" in text
    assert text.count("fold 1 of 4: 3") == 2
    model, said = alone
    result = json.loads(told.read_text())
    assert (result["processes"], said["processes"]) == (2, 1)
    assert result["final_loss"] == pytest.approx(said["final_loss"], rel=1e-4)
    assert result["normals"] == result["held_out"] == said["held_out"]
    assert sum(said["normals"].values()) == 21
    two, one = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", model))
    assert two.keys() == one.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=2e-3, atol=2e-4, msg=name)
    ours, theirs = judged(tmp_path / "model", parts), judged(model, parts)
    assert {name: pytest.approx(pair, rel=1e-3) for name, pair in theirs.items()} == ours
    lines = [json.loads(line) for line in (tmp_path / "model" / "training.jsonl").read_text().splitlines()]
    seen = [(line["stage"], line["step"]) for line in lines]
    stages = [*[f"fold {k} of 4" for k in (1, 2, 3, 4)], "denoiser"]
    assert sorted(seen) == sorted((stage, step) for stage in stages for step in (1, 2, 3))
    assert not (tmp_path / "model" / ".training").exists()


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_all_processes_find_wrong_is_said_once(tmp_path):
    done = subprocess.run(
        torchrun("-m", "invad", *invad_train(tmp_path / "nowhere", tmp_path / "model")),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert error_lines(done.stderr) == [f"error: {tmp_path}/nowhere: no such folder; give a folder of images"]
    assert not (tmp_path / "model").exists()
