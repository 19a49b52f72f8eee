import socket
import time

import pytest
import torch
from huggingface_hub import constants

from invad.backbones.hub import cached_weights, require_hub
from invad.errors import WeightsError
from invad.system import network

CONFIG = {"hf_hub_id": "timm/net.tag"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A hub cache as the hub's client lays it out."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--timm--net.tag" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--timm--net.tag" / "refs").mkdir()
    (tmp_path / "models--timm--net.tag" / "refs" / "main").write_text("abc")
    return snapshot


@pytest.fixture
def offline(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_cached_file_is_found(cache, name):
    assert cached_weights(CONFIG) is None
    (cache / name).write_bytes(b"x")
    assert cached_weights(CONFIG) == cache / name
    assert cached_weights({"hf_hub_id": "timm/other"}) is None
    assert cached_weights({**CONFIG, "hf_hub_filename": "own.bin"}) is None


def test_the_cache_of_torch(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    config = {"url": "https://example.org/files/net-12.pth"}
    assert cached_weights(config) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "net-12.pth").write_bytes(b"x")
    assert cached_weights(config) == tmp_path / "checkpoints" / "net-12.pth"
    assert cached_weights({}) is None


@pytest.mark.parametrize(
    ("config", "variable"), [(CONFIG, "HF_HOME"), ({"url": "https://example.org/net.pth"}, "TORCH_HOME")]
)
def test_a_user_without_a_home_is_told_what_to_set(config, variable, monkeypatch):
    """Both libraries would make a folder called `~` where the user stands."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "~/.cache/torch/hub")
    with pytest.raises(WeightsError, match=f"no home folder .* set {variable} to a folder"):
        require_hub("net", config)


def test_a_server_that_answers(offline, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        require_hub("net", CONFIG)


def test_a_server_that_refuses(offline, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1 cannot be reached") as caught:
        require_hub("net", CONFIG)
    for way in ("backbone net", "invad-s", "--weights FILE", "HF_HOME"):
        assert way in str(caught.value)


def test_a_network_that_swallows_everything(offline, monkeypatch):
    """As behind a firewall that drops packets, or a name server that is gone."""
    monkeypatch.setattr(network, "PATIENCE", 0.2)

    def wait(*arguments, **options):
        time.sleep(1.0)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", wait)
    started = time.monotonic()
    with pytest.raises(WeightsError, match="cannot be reached"):
        require_hub("net", CONFIG)
    assert time.monotonic() - started < 0.9
    time.sleep(1.0)  # let the thread end


def test_a_proxy_is_left_to_the_client(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.invalid")
    require_hub("net", CONFIG)


def test_offline_by_choice(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        require_hub("net", CONFIG)


def test_weights_that_nobody_published():
    with pytest.raises(WeightsError, match="timm knows no weights for it; give --weights FILE"):
        require_hub("net", {})
