import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import invad.fit.state
from invad.diffusion.denoiser import DenoiserConfig, build_denoiser
from invad.errors import ConfigError, TrainingError
from invad.fit.training import Checkpoint, Execution, _loss, draw, fingerprint, train_denoiser
from invad.model.settings import TrainConfig
from invad.model.space import Standardiser

CPU = torch.device("cpu")
SHORT = TrainConfig(steps=20, batch=4, warmup=3, seed=7)
NET = DenoiserConfig(kind="mlp", width=16, depth=1, mlp_ratio=1.0)


def features(n=12, channels=4, seed=0):
    """Features of one direction per cell with a little noise: easy to tell from Gaussian noise."""
    rng = np.random.default_rng(seed)
    pattern = rng.normal(size=(1, channels, 3, 5)) * 2
    return (pattern + 0.1 * rng.normal(size=(n, channels, 3, 5))).astype(np.float32)


def train(config=SHORT, z=None, index=None, **options):
    z = features() if z is None else z
    index = np.arange(len(z)) if index is None else index
    torch.manual_seed(3)
    net = build_denoiser(options.pop("net", NET), z.shape[1], z.shape[2:])
    loss = train_denoiser(net, _standardised(z, index), index, config, device=CPU, **options)
    return net, loss


def _standardised(z, index):
    return Standardiser.fit(z, index)(torch.from_numpy(np.asarray(z))).numpy()


def assert_same(net, other):
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def stop_at(k):
    def on_step(step, loss):
        if step == k:
            raise KeyboardInterrupt

    return on_step


@pytest.fixture
def checkpoint(tmp_path):
    return Checkpoint(tmp_path / "work" / "denoiser.safetensors", "mark")


# Training


def test_a_step_draws_the_same_whatever_was_drawn_before():
    z, index = features(), np.array([2, 3, 9])
    first = draw(z, index, 1000, SHORT, 5)
    torch.randn(100)
    for a, b in zip(first, draw(z, index, 1000, SHORT, 5), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[2], draw(z, index, 1000, SHORT, 6)[2])
    assert not torch.equal(first[2], draw(z, index, 1000, replace(SHORT, seed=8), 5)[2])
    for one in first[0]:
        assert any(np.array_equal(one, z[i]) for i in index)


@pytest.mark.parametrize(("way", "shape"), [("images", (4,)), ("cells", (4, 3, 1))])
def test_levels_are_those_of_an_image_or_a_row_of_cells(way, shape):
    z, index, config = features(), np.arange(12), replace(SHORT, draw=way)
    first = draw(z, index, 1000, config, 5)
    assert first[1].shape == shape
    for a, b in zip(first, draw(z, index, 1000, config, 5), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[1], draw(z, index, 1000, config, 6)[1])
    drawn = torch.cat([draw(z, index, 1000, config, step)[1].flatten() for step in range(200)])
    assert 0 <= drawn.min() < drawn.max() < 1000
    early = ((drawn >= 20) & (drawn < 400)).float().mean().item()
    assert early == pytest.approx(0.7 + 0.3 * 0.38, abs=0.05)


def test_cells_come_from_their_place_in_the_chosen_images():
    z, index = np.zeros((12, 4, 3, 5), np.float32), np.array([1, 4, 6, 7])
    z += 100 * np.arange(12)[:, None, None, None] + np.arange(15).reshape(3, 5)
    drawn = draw(z, index, 1000, replace(SHORT, draw="cells"), 0)[0].numpy()
    assert (drawn == drawn[:, :1]).all()
    assert (drawn % 100 == np.arange(15).reshape(3, 5)).all()
    assert set((drawn // 100).astype(int).flatten()) == set(index)
    assert all(len(set((one // 100).flatten())) > 2 for one in drawn)


def test_the_loss_is_the_same_with_the_level_of_an_image_written_for_every_cell():
    z, t, noise = draw(features(), np.arange(12), 1000, SHORT, 5)
    abar = torch.linspace(0.99, 0.01, 1000)
    net, _ = train(net=replace(NET, gaussian=True))
    with torch.no_grad():
        whole = _loss(net, z, t, noise, abar[t], bf16=False)
        for w in (1, 5):
            own = t[:, None, None].expand(4, 3, w)
            torch.testing.assert_close(_loss(net, z, own, noise, abar[own], bf16=False), whole)


def test_parts_of_a_step_have_their_levels():
    config = replace(SHORT, draw="cells")
    net, loss = train(config)
    parts, again = train(config, execution=Execution(accumulate=3))
    assert again == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(parts.state_dict(), net.state_dict(), rtol=1e-3, atol=1e-5)


def test_drawing_cells_is_refused_where_cells_see_each_other():
    dit = DenoiserConfig(kind="dit", width=16, depth=1, heads=2, gaussian=True)
    with pytest.raises(ConfigError, match=r"^train\.draw = cells: .*; give images$"):
        train(replace(SHORT, draw="cells"), net=dit)


def test_the_loss_falls():
    losses = []
    config = TrainConfig(steps=300, batch=8, warmup=20, lr=3e-3)
    net, last = train(
        config, net=replace(NET, width=64, depth=2), on_step=lambda s, loss: losses.append(loss)
    )
    assert np.mean(losses[:5]) == pytest.approx(1, abs=0.15)
    assert last < 0.4
    assert last == pytest.approx(np.mean(losses[-30:]))
    assert not net.training


def test_the_same_seed_gives_the_same_bits():
    net, loss = train()
    torch.rand(7)
    again, repeated = train()
    assert_same(net, again)
    assert loss == repeated
    other, _ = train(replace(SHORT, seed=8))
    assert not torch.equal(next(net.parameters()), next(other.parameters()))


def test_only_the_chosen_images_are_trained_on():
    z, index = features(), np.array([0, 2, 4])
    spoilt = z.copy()
    spoilt[[1, 3]] = np.nan
    assert_same(train(z=z, index=index)[0], train(z=spoilt, index=index)[0])


def test_the_kept_weights_are_an_average():
    """With ema = 0 they are the last ones; the average of the others lags behind."""
    last, lagging = train(replace(SHORT, ema=0.0))[0], train(replace(SHORT, ema=0.99))[0]
    assert not torch.equal(next(last.parameters()), next(lagging.parameters()))


@pytest.mark.parametrize(
    ("k", "way"), [(1, "images"), (2, "cells"), (7, "images"), (19, "cells"), (20, "images")]
)
def test_interrupted_and_resumed_is_the_same_as_never_interrupted(checkpoint, k, way):
    config = replace(SHORT, draw=way)
    whole, loss = train(config)
    with pytest.raises(KeyboardInterrupt):
        train(config, checkpoint=checkpoint, on_step=stop_at(k))
    steps = []
    resumed, again = train(config, checkpoint=checkpoint, on_step=lambda step, loss: steps.append(step))
    assert steps == list(range(k + 1, 21))
    assert_same(whole, resumed)
    assert loss == again


def test_interrupted_twice(checkpoint):
    for k in (3, 9):
        with pytest.raises(KeyboardInterrupt):
            train(checkpoint=checkpoint, on_step=stop_at(k))
    assert_same(train()[0], train(checkpoint=checkpoint)[0])


def test_a_finished_training_is_not_repeated(checkpoint):
    net, loss = train(checkpoint=checkpoint)
    steps = []
    again, repeated = train(checkpoint=checkpoint, on_step=lambda step, loss: steps.append(step))
    assert steps == []
    assert_same(net, again)
    assert loss == repeated


@pytest.fixture
def listens_to_ctrl_c():
    """A shell starts background jobs deaf to it, and the suite may be one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.alone
@pytest.mark.usefixtures("listens_to_ctrl_c")
def test_a_real_ctrl_c_waits_for_the_end_of_the_step(checkpoint, monkeypatch):
    """Pressed in the middle of an update, which a plain interrupt would tear."""
    clip = torch.nn.utils.clip_grad_norm_
    seen = []

    def pressed(*arguments):
        seen.append(1)
        if len(seen) == 6:
            signal.raise_signal(signal.SIGINT)
        return clip(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", pressed)
        with pytest.raises(KeyboardInterrupt):
            train(checkpoint=checkpoint)
    assert len(seen) == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_same(train()[0], train(checkpoint=checkpoint)[0])


@pytest.mark.alone
@pytest.mark.usefixtures("listens_to_ctrl_c")
def test_a_second_ctrl_c_does_not_save_a_torn_step(checkpoint, monkeypatch):
    def twice(*arguments):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", twice)
        with pytest.raises(KeyboardInterrupt):
            train(checkpoint=checkpoint)
    assert not checkpoint.path.exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_works_in_a_thread():
    made = []
    thread = threading.Thread(target=lambda: made.append(train()))
    thread.start()
    thread.join()
    assert len(made) == 1


def test_a_checkpoint_is_written_as_time_passes(checkpoint):
    often = replace(checkpoint, every_seconds=0.0)
    seen = []

    def on_step(step, loss):
        if often.path.exists():
            with safe_open(often.path, framework="pt") as file:
                seen.append(int(file.metadata()["step"]))

    train(checkpoint=often, on_step=on_step)
    assert seen == list(range(1, 20))


# What goes wrong


def test_a_checkpoint_of_something_else_is_refused(checkpoint):
    train(checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="belongs to other data or options"):
        train(checkpoint=replace(checkpoint, fingerprint="other"))


@pytest.mark.parametrize("content", [b"", b"junk", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_an_unreadable_checkpoint_is_refused(checkpoint, content):
    checkpoint.path.parent.mkdir()
    checkpoint.path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"unreadable checkpoint .*; delete it and train anew"):
        train(checkpoint=checkpoint)


def test_a_checkpoint_whose_share_is_gone_is_not_to_be_deleted(checkpoint, monkeypatch):
    train(checkpoint=checkpoint)

    def stale(*args, **options):
        raise OSError("Stale file handle (os error 116)")  # as safetensors says it

    monkeypatch.setattr("invad.fit.state.safe_open", stale)
    with pytest.raises(TrainingError) as caught:
        train(checkpoint=checkpoint)
    assert str(caught.value) == f"{checkpoint.path}: Stale file handle; is the share mounted?"


def test_a_foreign_file_of_tensors_is_refused(checkpoint):
    checkpoint.path.parent.mkdir()
    save_file({"a": torch.ones(1)}, checkpoint.path)
    with pytest.raises(TrainingError, match="belongs to other data"):
        train(checkpoint=checkpoint)


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "work").write_text("mine")
    with pytest.raises(TrainingError, match=r"cannot be written: File exists; choose another name"):
        train(checkpoint=Checkpoint(tmp_path / "work" / "denoiser.safetensors", "mark"))
    assert [p.name for p in tmp_path.iterdir()] == ["work"]


def test_a_full_disk_keeps_the_checkpoint_before(checkpoint, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=checkpoint, on_step=stop_at(5))
    before = checkpoint.path.read_bytes()

    def full(path, tensors, meta):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(invad.fit.state, "save_tensors", full)
        with pytest.raises(TrainingError, match=r"denoiser\.safetensors: .*No space left"):
            train(checkpoint=checkpoint)
    assert [p.name for p in checkpoint.path.parent.iterdir()] == [checkpoint.path.name]
    assert checkpoint.path.read_bytes() == before
    assert_same(train()[0], train(checkpoint=checkpoint)[0])


def test_features_that_are_not_numbers():
    z = features()
    z[3, 1, 0, 0] = np.nan
    with pytest.raises(TrainingError, match=r"step 1: the loss is nan; check the images .*train\.lr"):
        train(z=z)


def test_a_learning_rate_that_explodes(checkpoint):
    with pytest.raises(TrainingError, match=r"step 2: the loss is .*lower train\.lr \(1e\+30\)"):
        train(TrainConfig(steps=20, batch=4, warmup=0, lr=1e30), checkpoint=checkpoint)
    assert not checkpoint.path.exists()


def test_weights_that_explode_in_the_last_step(monkeypatch):
    def spoil(parameters, limit):
        for parameter in parameters:
            parameter.grad.fill_(torch.nan)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoil)
    with pytest.raises(TrainingError, match="step 1: a weight is not a finite number"):
        train(TrainConfig(steps=1, batch=4))


def test_fingerprints_tell_apart():
    assert fingerprint("a", [1], {"x": 1}) == fingerprint("a", [1], {"x": 1})
    assert len({fingerprint("a", 1), fingerprint("a", 2), fingerprint("b", 1), fingerprint("a", "1")}) == 4


@pytest.mark.parametrize(
    ("config", "images", "steps"),
    [
        (TrainConfig(), 192, 600),
        (TrainConfig(), 20, 150),
        (TrainConfig(steps=7), 192, 7),
        (TrainConfig(epochs=10, batch=4, min_steps=1), 8, 20),
    ],
)
def test_steps_grow_with_the_images_unless_given(config, images, steps):
    assert config.steps_for(images) == steps
