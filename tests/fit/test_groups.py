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
    """job(groups, seed): what is trained on, without training: the fold's or share's images are recorded."""

    def make(groups, seed):
        trained = []

        def train(self, name, index):
            trained.append(set(index.tolist()))
            return None, 0.0

        monkeypatch.setattr(module.Job, "train", train)
        monkeypatch.setattr(module.Job, "read", lambda self, model, index: torch.zeros(len(index), 1))
        samples = tuple(Sample(path=Path(f"{i}.png"), category="a") for i in range(len(groups)))
        features = SimpleNamespace(samples=samples, pixels=tuple(map(str, range(len(groups)))))
        preset = PRESETS["fast"]
        settings = replace(preset, train=replace(preset.train, seed=seed))
        return module.Job(None, settings, features, groups, Run()), trained

    return make


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("way", ["split", "k_fold"])
def test_groups_stay_whole(job, way, seed):
    groups = tuple(i // 3 * 3 for i in range(60))
    made, trained = job(groups, seed)
    getattr(made, way)()
    parts = trained[:-1] if way == "k_fold" else trained
    assert len(parts) == (4 if way == "k_fold" else 1)
    for part in parts:
        held = set(range(60)) - part
        assert held
        assert not {groups[i] for i in part} & {groups[i] for i in held}
