"""The folder of a training, without a training."""

import pytest

from invad.cli.folder import training_folder
from invad.errors import TrainingError


def train_into(output, name, error=None):
    """A training that writes one file and fails with `error`, if any, or makes a model."""
    with training_folder(output, resume=False) as work:
        work.mkdir()
        (work / name).write_bytes(b"x")
        if error is not None:
            raise error
        (output / "config.json").write_text("{}")


def test_success_leaves_the_model_only(tmp_path):
    train_into(tmp_path / "a" / "b", "denoiser.safetensors")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["config.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_without_a_checkpoint_leaves_nothing(tmp_path, error):
    with pytest.raises(error):
        train_into(tmp_path / "a" / "b", "denoiser.partial", error)
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_a_folder_that_was_there_before(tmp_path):
    with pytest.raises(ValueError, match="x"), training_folder(tmp_path, resume=False):
        raise ValueError("x")
    assert tmp_path.is_dir()


def test_a_checkpoint_stays_and_only_resume_continues_it(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_into(tmp_path / "m", "denoiser.safetensors", KeyboardInterrupt)
    assert (tmp_path / "m" / ".training" / "denoiser.safetensors").exists()
    with pytest.raises(TrainingError, match="--resume"), training_folder(tmp_path / "m", resume=False):
        pass
    with training_folder(tmp_path / "m", resume=True) as work:
        assert (work / "denoiser.safetensors").exists()


def test_resume_of_nothing_is_a_start(tmp_path):
    with training_folder(tmp_path / "m", resume=True) as work:
        assert not work.exists()


@pytest.mark.parametrize("name", ["config.json", "other.txt"])
def test_what_is_not_ours_is_never_touched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(TrainingError, match=str(tmp_path)), training_folder(tmp_path, resume=True):
        pass
    assert (tmp_path / name).read_text() == "mine"
