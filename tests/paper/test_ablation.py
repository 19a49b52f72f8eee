"""Every study through the command line on a tiny set, and what the numbers stand for."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from invad.cli.app import app
from invad.data.synthetic import write_dataset
from invad.errors import ConfigError
from invad.model.settings import PRESETS
from invad.paper.ablation import Ablation, ablate
from invad.paper.ablation.scorings import Terms, score
from invad.paper.ablation.studies import STUDIES, reconstruction
from invad.scoring.typicality import paper_terms

VALUES = {
    "steps": "1,3",
    "schedule": "reference,exponential",
    "scoring": "3",
    "reconstruction": "200",
    "backbone": "invad-s",
    "grid": "32,16",
    "denoiser": "mlp-s,mlp-s+gaussian",
}
READ = {
    "schedule": {(value, f"S = {s}") for value in VALUES["schedule"].split(",") for s in (3, 10)},
    "reconstruction": {
        (s, series) for s in ("3", "5", "10", "50") for series in ("inversion", "reconstruction from 200")
    },
}
"""Values and lines of the chart where they are not the values asked for on one line."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "parts"
    return write_dataset(folder, categories=["gasket"], train=6, test_good=2, per_defect=1, size=64)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("ablation")


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def command(study, parts, output, *more):
    values = ["--values", VALUES[study], "--steps", 2, "--output", output, "--device", "cpu"]
    return run("paper", "ablate", study, parts, *values, *more)


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_runs(study, parts, output):
    result = command(study, parts, output)
    assert result.exit_code == 0, result.stderr
    document = json.loads((output / f"{study}.json").read_text())
    rows = document["rows"]
    assert all(0 <= row["image_auroc"] <= 1 for row in rows)
    assert len({row["scoring"] for row in rows}) == 6
    assert {(row["value"], row["series"]) for row in rows} == READ.get(
        study, {(value, "inversion") for value in VALUES[study].split(",")}
    )
    assert "| gasket |" in (output / f"{study}.md").read_text().splitlines()[2]
    assert (output / f"{study}.svg").read_text().startswith("<svg xmlns=")


def test_a_repeated_command_runs_only_what_is_missing(parts, output, monkeypatch):
    plan = Ablation(study="steps", root=parts, values=("1", "3"), steps=2, device="cpu")
    before = ablate(plan, output)["rows"]
    notes = []

    class Ears:
        def stage(self, name, total):
            notes.append((name, total))

        def advance(self, detail=""):
            notes.append(detail)

        def note(self, text):
            pass

    assert ablate(plan, output, Ears())["rows"] == before
    assert notes == []
    more = ablate(replace(plan, values=("1", "3", "5")), output, Ears())["rows"]
    assert more[: len(before)] == before
    assert {row["value"] for row in more[len(before) :]} == {"5"}
    # The network was there: its stage opens and no step is made.
    assert not [note for note in notes if "loss" in str(note)]
    assert ("readings", 1) in notes


def test_other_settings_are_not_mixed(parts, output):
    ablate(Ablation(study="scoring", root=parts, values=("3",), steps=2, device="cpu"), output)
    with pytest.raises(ConfigError, match=r"scoring\.json: holds results of other data or settings"):
        ablate(Ablation(study="scoring", root=parts, values=("3",), steps=3, device="cpu"), output)


def test_networks_of_another_precision_are_not_mixed(parts, tmp_path):
    words = ["paper", "ablate", "scoring", parts, "--steps", 2, "--output", tmp_path, "--device", "cpu"]
    assert run(*words).exit_code == 0
    assert "holds results of other data or settings" in run(*words, "--precision", "bf16").stderr
    (tmp_path / "scoring.json").unlink()
    assert run(*words, "--precision", "bf16").exit_code == 0
    assert json.loads((tmp_path / "scoring.json").read_text())["precision"] == "bf16"
    assert len(list((tmp_path / "networks").iterdir())) == 2


@pytest.mark.parametrize("spoilt", ["train/good", "test/good", "ground_truth"])
def test_other_pictures_under_the_same_names_are_not_mixed(parts, tmp_path, spoilt):
    root = Path(shutil.copytree(parts, tmp_path / "parts"))
    plan = Ablation(study="scoring", root=root, values=("3",), steps=2, device="cpu")
    ablate(plan, tmp_path / "out")
    picture = next(path for path in sorted(root.rglob("*.png")) if spoilt in path.as_posix())
    Image.open(picture).transpose(Image.Transpose.ROTATE_180).save(picture)
    with pytest.raises(ConfigError, match=r"scoring\.json: holds results of other data or settings"):
        ablate(plan, tmp_path / "out")
    # The table is gone, the networks are still there: one is taken only for the pictures it was trained on.
    (tmp_path / "out" / "scoring.json").unlink()
    ablate(plan, tmp_path / "out")
    trainings = len(list((tmp_path / "out" / "networks").iterdir()))
    assert trainings == (2 if spoilt == "train/good" else 1)


def test_bad_words_are_one_line(parts, tmp_path):
    for words, said in (
        (["paper", "ablate", "colour", parts], "study 'colour' is unknown"),
        (["paper", "ablate", "steps", parts, "--values", "0"], "steps '0'"),
        (["paper", "ablate", "schedule", parts, "--values", "round"], "schedule 'round' is unknown"),
        (["paper", "ablate", "steps", parts, "--seeds", "a"], "--seeds a"),
    ):
        result = run(*words, "--output", tmp_path / "out")
        assert result.exit_code == 2
        assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_only_the_published_fusion_depends_on_the_other_test_images():
    torch.manual_seed(0)
    terms = [Terms(*paper_terms(torch.randn(n, 3, 4, 4))) for n in (20, 6)]
    held, test = terms
    first = Terms(test.map_Nhw[:3], test.nll_N[:3], test.diff_N[:3])
    settings = PRESETS["paper-s"]
    changed = {
        whole.name
        for whole, part in zip(score(test, held, settings), score(first, held, settings), strict=True)
        if not np.allclose(whole.scores_N[:3], part.scores_N)
    }
    assert changed == {"NLL + Diff, test-set scaled"}


def test_a_reconstruction_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    x = torch.randn(3, 2, 4, 4)
    predict = lambda z, t: 0.1 * z  # noqa: E731
    whole = reconstruction(200, 3, predict, x)
    torch.testing.assert_close(whole[2:], reconstruction(200, 3, predict, x[2:]))


def test_a_perfect_predictor_reconstructs_one_point_exactly():
    from invad.diffusion.schedule import SCHEDULE

    x = torch.full((1, 2, 4, 4), 0.7)
    abar = torch.tensor(SCHEDULE.alphas_cumprod)

    def predict(z, t):
        a = abar[t].view(-1, 1, 1, 1).float()
        return (z - a.sqrt() * x) / (1 - a).sqrt()

    torch.testing.assert_close(reconstruction(500, 5, predict, x), torch.zeros_like(x), rtol=0, atol=1e-4)
