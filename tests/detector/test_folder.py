import errno
import json
import os
import random
import stat

import pytest
import torch
from safetensors.torch import load_file

import invad.detector.folder
from invad.detector.folder import (
    CALIBRATION,
    CARD,
    CONFIG,
    FORMAT,
    OLDEST,
    TENSORS,
    read_bundle,
    write_bundle,
)
from invad.errors import ArtifactError, InvadError

TENSORS_IN = {
    "a": torch.arange(6.0).view(2, 3),
    "b.c": torch.tensor([1, 2]),
    "shared": torch.zeros(3, 3).T,
}
CONFIG_IN = {"preset": "standard", "sizes": [1, 2], "nested": {"x": 0.1, "name": "Größe"}}
CALIBRATION_IN = {"categories": {"": {"scores": [0.1, 0.25]}}}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "deep" / "model"
    write_bundle(folder, TENSORS_IN, CONFIG_IN, CALIBRATION_IN, "# card\n")
    return folder


def write(folder, **changed):
    whole = {"tensors": TENSORS_IN, "config": CONFIG_IN, "calibration": CALIBRATION_IN, "card": ""}
    return write_bundle(folder, **{**whole, **changed})


def test_round_trip(folder):
    bundle = read_bundle(folder)
    assert (bundle.config, bundle.calibration) == (CONFIG_IN, CALIBRATION_IN)
    assert set(bundle.tensors) == set(TENSORS_IN)
    for name, value in TENSORS_IN.items():
        assert torch.equal(bundle.tensors[name], value)
        assert bundle.tensors[name].dtype == value.dtype


def test_the_folder_holds_four_files_that_others_can_read(folder):
    assert sorted(p.name for p in folder.iterdir()) == sorted([TENSORS, CONFIG, CALIBRATION, CARD])
    modes = {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()}
    assert len(modes) == 1
    assert (folder / CARD).read_text() == "# card\n"
    assert json.loads((folder / CONFIG).read_text())["format"] == FORMAT


def test_the_hash_depends_on_the_content_alone(folder, tmp_path):
    first = read_bundle(folder).content_hash
    assert write(tmp_path / "copy", card="other") == first
    assert write(tmp_path / "x", config={**CONFIG_IN, "preset": "quick"}) != first
    assert write(tmp_path / "y", tensors={**TENSORS_IN, "a": torch.zeros(2, 3)}) != first
    assert write(tmp_path / "z", calibration={}) != first


@pytest.mark.parametrize("name", [TENSORS, CONFIG, CALIBRATION])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        read_bundle(folder)


@pytest.mark.parametrize("name", [TENSORS, CONFIG, CALIBRATION])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_named(folder, name, share):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ArtifactError, match=name):
        read_bundle(folder)


@pytest.mark.parametrize("name", [TENSORS, CONFIG, CALIBRATION])
def test_one_flipped_bit_is_never_taken_for_the_model(folder, name):
    data = (folder / name).read_bytes()
    for place in random.Random(0).sample(range(len(data)), min(len(data), 150)):
        spoilt = bytearray(data)
        spoilt[place] ^= 1 << place % 8
        (folder / name).write_bytes(spoilt)
        try:
            bundle = read_bundle(folder)
        except ArtifactError:
            continue
        # Such as a blank that became another blank.
        assert name == CONFIG
        assert (bundle.config, bundle.calibration) == (CONFIG_IN, CALIBRATION_IN)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preset", "quick"),
        ("files", []),
        ("files", {}),
        ("content_hash", None),
        ("content_hash", "00"),
        ("nested", float("nan")),
        ("extra", 1),
    ],
)
def test_a_changed_key_is_noticed(folder, key, value):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, key: value}))
    with pytest.raises(ArtifactError, match="copy the model again"):
        read_bundle(folder)


@pytest.mark.parametrize("found", [None, 0, "1", [1], -3])
def test_another_json_file_is_no_model(folder, found):
    (folder / CONFIG).write_text(json.dumps({"format": found}))
    with pytest.raises(ArtifactError, match="not an invad model"):
        read_bundle(folder)


@pytest.mark.parametrize("text", ["[]", "3", "", "{", "[" * 100_000, "\x00"])
def test_no_json_at_all(folder, text):
    (folder / CONFIG).write_text(text)
    with pytest.raises(ArtifactError, match=CONFIG):
        read_bundle(folder)


def test_an_older_format_asks_to_train_again(folder):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "format": OLDEST - 1}))
    with pytest.raises(ArtifactError, match=r"older than this invad reads .*; train the model again"):
        read_bundle(folder)


def test_a_newer_format_asks_for_an_update(folder):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "format": FORMAT + 1}))
    with pytest.raises(ArtifactError, match=r"newer than this invad reads .*; update invad"):
        read_bundle(folder)


def test_no_folder(tmp_path):
    with pytest.raises(ArtifactError, match="invad train DATA"):
        read_bundle(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError):
        read_bundle(tmp_path / "file")


def test_a_file_in_place_of_the_folder(tmp_path):
    place = tmp_path / "model"
    place.write_text("mine")
    with pytest.raises(ArtifactError, match="cannot be written: File exists; choose another name"):
        write(place)
    assert place.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [place]


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    """A full disk: the tensors fail when everything else is written."""

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(invad.detector.folder, "save_tensors", full)
    with pytest.raises(ArtifactError, match="No space left"):
        write(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_older_model_survives_a_failed_write(folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(
            invad.detector.folder, "save_tensors", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            write(folder, config={"preset": "other"})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    with pytest.raises(ValueError, match="JSON compliant"):
        write(folder, config={"x": float("nan")})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_files_of_others_in_the_folder_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert read_bundle(tmp_path).config == CONFIG_IN


def test_writing_over_a_model_replaces_it(folder):
    write(folder, tensors={"only": torch.ones(2)}, config={"preset": "b"})
    assert read_bundle(folder).config == {"preset": "b"}
    assert list(load_file(folder / TENSORS)) == ["only"]


def test_no_pickle_in_the_folder(folder):
    for path in folder.iterdir():
        assert not path.read_bytes().startswith((b"\x80", b"PK"))
        assert path.stat().st_size < 10_000


def test_a_folder_of_another_kind_is_told_by_its_name(tmp_path):
    kinds = {
        "bundle.json": "is an exported bundle.* calibrate or evaluate the model and export again",
        "model/config.json": r"is no model but holds one; give .*model$",
        ".training/step.safetensors": "unfinished training; repeat 'invad train' with --resume",
        "denoiser.json": "imported network without limits; .*--normals",
        "000.PNG": "is a folder of images, no model",
        "config.json": "model.safetensors is missing",
    }
    for number, (name, words) in enumerate(kinds.items()):
        path = tmp_path / str(number) / name
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        with pytest.raises(ArtifactError, match=words):
            read_bundle(tmp_path / str(number))
    with pytest.raises(ArtifactError, match="is a file; give the folder"):
        read_bundle(tmp_path / "0" / "bundle.json")


def test_files_that_are_links_stay_links(folder, tmp_path):
    stored = tmp_path / "stored.safetensors"
    (folder / TENSORS).rename(stored)
    (folder / TENSORS).symlink_to(stored)
    write(folder, calibration={"categories": {}})
    assert (folder / TENSORS).is_symlink()
    assert read_bundle(folder).calibration == {"categories": {}}


def test_a_share_that_goes_while_weights_are_read_is_said_with_what_to_do(folder, monkeypatch):
    """Beside the other readers of tensors: each has its own library, all say it by one function."""
    from invad.backbones.checkpoint import read_weights
    from invad.paper.reference import load_reference

    def stale(*args, **options):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "some file")

    for module in ("detector.folder", "backbones.checkpoint"):
        monkeypatch.setattr(f"invad.{module}.load_file", stale)
    file = folder / "model.safetensors"
    for read, path in ((read_bundle, folder), (read_weights, file), (load_reference, file)):
        with pytest.raises(InvadError) as caught:
            read(path)
        assert str(caught.value) == f"{file}: Stale file handle; is the share mounted?"
