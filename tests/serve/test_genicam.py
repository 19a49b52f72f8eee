"""Industrial cameras: the producer that comes with the package genicam, and pixels of every format."""

import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from greys import Greys
from invad.data.png import encode_png
from invad.errors import ConfigError, DataError
from invad.serve import Options, Service
from invad.serve.plant import genicam
from invad.serve.plant.feeds import described
from invad.serve.plant.genicam import pixels_of
from invad.serve.plant.lineup import Station
from invad.serve.plant.making import made_source, opened_feed
from invad.serve.plant.sources import GenicamSource
from invad.serve.store.results import Query
from waiting import waits

pytest.importorskip("harvesters", reason="needs invad[genicam]")


@pytest.fixture(scope="module")
def producer():
    import genicam

    found = Path(genicam.__file__).parent / "viky.cti"
    if not found.exists():
        pytest.skip("this version of the package genicam brings no producer")
    return str(found)


def settings(producer, **keys):
    return GenicamSource(kind="genicam", producer=str(producer), **keys)


def test_frames_of_a_producer_are_parts(producer, tmp_path):
    chosen = settings(producer, serial="0", nodes={"PixelFormat": "Mono8"}, policy="trigger")
    other = settings(producer, serial="1", policy="latest")
    with Service(Greys(), tmp_path / "line", options=Options(reserve=0)) as service:
        service.add_station("second")
        sources = [
            made_source(service, Station(name=name, model="m", source=one), one)
            for name, one in (("default", chosen), ("second", other))
        ]
        for one in sources:  # two cameras of one producer
            one.start()
        waits(lambda: sources[0].state().problem is None and sources[1].state().taken >= 2)
        found = sources[0].take("7", None, "a").result(60)
        for one in sources:
            one.close()
        assert (found.source, found.part_id, found.width, found.height) == ("genicam", "7", 400, 400)
        assert found.score == pytest.approx(254, abs=2)
        page, _ = service.history(Query(station="second"))
        assert {(one.result.width, one.result.height) for one in page} == {(400, 400)}
        kept = service.picture(service.result(found.id), "image")
    assert kept.startswith(encode_png(np.zeros((400, 400), np.uint8))[:33])  # a grey PNG of 8 bits
    assert not genicam._PRODUCERS


def test_a_camera_says_what_it_sends_and_leaves_ctrl_c_alone(producer):
    before = signal.getsignal(signal.SIGINT)
    feed = opened_feed(settings(producer, serial="2"))
    assert signal.getsignal(signal.SIGINT) is before
    assert described(feed, 1.0).words.startswith("400 x 400 pixels, 8 bit colour, ")
    feed.close()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "3 cameras are there; give a serial of: 0, 1, 2"),
        ({"serial": "9"}, "serial 9: no such camera is there; found: 0, 1, 2"),
        ({"serial": "0", "nodes": {"Nope": 1}}, "nodes.Nope: the camera has no such node"),
        ({"serial": "0", "nodes": {"PixelFormat": "Mono77"}}, "nodes.PixelFormat = 'Mono77': "),
        ({"serial": "0", "nodes": {"Width": "wide"}}, "nodes.Width = 'wide': "),
    ],
)
def test_what_cannot_be_is_one_line(producer, keys, words):
    with pytest.raises((ConfigError, DataError)) as caught:
        opened_feed(settings(producer, **keys))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not genicam._PRODUCERS


def test_a_producer_that_is_not_there_or_none_is_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"none\.cti: no such file; give the \.cti of the camera's maker"):
        opened_feed(settings(tmp_path / "none.cti"))
    (tmp_path / "no.cti").write_text("no library")
    with pytest.raises(DataError, match=r"no\.cti"):
        opened_feed(settings(tmp_path / "no.cti"))
    monkeypatch.setitem(sys.modules, "harvesters", None)
    with pytest.raises(ConfigError, match=r"needs harvesters>=1\.4 .*; pip install 'invad\[genicam\]'"):
        opened_feed(settings(tmp_path / "no.cti"))


def part(name, data, height, width):
    return SimpleNamespace(data_format=name, data=data.ravel(), height=height, width=width)


@pytest.mark.parametrize(("name", "bits"), [("Mono10", 10), ("Mono12", 12), ("Mono14", 14), ("Mono16", 16)])
def test_every_level_of_deep_grey_survives(name, bits):
    levels = np.arange(2**bits, dtype=np.uint16).reshape(2**4, -1)
    pixels = pixels_of(part(name, levels, *levels.shape))
    assert pixels.dtype == np.uint16
    assert (pixels[0, 0], pixels[-1, -1]) == (0, 65535)
    assert (np.diff(pixels.ravel().astype(int)) > 0).all()
    assert np.abs(pixels.ravel() - np.arange(2**bits) * (65535 / (2**bits - 1))).max() <= 1


def test_formats_of_eight_bits():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (3, 7), np.uint8)  # rows of five pixels and two of padding
    assert np.array_equal(pixels_of(part("Mono8", grey, 3, 5)), grey[:, :5])
    colours = rng.integers(0, 256, (3, 5, 4), np.uint8)
    assert np.array_equal(pixels_of(part("RGB8", colours[..., :3].copy(), 3, 5)), colours[..., :3])
    assert np.array_equal(pixels_of(part("BGR8", colours[..., 2::-1].copy(), 3, 5)), colours[..., :3])
    assert np.array_equal(pixels_of(part("RGBa8", colours, 3, 5)), colours[..., :3])
    assert np.array_equal(pixels_of(part("BGRa8", colours[..., [2, 1, 0, 3]].copy(), 3, 5)), colours[..., :3])
    with pytest.raises(ConfigError, match=r"pixel format YUV422_8: set nodes\.PixelFormat to one of Mono8, "):
        pixels_of(part("YUV422_8", grey, 3, 5))


@pytest.mark.parametrize(("name", "red"), [("RG", (0, 0)), ("GR", (0, 1)), ("GB", (1, 0)), ("BG", (1, 1))])
def test_a_mosaic_of_one_colour_is_that_colour(name, red):
    pytest.importorskip("av", reason="needs invad[camera]")
    mosaic = np.zeros((16, 16), np.uint8)
    mosaic[red[0] :: 2, red[1] :: 2] = 200
    pixels = pixels_of(part(f"Bayer{name}8", mosaic, 16, 16))
    assert pixels.shape == (16, 16, 3)
    inner = pixels[4:-4, 4:-4].reshape(-1, 3)
    assert (inner == (200, 0, 0)).all()
