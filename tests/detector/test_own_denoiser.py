"""A denoiser is one class and one line in DENOISERS: it is trained, saved, loaded and used."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from invad.detector.detector import Detector
from invad.diffusion.base import Denoiser
from invad.diffusion.denoiser import DENOISERS, DenoiserConfig, DenoiserKind
from invad.errors import ConfigError
from invad.fit.run import Run
from invad.fit.training import Execution


class Scaling(Denoiser):
    """The noise is a learned share of what lies off the measured mean, cell by cell of the grid."""

    def __init__(self, channels):
        super().__init__()
        self.share = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.recomputed = []

    def forward(self, x_BChw, t_B):
        return self.share * (x_BChw - self.mean)

    def before_training(self, moments):
        # Of a shape that the configuration does not tell: loading has to ask the weights.
        self.mean = moments()[0].view(-1, 1, 1).expand(-1, 4, 4).clone()

    def recompute_activations(self, on):
        self.recomputed.append(on)

    def before_loading(self, weights, grid_hw):
        self.mean = torch.empty_like(weights["mean"])


@pytest.fixture
def scaling(monkeypatch):
    def problem(config):
        return "depth = 2: it has one layer; give 1" if config.depth != 1 else None

    monkeypatch.setitem(DENOISERS, "scaling", DenoiserKind(lambda config, c: Scaling(c), problem))
    return DenoiserConfig(kind="scaling", width=4, depth=1)


@pytest.mark.parametrize("gaussian", [False, True])
def test_a_registered_denoiser_is_trained_saved_loaded_and_used(
    scaling, gaussian, good_parts, tiny_preset, make_backbone, draw, tmp_path
):
    alone = {"fine": None, "empirical": None, "top_fractions": None, "second_space": None}
    preset = replace(tiny_preset, denoiser=replace(scaling, gaussian=gaussian), **alone)
    run = Run(execution=Execution(checkpointing=True))
    detector = Detector.fit(good_parts, preset=preset, backbone=make_backbone(), device="cpu", run=run)
    denoiser = detector.model.denoiser
    own = denoiser.net if gaussian else denoiser
    assert own.recomputed == [True, False]
    assert own.share.abs().min() > 0
    assert own.mean.shape[1:] == ((1, 1) if gaussian else (4, 4))
    detector.save(tmp_path / "model")
    again = Detector.load(tmp_path / "model", device="cpu")
    picture = draw(99, defect=True)
    assert again.predict(picture).score == detector.predict(picture).score


def test_the_entry_says_what_is_wrong_with_a_configuration(scaling):
    with pytest.raises(ConfigError, match=r"^denoiser\.depth = 2: it has one layer; give 1$"):
        replace(scaling, depth=2)
