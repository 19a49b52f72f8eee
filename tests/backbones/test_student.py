import json
import stat
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from invad.backbones.student import Student, StudentConfig, load_student, save_student
from invad.errors import WeightsError

SMALL = StudentConfig(
    stem=8, widths=(8, 12, 16), blocks=(1, 0, 1), dense=(True, False, False), heads=(4, 5, 6)
)


@pytest.fixture
def student():
    torch.manual_seed(0)
    student = Student(SMALL)
    for name, value in student.named_buffers():
        if name.endswith("running_mean"):
            value.normal_()
    return student.eval()


@pytest.fixture
def stem(student, tmp_path):
    save_student(tmp_path / "deep" / "my.student", student, {"steps": 3, "explained_variance": [0.1, 0.2]})
    return tmp_path / "deep" / "my.student"


def files(stem):
    return stem.with_name(stem.name + ".safetensors"), stem.with_name(stem.name + ".json")


@pytest.mark.parametrize("hw", [(64, 64), (32, 96), (16, 16)])
def test_strides_and_channels(student, hw):
    shapes = [tuple(m.shape) for m in student(torch.rand(2, 3, *hw))]
    assert shapes == [(2, c, hw[0] // s, hw[1] // s) for c, s in zip((4, 5, 6), (4, 8, 16), strict=True)]


def test_images_of_a_batch_do_not_mix(student):
    x = torch.rand(3, 3, 32, 32)
    for together, alone in zip(student(x), student(x[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone)


def test_round_trip_in_half_precision(student, stem):
    loaded, record = load_student(stem)
    assert record == {"steps": 3, "explained_variance": [0.1, 0.2]}
    assert loaded.config == replace(SMALL, heads=())  # the heads serve distillation alone
    assert not loaded.training
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, student.state_dict()[name].half().to(value.dtype)), name
    x = torch.rand(1, 3, 32, 32)
    for a, b in zip(loaded.trunk(x), student.trunk(x), strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


def test_both_files_and_nothing_else(stem):
    weights, described = files(stem)
    assert sorted(stem.parent.iterdir()) == sorted([weights, described])
    assert {t.dtype for t in load_file(weights).values()} == {torch.float16}
    assert stat.S_IMODE(weights.stat().st_mode) == stat.S_IMODE(described.stat().st_mode)


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_file_is_named(stem, which):
    files(stem)[which].unlink()
    with pytest.raises(
        WeightsError, match=r"no such file; a student is a \.safetensors and a \.json file"
    ) as c:
        load_student(stem)
    assert str(files(stem)[which]) in str(c.value)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("content", [b"", b"junk", b"\xff\xfe", b"[]", b"{}"])
def test_foreign_content_is_refused(stem, which, content):
    files(stem)[which].write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_student(stem)
    assert str(files(stem)[which]) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["student"].update(colour=1), "unknown key 'student.colour'"),
        (lambda m: m["student"].update(widths=[8, 12]), "does not describe an invad student"),
        (lambda m: m["student"].update(widths="wide"), "student.widths = 'wide'"),
        (lambda m: m["student"].update(stem="8"), "student.stem = '8': expected an integer"),
        (lambda m: m.pop("record"), "key 'record' is missing"),
        (lambda m: m.update(student=None), "student = None"),
        (lambda m: m.update(record=3), "record = 3"),
    ],
)
def test_a_description_of_something_else(stem, change, words):
    described = files(stem)[1]
    meta = json.loads(described.read_text())
    change(meta)
    described.write_text(json.dumps(meta))
    with pytest.raises(WeightsError) as caught:
        load_student(stem)
    assert str(caught.value).startswith(f"{described}: {words}")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("stem.0.weight"),
        lambda t: t.update(more=torch.ones(1)),
        lambda t: t.update({"stem.0.weight": torch.ones(1)}),
        lambda t: t.clear(),
    ],
)
def test_weights_of_something_else(stem, change):
    weights = files(stem)[0]
    tensors = load_file(weights)
    change(tensors)
    save_file(tensors, weights)
    with pytest.raises(WeightsError, match="not the weights of this student") as caught:
        load_student(stem)
    assert str(weights) in str(caught.value)


def test_a_folder_that_cannot_be_written(student, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WeightsError, match="cannot be written"):
        save_student(tmp_path / "file" / "student", student, {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_keeps_what_was_there(student, stem, monkeypatch):
    before = [p.read_bytes() for p in files(stem)]

    def full(path, tensors):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("invad.backbones.student.save_tensors", full)
    with pytest.raises(WeightsError, match="No space left"):
        save_student(stem, student, {"other": 1})
    assert [p.read_bytes() for p in files(stem)] == before
    assert len(list(stem.parent.iterdir())) == 2
