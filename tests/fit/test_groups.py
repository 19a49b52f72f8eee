"""A group is never trained on and held out at once."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from invad.fit import fit as module
from invad.fit.run import Run
from invad.model.settings import PRESETS
from invad.records import Sample


@pytest.fixture
def job(monkeypatch):
    """job(groups, seed, preset): what is trained on, without training: the images are recorded."""

    def make(groups, seed, name):
        trained = []

        def train(self, name, index):
            trained.append(set(index.tolist()))
            return None, 0.0

        monkeypatch.setattr(module.Job, "train", train)
        monkeypatch.setattr(module.Job, "read", lambda self, model, index: torch.zeros(len(index), 1, 1, 1))
        samples = tuple(Sample(path=Path(f"{i}.png"), category="a") for i in range(len(groups)))
        features = SimpleNamespace(samples=samples, pixels=tuple(map(str, range(len(groups)))))
        preset = PRESETS[name]
        settings = replace(preset, train=replace(preset.train, seed=seed))
        return module.Job(None, settings, features, groups, Run()), trained

    return make


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("parts", "preset", "models"), [(20, "fast", 4), (80, "fast", 5), (80, "dit", 1)])
def test_groups_stay_whole(job, parts, preset, models, seed):
    groups = tuple(i // 3 * 3 for i in range(3 * parts))
    made, trained = job(groups, seed, preset)
    _, _, held, _ = made.in_turns(made.turns)
    assert len(trained[:models]) == models
    assert (trained[models:] == [set(range(3 * parts))]) == (parts == 20)  # the one that is kept
    assert len(held) == len(set(held)) == (3 * parts if models > 1 else 48)
    for part in trained[:models]:
        out = set(range(3 * parts)) - part
        assert out
        assert not {groups[i] for i in part} & {groups[i] for i in out}
