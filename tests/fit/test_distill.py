import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from invad.backbones.base import Backbone, BackboneInfo
from invad.backbones.invad_s import load_invad_s
from invad.backbones.student import Student, StudentConfig, save_student
from invad.errors import ConfigError, DataError, TrainingError
from invad.fit.distill import (
    STRIDES,
    DistillConfig,
    crops,
    distill,
    explained_variance,
    fit_projection,
    fit_projections,
    load_pictures,
)

SMALL = StudentConfig(stem=8, widths=(8, 12, 16), blocks=(0, 0, 0))


class Teacher(Backbone):
    """Blurred colours and edges at each stride: easy to learn."""

    def __init__(self, strides=STRIDES, seed=0, gain=1.0):
        super().__init__(BackboneInfo(name=f"teacher{seed}", source="test", licence="none"))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.nets = nn.ModuleList(nn.Conv2d(3, 6, s, s) for s in strides)
        self.gain = gain
        self.freeze()

    def features(self, x_B3HW):
        return [self.gain * net(x_B3HW) for net in self.nets]


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    made = []
    for _ in range(4):
        coarse = torch.from_numpy(rng.random((1, 3, 6, 8)).astype(np.float32))
        big = torch.nn.functional.interpolate(coarse, (60, 80), mode="bicubic").clamp(0, 1)
        made.append((big[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    return made


def config(**changed):
    small = {
        "pools": 2,
        "pool": 16,
        "reuse": 10,
        "batch": 8,
        "crop": 32,
        "synthetic": 0.0,
        "components": (4, 8, 8),
        "warmup": 2,
        "lr": 1e-2,
        "student": SMALL,
    }
    return DistillConfig(**{**small, **changed})


# Targets


def test_few_channels_are_standardised():
    maps = (
        torch.randn(8, 5, 6, 7, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1, 10, 0.1, 3, 5]).view(1, 5, 1, 1)
        + 2
    )
    made = fit_projection(maps, 8)(maps)
    assert made.shape == maps.shape
    np.testing.assert_allclose(made.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(made.std((0, 2, 3)), 1, rtol=1e-4)
    # Each channel stays itself.
    np.testing.assert_allclose(np.corrcoef(made[:, 1].ravel(), maps[:, 1].ravel())[0, 1], 1, rtol=1e-5)


def test_many_channels_become_white_components():
    generator = torch.Generator().manual_seed(1)
    maps = torch.einsum(
        "bchw,ck->bkhw",
        torch.randn(8, 20, 6, 7, generator=generator),
        torch.randn(20, 20, generator=generator),
    )
    made = fit_projection(maps, 6)(maps)
    assert made.shape == (8, 6, 6, 7)
    cells = made.permute(1, 0, 2, 3).reshape(6, -1).double()
    np.testing.assert_allclose(torch.cov(cells), np.eye(6), atol=1e-4)


def test_components_are_the_leading_ones_of_standardised_channels():
    """numpy's SVD as the oracle; a loud channel has no more say than the others."""
    generator = torch.Generator().manual_seed(2)
    maps = torch.randn(6, 4, 8, 8, generator=generator)
    maps[:, 1] = maps[:, 0] + 0.1 * maps[:, 1]
    maps[:, 3] *= 1e4
    made = fit_projection(maps, 1)(maps).flatten()
    cells = maps.permute(0, 2, 3, 1).reshape(-1, 4).double().numpy()
    white = (cells - cells.mean(0)) / cells.std(0, ddof=1)
    u = np.linalg.svd(white, full_matrices=False)[0][:, 0]
    assert abs(np.corrcoef(u, made)[0, 1]) == pytest.approx(1, abs=1e-6)


def test_a_dead_channel_stays_finite():
    maps = torch.randn(4, 5, 4, 4)
    maps[:, 2] = 7
    for components in (3, 8):
        assert torch.isfinite(fit_projection(maps, components)(maps)).all()


# Crops


def test_crops_are_a_function_of_the_seeds(pictures):
    first = crops(pictures, config(), 1, 6)
    assert (first.shape, first.dtype) == ((6, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(first, crops(pictures, config(), 1, 6))
    assert not np.array_equal(first, crops(pictures, config(), 2, 6))
    assert not np.array_equal(first, crops(pictures, config(seed=1), 1, 6))
    assert all(one.std() > 0 for one in first)


def test_drawn_pictures_need_no_photographs():
    assert crops([], config(synthetic=1.0), 0, 2).std() > 0


def test_a_picture_smaller_than_a_crop():
    tiny = np.random.default_rng(0).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    assert crops([tiny], config(), 0, 4).shape == (4, 32, 32, 3)


# Distillation


@pytest.fixture(scope="module")
def distilled(pictures):
    steps = []
    teachers = [Teacher(seed=0), Teacher(strides=(2, 4, 8, 16), seed=1, gain=100.0)]
    student, record = distill(teachers, pictures, config(), lambda step, loss: steps.append((step, loss)))
    return teachers, student, record, steps


def test_it_learns(distilled, pictures):
    teachers, student, record, steps = distilled
    assert [step for step, _ in steps] == list(range(1, config().steps + 1))
    assert config().steps == 40 == record["steps"]
    assert np.mean([loss for _, loss in steps[-5:]]) < 0.6 * np.mean([loss for _, loss in steps[:3]])
    assert not student.training
    untrained = Student(student.config).eval()
    projections = fit_projections(teachers, crops(pictures, config(), 10**6, 512), config())
    before = explained_variance(untrained, teachers, projections, pictures, config())
    after = record["explained_variance"]
    assert all(b < a for a, b in zip(after, before, strict=True)), (before, after)
    assert after[0] > 0.3


def test_heads_are_as_wide_as_the_targets_of_all_teachers(distilled):
    _, student, _, _ = distilled
    assert student.config.heads == (4 + 4, 6 + 6, 6 + 6)
    assert student.config.widths == SMALL.widths


def test_the_record_is_plain(distilled, tmp_path):
    _, student, record, _ = distilled
    assert [t["name"] for t in record["teachers"]] == ["teacher0", "teacher1"]
    assert record["pictures"] == 4
    save_student(tmp_path / "mine", student, record)
    loaded = load_invad_s(tmp_path / "mine.safetensors")
    x = torch.rand(1, 3, 64, 96)
    for a, b in zip(loaded(x), student.trunk((x - loaded.mean) / loaded.std), strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)  # kept in half precision


def test_it_goes_on_from_a_student(distilled, pictures):
    """Two more steps at a rate of almost nothing keep the trunk; without a start it is somewhere else."""
    teachers, student, _, _ = distilled
    still = config(pools=1, pool=8, reuse=2, lr=1e-9, weight_decay=0.0)
    further, _ = distill(teachers, pictures, still, start=student)
    anew, _ = distill(teachers, pictures, still)
    kept = [k for k, v in student.state_dict().items() if v.ndim == 4 and not k.startswith("heads.")]
    for name in kept:
        torch.testing.assert_close(further.state_dict()[name], student.state_dict()[name])
    assert not torch.allclose(anew.state_dict()[kept[0]], student.state_dict()[kept[0]], atol=1e-3)


def test_a_start_of_another_shape(distilled, pictures):
    other = config(student=StudentConfig(stem=8, widths=(8, 12, 20), blocks=(0, 0, 0)))
    with pytest.raises(ConfigError, match=r"^start: is StudentConfig"):
        distill([Teacher()], pictures, other, start=distilled[1])


def test_it_repeats(pictures):
    short = config(pools=1, reuse=1)
    first, _ = distill([Teacher()], pictures, short)
    torch.rand(3)
    second, _ = distill([Teacher()], pictures, short)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_teacher_without_a_stride(pictures):
    with pytest.raises(ConfigError, match=r"teacher teacher0: no map at stride \[16\]"):
        distill([Teacher(strides=(4, 8))], pictures, config())


def test_a_loss_that_explodes(pictures):
    with pytest.raises(TrainingError, match=r"step \d+: the loss is .*lower distill\.lr"):
        distill([Teacher()], pictures, config(lr=1e30))


@pytest.mark.parametrize(
    "changed", [{"pools": 1, "reuse": 2, "pool": 8}, {"warmup": 0}, {"warmup": 1}, {"warmup": 10**6}]
)
def test_any_warmup_and_any_length_run(pictures, changed):
    short = config(**{"pools": 1, "reuse": 3, "pool": 8, **changed})
    assert distill([Teacher()], pictures, short)[1]["steps"] == short.steps


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pools": 0}, r"distill\.pools = 0"),
        ({"batch": 0}, r"distill\.batch = 0"),
        ({"reuse": 0}, r"distill\.reuse = 0"),
        ({"pool": 7}, r"distill\.pool = 7: give at least distill\.batch = 8"),
        ({"pools": 1, "reuse": 1, "pool": 8}, "it is one step"),
        ({"crop": 40}, r"distill\.crop = 40"),
        ({"crop": 16}, r"distill\.crop = 16"),
        ({"components": (4, 4)}, r"distill\.components"),
    ],
)
def test_values_out_of_range(changed, words):
    with pytest.raises(ConfigError, match=words):
        config(**changed)


def test_pictures_are_read_as_eight_bits(pictures, tmp_path):
    with pytest.raises(DataError, match="no pictures to distil on"):
        load_pictures(tmp_path)
    Image.fromarray(pictures[0]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_pictures(tmp_path)[0], pictures[0])
    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: uint16"):
        load_pictures(tmp_path)
