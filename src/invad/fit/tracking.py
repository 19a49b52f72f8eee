"""The numbers of a training, kept: a JSON Lines file always, experiment trackers on request.

Each tracker is used through its own package and puts its files where that package puts them: TensorBoard in
`runs/`, MLflow in its store (MLFLOW_TRACKING_URI), Weights & Biases in `wandb/` (WANDB_DIR, WANDB_MODE). Not
through the trackers of accelerate, which end every run as finished: one that failed has to be seen as failed.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from invad.errors import ConfigError, InvadError, TrainingError, in_one_line
from invad.system.files import replacing, writing
from invad.system.network import is_reachable
from invad.system.packages import importing

PROJECT = "invad"


class Tracker(Protocol):
    """An open run of an experiment tracker."""

    def record(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of step `step` (from 1) of a stage."""

    def close(self, failed: bool) -> None:
        """End the run."""


class JsonLines:
    """One line a step: {"stage": ..., "step": ..., "seconds": ..., and the numbers}.

    seconds: since this process began the file. Continued after an interruption, steps that are walked again
    are replaced: each is there once.
    """

    def __init__(self, path: Path):
        self.path, self.started = path, time.monotonic()
        self.stage: str | None = None

    def record(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        with writing(self.path, TrainingError):
            if stage != self.stage:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._forget(stage, step)
                self.stage = stage
            seconds = round(time.monotonic() - self.started, 3)
            line = json.dumps({"stage": stage, "step": step, "seconds": seconds, **values})
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def close(self, failed: bool) -> None: ...

    def _forget(self, stage: str, step: int) -> None:
        """Drop the steps of `stage` from `step` on, and a line torn by a sudden end."""
        if not self.path.exists():
            return
        with (
            replacing(self.path) as partial,
            self.path.open(encoding="utf-8", errors="replace") as old,
            partial.open("w", encoding="utf-8") as new,
        ):
            for line in old:
                try:
                    row = json.loads(line)
                    if row["stage"] != stage or row["step"] < step:
                        new.write(line)
                except (ValueError, KeyError, TypeError):
                    continue


class TensorBoard:
    def __init__(self, name: str, config: Mapping[str, Any]):
        with importing(("tensorboard",), "track", "--track tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(Path("runs") / name)
        self.writer.add_text("config", f"```\n{json.dumps(config, indent=1)}\n```")

    def record(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.writer.add_scalar(f"{_plain(stage)}/{key}", value, step)

    def close(self, failed: bool) -> None:
        self.writer.close()


class MLflow:
    def __init__(self, name: str, config: Mapping[str, Any]):
        import mlflow

        server = str(mlflow.get_tracking_uri())
        if server.startswith(("http://", "https://")) and not is_reachable(server):
            # Its client would try again for minutes.
            raise ConfigError(f"MLflow's server {server} cannot be reached; check MLFLOW_TRACKING_URI")
        self.mlflow = mlflow
        mlflow.set_experiment(PROJECT)
        mlflow.start_run(run_name=name)
        mlflow.log_params({key: str(value)[:500] for key, value in _flat(config)})

    def record(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self.mlflow.log_metrics({f"{_plain(stage)}/{k}": v for k, v in values.items()}, step=step)

    def close(self, failed: bool) -> None:
        self.mlflow.end_run("FAILED" if failed else "FINISHED")


class WeightsAndBiases:
    def __init__(self, name: str, config: Mapping[str, Any]):
        import wandb

        self.run = wandb.init(project=PROJECT, name=name, config=dict(_flat(config)))
        self.stages: set[str] = set()

    def record(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        key = _plain(stage)
        if key not in self.stages:
            # Its own step only ever grows; every stage begins at 1.
            self.run.define_metric(f"{key}/*", step_metric=f"{key}/step")
            self.stages.add(key)
        self.run.log({f"{key}/step": step, **{f"{key}/{k}": v for k, v in values.items()}})

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


TRACKERS: dict[str, tuple[Callable[[str, Mapping[str, Any]], Tracker], str]] = {
    "tensorboard": (TensorBoard, "tensorboard"),
    "mlflow": (MLflow, "mlflow-skinny"),
    "wandb": (WeightsAndBiases, "wandb"),
}
"""How to open each, and what to install for it."""


class Trackers:
    """Several as one."""

    def __init__(self, trackers: Sequence[Tracker]):
        self.trackers = trackers

    def record(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.record(stage, step, values)


def check_trackers(names: Sequence[str]) -> None:
    """Raises ConfigError for a name that is no tracker."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"tracker {name!r} is unknown; choose from {', '.join(TRACKERS)}")


@contextmanager
def tracking(path: Path, names: Sequence[str], run: str, config: Mapping[str, Any]) -> Iterator[Trackers]:
    """Record to the file `path` and to the trackers `names`, as a run of this name with this configuration.

    Raises ConfigError for an unknown tracker and for one whose package is missing or will not start.
    """
    check_trackers(names)
    opened: list[Tracker] = [JsonLines(path)]
    failed = True
    try:
        opened += [_open(name, run, config) for name in names]
        yield Trackers(opened)
        failed = False
    finally:
        for tracker in opened:
            tracker.close(failed)


def _open(name: str, run: str, config: Mapping[str, Any]) -> Tracker:
    make, package = TRACKERS[name]
    try:
        return make(run, config)
    except InvadError:
        raise
    except Exception as error:  # A foreign package, which may ask for a login, a server or a folder.
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise ConfigError(f"--track {name} needs {package}: pip install {package}") from None
        line = in_one_line(error, most=300)
        raise ConfigError(f"--track {name} could not start ({line}); set it up, or leave it out") from None


def _plain(stage: str) -> str:
    return stage.replace(" ", "-")


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
