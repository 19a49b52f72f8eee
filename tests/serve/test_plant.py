"""Stations by file, and folders whose images are parts."""

import json
import os
import re
import resource
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from greys import Greys, png
from invad import runtime
from invad.errors import ConfigError
from invad.serve import Options, Service
from invad.serve.plant import folder
from invad.serve.plant.controllers import OpcUaController, OpcUaNodes
from invad.serve.plant.folder import FolderWatch
from invad.serve.plant.found import is_taken, move
from invad.serve.plant.lineup import SMALLEST, Station, example, read_lineup
from invad.serve.plant.opcua.settings import OpcUa
from invad.serve.plant.outputs import OpcUaOutput, WebhookOutput
from invad.serve.plant.plant import Plant
from invad.serve.plant.sources import FolderSource
from invad.serve.store import stations
from invad.serve.store.results import Query
from waiting import waits

# The file


def read(tmp_path, text):
    path = tmp_path / "line.toml"
    path.write_text(text)
    return read_lineup(path, tmp_path / "line")


def test_the_examples_say_what_they_mean(tmp_path):
    (one,) = read(tmp_path, SMALLEST).station
    assert (one.name, one.model, one.category) == ("press-1", str(tmp_path / "model"), None)
    assert one.source == FolderSource(kind="folder", path=str(tmp_path / "incoming"))
    first, second, third, fourth, fifth, sixth = read(tmp_path, example()).station
    assert first.source.done == str(tmp_path / "done" / "press-1")
    webhook, broker, events, *files, people = first.output
    assert webhook == WebhookOutput(
        kind="webhook",
        url="http://127.0.0.1:9000/results",
        secret_variable="INVAD_WEBHOOK_SECRET",
        decisions=("review", "bad"),
    )
    assert (broker.host, broker.port, broker.name) == ("broker.example", 8883, "broker")
    tls = (broker.ca_file, broker.certificate, broker.private_key)
    assert tls == tuple(str(tmp_path / name) for name in ("plant-ca.pem", "invad.pem", "invad.key"))
    assert events == OpcUaOutput(kind="opcua", taken="received")
    assert sixth.controller.broker == replace(broker, address=None, name="mqtt")
    assert read(tmp_path, example()).opcua == OpcUa()
    assert (people.quiet, people.name) == (10.0, "people")
    assert [one.path for one in files] == [str(tmp_path / name) for name in ("results", "tables", "pictures")]
    assert (second.name, second.source, second.output) == ("press-2", None, ())
    assert (third.source.url, third.source.policy) == ("rtsp://192.168.0.20/stream1", "every")
    assert third.source.options == {"rtsp_transport": "tcp"}
    assert fourth.source.nodes == {"PixelFormat": "Mono12", "ExposureTime": 5000.0}
    assert second.controller == OpcUaController(kind="opcua")
    assert fifth.controller.nodes.given.keys() == {one.name for one in fields(OpcUaNodes)}


STATION = '[[station]]\nname = "a"\nmodel = "m"\n'
SOURCE = '[station.source]\nkind = "folder"\npath = "in"\n'
OUTPUT = '[[station.output]]\nkind = "webhook"\nurl = "http://127.0.0.1:1/"\n'
CAMERA = f'{STATION}[station.source]\nkind = "camera"\n'
GENICAM = f'{STATION}[station.source]\nkind = "genicam"\nproducer = "a.cti"\n'
WRITTEN = '[[station.output]]\nkind = "folder"\npath = "in/out"\n'
DATA = "station b: the data folder .*line lies in its source .*line; the images that it keeps would be judged"
OTHER = '[[station]]\nname = "b"\nmodel = "m"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[station]\n", "line.toml: "),
        ("", "line.toml: key 'station' is missing"),
        ("station = []\n", "no \\[\\[station\\]\\]; see 'invad serve init'"),
        (f"{STATION}colour = 1\n", "unknown key 'station.a.colour'; known keys are category, controller"),
        ('[[station]]\nname = "a"\n', "key 'station.a.model' is missing"),
        ('[[station]]\nname = "A b"\nmodel = "m"\n', "station 'A b': give up to 64 small letters"),
        (STATION + STATION, "station a is there 2 times"),
        (f'{STATION}[station.source]\nkind = "lamp"\npath = "in"\n', "station.a.source.kind = 'lamp'"),
        (f'{CAMERA}url = ""\n', "url = '': give an address, a device such as /dev/video0 or a video file"),
        (f'{CAMERA}url = "ftp://a/b"\n', "url = 'ftp://a/b': give one that begins with http, https, rtsp"),
        (f'{CAMERA}url = "rtsp:///b"\n', "url = 'rtsp:///b': give one that begins with"),
        (f'{CAMERA}url = "rtsp://me:secret@a/b"\n', "url = 'rtsp://a/b': put user:password in a variable"),
        (f'{CAMERA}url = "a.mkv"\nlogin_variable = "A"\n', "login_variable: a device or a file asks for no"),
        (f'{CAMERA}url = "/dev/video0"\nloop = true\n', "loop = true: only a video file is played again"),
        (f'{CAMERA}url = "a.mkv"\npolicy = "latest"\n', "policy = 'latest': a video file waits until"),
        (f'{CAMERA}url = "a.mkv"\npolicy = "some"\n', "policy = 'some': expected one of every, latest"),
        (f'{CAMERA}url = "a.mkv"\ntimeout = 0\n', "timeout = 0: give 0.1 to 3600 seconds"),
        (f'{CAMERA}url = "a.mkv"\ninterval = -1\n', "interval = -1: give 0 to 3600 seconds"),
        (f'{CAMERA}url = "a.mkv"\noptions = {{ rate = 1 }}\n', "source.options.rate = 1: expected a string"),
        (
            f'{CAMERA}url = "/dev/video0"\n{OTHER}[station.source]\nkind = "camera"\nurl = "/dev/video0"\n',
            "stations a and b would both use the camera /dev/video0",
        ),
        (f"{GENICAM}nodes = {{ Gain = [1] }}\n", r"nodes.Gain = \[1\]: give a number, a text, true or false"),
        (f"{GENICAM}lag = 1e9\n", "lag = 1e\\+09: give 0 to 60 seconds"),
        (f"{STATION}{SOURCE}settle = -1\n", "station.a.source: settle = -1: give 0 to 60 seconds"),
        (f"{STATION}deadline = 500\n", "deadline = 500: give 0.001 to 60 seconds, 0.5 for 500 ms"),
        (f"{STATION}{SOURCE}rescan = 0\n", "rescan = 0: give 0.05 to 3600 seconds"),
        (f'{STATION}{SOURCE}pattern = "a/*.png"\n', "pattern = 'a/\\*.png'"),
        (f'{STATION}[station.source]\npath = "in"\n', "key 'station.a.source.kind' is missing"),
        (
            f'{STATION}[[station.output]]\nkind = "fax"\nurl = "http://"\n',
            "output.0.kind = 'fax': expected one of",
        ),
        (f"{STATION}{OUTPUT}{OUTPUT}", "station.a: 2 outputs are called webhook; give each a name"),
        (f'{STATION}[[station.output]]\nkind = "webhook"\nurl = "x"\n', "url = 'x': give one that begins"),
        (f"{STATION}{OUTPUT}secret = 1\n", "unknown key 'station.a.output.0.secret'"),
        (f"{STATION}{SOURCE}{OTHER}{SOURCE}", "stations a and b would both take the images of .*in"),
        (f'{STATION}{SOURCE}done = "in"\n', "station a: done = .*in lies in its source"),
        (f'{STATION}{SOURCE}recursive = true\nfailed = "in/bad"\n', "failed = .*in/bad lies in its source"),
        (f"{STATION}{SOURCE}recursive = true\n{WRITTEN}", "a, output folder: .*in/out lies in the source of"),
        (
            f"{STATION}{WRITTEN}{OTHER}{SOURCE}recursive = true\n",
            "a, output folder: .* the source of station b",
        ),
        (f'{STATION}{SOURCE}done = "line"\n{OTHER}[station.source]\nkind = "folder"\npath = "line"\n', DATA),
        (
            f"{STATION}{OUTPUT}decisions = []\n",
            r"station.a: output webhook: decisions = \[\]: it would be told",
        ),
    ],
)
def test_what_a_file_of_stations_cannot_say_is_named(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("before", ["\ufeff", "# Prüfung\r\n"])
def test_a_file_from_an_editor_of_windows_is_read(tmp_path, before):
    (tmp_path / "line.toml").write_bytes((before + SMALLEST.replace("\n", "\r\n")).encode())
    assert read_lineup(tmp_path / "line.toml").station[0].name == "press-1"


def test_plain_images_may_go_on_to_another_station(tmp_path):
    passed_on = f'{STATION}{WRITTEN}picture = "image"\n{OTHER}{SOURCE}recursive = true\n'
    assert len(read(tmp_path, passed_on).station) == 2


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        read_lineup(tmp_path / "none.toml")
    (tmp_path / "line.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        read_lineup(tmp_path / "line.toml")


# A folder


def put(path, content):
    """As a careful writer does: whole at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name("." + path.name)
    partial.write_bytes(content)
    partial.replace(path)


def last(service, count):
    """The newest results, newest first."""
    return [stored.result for stored in service.history(Query(limit=count))[0]]


class Watched(Service):
    """What a test looks at."""


class Stand:
    """A service and one watched folder."""

    def __init__(self, tmp_path):
        self.tmp_path, self.place = tmp_path, tmp_path / "in"
        self.place.mkdir(exist_ok=True)
        self.source = FolderSource(kind="folder", path=str(self.place), settle=0.02, rescan=0.05)

    @contextmanager
    def running(self, detector=None, station="press-1", category=None, options=None, **source):
        options = Options(reserve=0, batch=4, wait_seconds=1, **(options or {}))
        one = Station(name=station, model="-", category=category)
        with Watched({station: detector or Greys()}, self.tmp_path / "line", options=options) as service:
            watch = FolderWatch(service, one, replace(self.source, **source))
            watch.start()
            try:
                yield service, watch
            finally:
                watch.close()

    def scores(self, service):
        """By part, of all results."""
        return sorted((one.part_id, one.score) for one in last(service, 1000))


@pytest.fixture
def stand(tmp_path):
    return Stand(tmp_path)


def test_images_are_taken_in_the_order_of_their_times_and_stay(stand, monkeypatch):
    for i in range(5):
        put(stand.place / f"p{i}.png", png(10 * i))
        os.utime(stand.place / f"p{i}.png", (1e9 - i, 1e9 - i))
    order = []

    def submit(service, part):
        order.append(part.part_id)
        return Service.submit(service, part)

    monkeypatch.setattr(Watched, "submit", submit, raising=False)
    with stand.running() as (service, watch):
        waits(lambda: watch.state().taken == 5)
        assert order == ["p4", "p3", "p2", "p1", "p0"]
        newest = next(one for one in last(service, 5) if one.part_id == "p0")
        assert (newest.station, newest.source, newest.score) == ("press-1", "folder", 0)
        put(stand.place / "late.png", png(7))
        waits(lambda: watch.state().taken == 6)
        assert len(list(stand.place.iterdir())) == 6
        assert (watch.state().waiting, watch.state().problem) == (0, None)


def test_a_later_start_reads_nothing_twice(stand):
    put(stand.place / "a.png", png(1))
    with stand.running() as (service, watch):
        waits(lambda: watch.state().taken == 1)
    with stand.running() as (service, watch):
        put(stand.place / "b.png", png(2))
        waits(lambda: watch.state().taken == 1)
        assert stand.scores(service) == [("a", 1), ("b", 2)]


def test_a_part_is_its_path_and_content(stand):
    """Touched it is the same part, overwritten another one, and so is the same picture elsewhere."""
    first = stand.place / "a.png"
    put(first, png(1))
    with stand.running(recursive=True) as (service, watch):
        waits(lambda: watch.state().taken == 1)
        os.utime(first)
        waits(lambda: watch.state().taken == 2)
        assert len(stand.scores(service)) == 1
        put(first, png(2))
        put(stand.place / "tray" / "a.png", png(1))
        waits(lambda: len(stand.scores(service)) == 3)
        assert stand.scores(service) == [("a", 1), ("a", 1), ("a", 2)]


def test_judged_images_are_moved_and_none_is_overwritten(stand):
    done = stand.tmp_path / "done"
    with stand.running(done=str(done), recursive=True) as (service, watch):
        for i in range(3):
            put(stand.place / "tray" / "a.png", png(i))
            waits(lambda i=i: watch.state().taken == i + 1 and not list(stand.place.rglob("*.png")))
        kept = sorted(path.read_bytes() for path in (done / "tray").iterdir())
        assert kept == sorted(png(i) for i in range(3))
        assert len(stand.scores(service)) == 3


def test_a_file_is_moved_whole_to_another_disk_or_stays(tmp_path):
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        path, done = tmp_path / "a.png", Path(other, "done")
        path.write_bytes(b"1" * 5000)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # as a disk that is full
            with pytest.raises(OSError, match="too large"):
                move(path, done / "a.png", "id")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (path.stat().st_size, list(done.iterdir())) == (5000, [])
        move(path, done / "a.png", "id")
        path.write_bytes(b"2")
        move(path, done / "a.png", "id")
        assert not path.exists()
        assert {one.name: one.read_bytes() for one in done.iterdir()} == {
            "a.png": b"1" * 5000,
            "a-id.png": b"2",
        }


def test_what_cannot_be_moved_stays_and_is_told(stand):
    taken = stand.tmp_path / "done"
    taken.write_text("a file")
    with stand.running(done=str(taken)) as (_, watch):
        put(stand.place / "a.png", png(1))
        waits(lambda: watch.state().note)
        assert watch.state().note.startswith("images that could not be moved and stay: 1, the last: ")
        assert (stand.place / "a.png").exists()


def test_an_image_that_grows_is_read_when_it_is_whole(stand):
    content = png(9, size=(200, 200))
    with stand.running(settle=0.3) as (service, watch):
        with (stand.place / "a.png").open("wb") as file:
            for i in range(0, len(content), len(content) // 8):
                file.write(content[i : i + len(content) // 8])
                file.flush()
                time.sleep(0.1)
        waits(lambda: watch.state().taken == 1)
        assert stand.scores(service) == [("a", 9)]
        assert watch.state().failed == 0


def test_what_cannot_be_read_is_named_once_and_put_away(stand, monkeypatch, caplog):
    monkeypatch.setattr(folder, "PATIENCE", 0.2)
    failed = stand.tmp_path / "failed"
    put(stand.place / "a.png", b"no picture")
    put(stand.place / "b.png", png(3))
    with stand.running(failed=str(failed)) as (service, watch):
        waits(lambda: watch.state().failed == 1 and watch.state().taken == 1)
        waits((failed / "a.png").exists)
        assert stand.scores(service) == [("b", 3)]
        (line,) = [one for one in caplog.messages if "cannot judge" in one]
        assert "a.png" in line
        text = service.metrics.text().decode()
        assert 'invad_source_files_total{outcome="failed",station="press-1"} 1.0' in text


def test_without_a_place_for_them_unreadable_images_stay_until_they_change(stand, monkeypatch):
    monkeypatch.setattr(folder, "PATIENCE", 0.1)
    put(stand.place / "a.png", b"no picture")
    with stand.running() as (_, watch):
        waits(lambda: watch.state().failed == 1)
    with stand.running() as (service, watch):
        put(stand.place / "b.png", png(1))
        waits(lambda: watch.state().taken == 1)
        assert watch.state().failed == 0
        put(stand.place / "a.png", png(2))
        waits(lambda: watch.state().taken == 2)
        assert stand.scores(service) == [("a", 2), ("b", 1)]


def test_what_the_disk_does_not_give_waits_and_is_tried_again(stand, monkeypatch, caplog):
    monkeypatch.setattr(folder, "PATIENCE", 0.1)
    (stand.place / "a.png").symlink_to("/proc/self/mem")  # a file whose first byte cannot be read
    with stand.running(failed=str(stand.tmp_path / "failed")) as (_, watch):
        waits(
            lambda: (watch.state().note or "").startswith(
                "images that cannot be read and wait: 1, the last: "
            )
        )
        time.sleep(0.2)
        assert (watch.state().waiting, watch.state().failed) == (1, 0)
        assert len([one for one in caplog.messages if "a.png and tries it again: " in one]) == 1
        put(stand.place / "a.png", png(3))
        waits(lambda: watch.state().taken == 1)
        assert watch.state().note is None


def test_a_fault_of_the_engine_costs_no_image(stand, monkeypatch):
    monkeypatch.setattr(folder, "PATIENCE", 0.1)
    put(stand.place / "a.png", png(5))
    put(stand.place / "b.png", png(6))
    with stand.running(Greys(fails=5), failed=str(stand.tmp_path / "failed")) as (service, watch):
        waits(lambda: watch.state().failed == 1 and watch.state().taken == 1)
        waits((stand.tmp_path / "failed" / "a.png").exists)
        assert stand.scores(service) == [("b", 6)]


def test_upper_and_lower_case_of_names_do_not_matter():
    """As cameras write them."""
    assert is_taken(Path("IMG_1.PNG"), "*.png")
    assert is_taken(Path("img_1.png"), "IMG_*.PNG")


def test_other_files_are_left_alone(stand, caplog):
    caplog.set_level("INFO")
    for name in ("notes.txt", "a.png.part", ".hidden.png", "b.jpg"):
        put(stand.place / name, png(1))
    put(stand.place / "a.png", png(2))
    with stand.running(pattern="*.png") as (service, watch):
        waits(lambda: watch.state().taken == 1)
        assert stand.scores(service) == [("a", 2)]
        assert watch.state().other == 3
        assert sum("notes.txt" in line for line in caplog.messages) == 1


def test_a_folder_that_goes_and_comes_back(stand, caplog):
    caplog.set_level("INFO")
    with stand.running() as (service, watch):
        put(stand.place / "a.png", png(1))
        waits(lambda: watch.state().taken == 1)
        stand.place.rename(stand.tmp_path / "away")
        waits(lambda: watch.state().problem)
        assert "No such file" in watch.state().problem
        assert 'invad_source_up{station="press-1"} 0.0' in service.metrics.text().decode()
        (stand.tmp_path / "away").rename(stand.place)
        put(stand.place / "b.png", png(2))
        waits(lambda: watch.state().taken == 2)
        waits(lambda: watch.state().problem is None)
        assert stand.scores(service) == [("a", 1), ("b", 2)]


def test_a_folder_that_is_empty_for_a_while_is_not_read_again(stand):
    """As a share that was not mounted: nothing there is new when it is back."""
    put(stand.place / "a.png", png(1))
    with stand.running() as (service, watch):
        waits(lambda: watch.state().taken == 1)
        (stand.place / "a.png").rename(stand.tmp_path / "a.png")
        time.sleep(0.3)
        (stand.tmp_path / "a.png").rename(stand.place / "a.png")
        put(stand.place / "b.png", png(2))
        waits(lambda: len(stand.scores(service)) == 2)
        time.sleep(0.2)
        assert watch.state().taken == 2


def test_a_full_line_holds_the_folder_and_drops_nothing(stand):
    for i in range(30):
        put(stand.place / f"{i:02d}.png", png(i))
    detector = Greys()
    detector.gate.clear()
    with stand.running(detector, options={"queue": 4}) as (service, watch):
        waits(lambda: service.line.under_way == 2)
        detector.gate.set()
        waits(lambda: watch.state().taken == 30)
        assert stand.scores(service) == [(f"{i:02d}", i) for i in range(30)]


def test_names_that_are_no_text_are_parts_as_any_other(stand, caplog):
    for name, level in ((os.fsdecode(b"\xff part.png"), 4), ("two\nlines.png", 5), (f"{'x' * 201}.png", 6)):
        (stand.place / name).write_bytes(png(level))
    with stand.running() as (service, watch), caplog.at_level("WARNING", "invad.serve"):
        waits(lambda: watch.state().taken == 3)
        names = {one.score: one.part_id for one in last(service, 10)}
        assert names == {4: r"\xff part", 5: r"two\nlines", 6: None}
    assert r"'two\nlines' is no part_id, so its part is two\nlines" in caplog.text
    assert "xxx' is no part_id, so its part has none" in caplog.text
    with stand.running() as (_, watch):
        put(stand.place / "b.png", png(1))
        waits(lambda: watch.state().taken == 1)


def test_a_station_with_a_category_is_judged_by_its_limits(stand):
    put(stand.place / "a.png", png(120))
    with stand.running(category="part") as (service, watch):
        waits(lambda: watch.state().taken == 1)
        (found,) = last(service, 5)
        assert (found.category, found.decision) == ("part", "good")


# Several stations


class Keeps(Greys):
    """Of another version."""

    content_hash = "1" * 64


def test_each_station_has_its_model_and_keeps_what_was_activated_since(tmp_path):
    first, second = Greys(), Keeps()
    options = Options(reserve=0)
    with Service({"a": first, "b": second}, tmp_path / "line", options=options) as service:
        assert service.active("a").hash[0] == "0"
        assert service.active("b").hash[0] == "1"
        assert {service.inspect(png(1), station=name).model_version[0] for name in "ab"} == {"0", "1"}
        service.take_models({"a": second, "c": first})
        assert [service.active(name).hash[0] for name in "abc"] == ["1", "1", "0"]
        assert service.add_station("d").active[0] == "1"
        calibrations = second.calibrations
        service.judging.switch(lambda c: stations.activate(c, "c", second.content_hash, calibrations, "anna"))
        service.take_models({"a": second, "c": first})
        assert service.active("c").hash[0] == "1"  # what she activated stays
        with service.database.read() as connection:
            assert stations.activated(connection, "c") == [second.content_hash, first.content_hash]
        service.take_models({"c": second})
        service.take_models({"c": first})
        assert service.active("c").hash[0] == "0"  # told another one since


def lines(tmp_path, bundle, *names, **source):
    """A line.toml with a watched folder for each name."""
    text = ""
    for name in names:
        (tmp_path / name).mkdir(exist_ok=True)
        text += f'[[station]]\nname = "{name}"\nmodel = "{bundle}"\n'
        text += f'[station.source]\nkind = "folder"\npath = "{name}"\nsettle = 0.05\nrescan = 0.2\n'
        text += "".join(f'{key} = "{value}"\n' for key, value in source.items())
    path = tmp_path / "line.toml"
    path.write_text(text)
    return path


def results(http, station):
    found = http.get("/api/v1/results", params={"station": station, "limit": 200}).json()["results"]
    return sorted((one["part_id"], one["score"]) for one in found)


def test_a_process_that_is_killed_loses_and_doubles_nothing(start, bundle, pictures, tmp_path):
    """And the score of a file is that of `predict`, also with sixteen bits."""
    good, bad = pictures
    place = tmp_path / "a"
    path = lines(tmp_path, bundle, "a", done="done")
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (64, 64), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    contents = {f"{i:03d}": [*good, *bad][i % 8] for i in range(40)} | {
        "deep": (tmp_path / "deep.png").read_bytes()
    }
    for name, content in contents.items():
        put(place / f"{name}.png", content)
    service = start(tmp_path / "line", model=path)
    with service.http() as http:
        waits(lambda: len(results(http, "a")) >= 5, 120)
    service.kill()
    again = start(tmp_path / "line", "--no-auth", model=path)
    detector = runtime.load(bundle, threads=1)
    expected = sorted((name, detector.predict(content).score) for name, content in contents.items())
    with again.http() as http:
        waits(lambda: not list(place.iterdir()), 120)
        assert results(http, "a") == expected
        assert sorted(path.stem for path in (tmp_path / "done").iterdir()) == sorted(contents)

        # Told anew, stations come and go, and a file that cannot be changes nothing.
        lines(tmp_path, bundle, "a", "b", done="done")
        again.process.send_signal(signal.SIGHUP)
        put(tmp_path / "b" / "new.png", good[0])
        # It is listed with its row, and answers for itself a moment later.
        waits(lambda: http.get("/api/v1/results", params={"station": "b"}).status_code == 200)
        waits(lambda: len(results(http, "b")) == 1)
        cards = http.get("/live/stations").text
        assert f"folder {tmp_path / 'b'}" in cards
        sources = {one["name"]: one["source"] for one in http.get("/api/v1/stations").json()["stations"]}
        assert sources["b"]["problem"] is None
        assert sources["b"]["taken"] == 1
        path.write_text("[[station]]\nname = 'a'\n")
        again.process.send_signal(signal.SIGHUP)
        waits(lambda: "reload" in http.get("/readyz").json()["checks"])
        assert "all stays as it was" in again.words()
        assert http.get("/readyz").json()["ready"]
        waits(lambda: "was not read again, and all stays as it was – " in http.get("/live/stations").text)
        assert "station.a.model&#39; is missing" in http.get("/live/stations").text
        put(tmp_path / "b" / "more.png", good[1])
        waits(lambda: len(results(http, "b")) == 2)
        lines(tmp_path, bundle, "a", "b", done="done")
        again.process.send_signal(signal.SIGHUP)
        waits(lambda: "reload" not in http.get("/readyz").json()["checks"])
        waits(lambda: "was not read again" not in http.get("/live/stations").text)
    assert again.stop() == 0


def invad(*arguments):
    """Exit status and what is said, of the command line in this process."""
    from typer.testing import CliRunner

    from invad.cli.app import app

    found = CliRunner().invoke(app, [str(word) for word in arguments])
    return found.exit_code, found.output


def test_check_names_what_cannot_work(bundle, tmp_path):
    path = lines(tmp_path, bundle, "a", "b", done="done")
    assert invad("serve", "check", path) == (0, "2 stations\n")
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "done").write_text("in the way")
    none = f'[[station]]\nname = "c"\nmodel = "{tmp_path}/none"\n'
    path.write_text(
        f'{path.read_text()}{none}[[station]]\nname = "d"\nmodel = "{bundle}"\ncategory = "never"\n'
    )
    code, told = invad("serve", "check", path, "--json", tmp_path / "out.json")
    assert code == 1
    assert "line.toml: 5 problems" in told
    said = json.loads((tmp_path / "out.json").read_text())["problems"]
    wanted = ("a: .*done is a file", "b: .*/b: No such", "b: .*done", "c: .*none", "d: no category 'never'")
    for line, words in zip(said, wanted, strict=True):
        assert re.match(f"station {words}", line), (line, words)


def test_check_and_start_need_something_that_can_be(tmp_path):
    code, told = invad("serve", "check")
    assert code == 2
    assert "give a LINE.toml, or --data" in told
    path = tmp_path / "line.toml"
    path.write_text('[[station]]\nname = "a"\nmodel = "none"\n')
    code, told = invad("serve", path, "--data", tmp_path / "line")
    assert code == 1
    assert f"{tmp_path}/none" in told


def test_init_prints_what_a_start_reads(tmp_path):
    for options, text in (((), SMALLEST), (("--example",), example())):
        code, told = invad("serve", "init", *options)
        assert (code, told) == (0, text)
        (tmp_path / "line.toml").write_text(told)
        assert read_lineup(tmp_path / "line.toml").station


def test_a_plant_refuses_a_category_without_limits(tmp_path):
    path = tmp_path / "line.toml"
    path.write_text('[[station]]\nname = "a"\nmodel = "m"\ncategory = "never"\n')
    with (
        Service({"a": Greys()}, tmp_path / "line", options=Options(reserve=0)) as service,
        pytest.raises(ConfigError, match="no category 'never'"),
    ):
        Plant(service, path)
