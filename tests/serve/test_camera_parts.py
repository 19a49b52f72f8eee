"""Parts of several frames: those that follow a trigger, in the order of the lights."""

import queue
import time
from contextlib import contextmanager

import numpy as np
import pytest

from cameras import Camera, jpeg, picture
from greys import GreyParts, Greys, png
from invad.errors import ConfigError, DataError
from invad.serve import Options, Refused, Service
from invad.serve.plant import making
from invad.serve.plant.camera import CameraWatch
from invad.serve.plant.feeds import Feed, Frame, NoFrame, SpoiledFrame
from invad.serve.plant.lineup import Station, read_lineup
from invad.serve.plant.making import made_source
from invad.serve.plant.plant import Plant
from invad.serve.plant.sources import CameraSource, FolderSource
from invad.serve.store.results import Query
from waiting import waits

LIGHTS = ("light1", "light2", "light3")


class Script(Feed):
    """Gives what a test puts into it: frames by their grey, pixels, or an error to raise."""

    def __init__(self):
        self.coming = queue.Queue()

    def read(self):
        while True:
            try:
                one = self.coming.get(timeout=0.02)
                break
            except queue.Empty:
                if self.closed:
                    raise DataError("closed") from None
        if isinstance(one, NoFrame):  # as a camera that waits for something itself
            time.sleep(0.4)
        if isinstance(one, Exception):
            raise one
        now = time.monotonic()
        body = png(one) if isinstance(one, int) else (lambda: one)
        return Frame(body=body, arrived=now, at=now)

    closed = False

    def close(self):
        pass

    def send(self, *frames):
        for one in frames:
            self.coming.put(one)


@contextmanager
def station(tmp_path, detector=None, members=LIGHTS):
    """(service, source, script) of a camera that waits for triggers."""
    script = Script()
    keys = {"policy": "trigger", "lag": 0.0, "timeout": 0.3, "members": members}
    settings = CameraSource(kind="camera", url="http://127.0.0.1:1/", **keys)
    place = Station(name="default", model="m", source=settings)
    with Service(detector or GreyParts(*LIGHTS), tmp_path / "line", options=Options(reserve=0)) as service:
        source = CameraWatch(service, place, settings, lambda: script)
        source.start()
        script.send(1)  # it is there
        waits(lambda: source.state().problem is None)
        try:
            yield service, source, script
        finally:
            script.closed = True
            source.close()


def scores(result):
    return {one.member: one.score for one in result.members}


def stored(service):
    return [one.result for one in service.history(Query(limit=100))[0]]


def test_the_frames_after_a_trigger_are_the_pictures_in_their_order(tmp_path):
    with station(tmp_path, members=("light2", "light1", "light3")) as (service, source, script):
        script.send(2, 3)  # of no trigger
        waits(script.coming.empty)
        time.sleep(0.1)
        asked = source.take("P-1", "L", "trigger-1")
        script.send(10, 11)
        waits(script.coming.empty)
        time.sleep(0.1)
        assert not asked.done()
        script.send(12, 13)
        found = asked.result(60)
        assert scores(found) == {"light2": 10, "light1": 11, "light3": 12}
        assert (found.part_id, found.lot, found.decision, found.reason) == ("P-1", "L", "good", None)
        assert service.picture(service.result(found.id), "image", 0) == png(11)
        again = source.take("P-1", "L", "trigger-1")  # what it takes now is not kept
        script.send(20, 21, 22)
        assert again.result(60) == found
        assert len(stored(service)) == 1


def test_pixels_keep_their_levels(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 70, (8, 9), np.uint16) for _ in LIGHTS]
    with station(tmp_path) as (_, source, script):
        asked = source.take(None, None, "a")
        script.send(*frames)
        assert list(scores(asked.result(60)).values()) == pytest.approx([float(one.mean()) for one in frames])


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ((10, 11, DataError("the stream has ended")), "no light3"),
        ((10, 11, NoFrame("sent nothing for 0.3 s")), "no light3"),
        ((10, SpoiledFrame("a frame is incomplete"), 12), "no light2"),
        ((SpoiledFrame("a frame is incomplete"), 11, 12), "no light1"),
    ],
    ids=["cut", "silent", "spoiled", "first spoiled"],
)
def test_a_part_that_lacks_a_frame_is_reviewed(tmp_path, caplog, frames, reason):
    with station(tmp_path) as (service, source, script):
        asked = source.take("P-1", None, "a")
        script.send(*frames)
        found = asked.result(60)
        assert (found.part_id, found.decision, found.reason) == ("P-1", "review", reason)
        assert {name: score for name, score in scores(found).items() if score} == {
            light: score for light, score in zip(LIGHTS, frames, strict=True) if isinstance(score, int)
        }
        if reason == "no light3":
            (line,) = [one for one in caplog.messages if "judges part P-1 by 2 of 3 frames" in one]
            assert "\n" not in line
        # The next part is whole again.
        waits(lambda: source.state().problem is None or script.send(1))
        again = source.take("P-2", None, "b")
        script.send(1, 2, 3)
        assert again.result(60).decision == "good"
        assert len(stored(service)) == 2


def test_without_any_frame_a_trigger_is_refused(tmp_path):
    with station(tmp_path) as (service, source, script):
        asked = source.take(None, None, "a")
        script.send(NoFrame("sent nothing for 0.3 s"))
        with pytest.raises(Refused, match=r"no frame: sent nothing for 0\.3 s"):
            asked.result(60)
        asked = source.take(None, None, "b")
        script.send(*[SpoiledFrame("a frame is incomplete")] * 3)
        with pytest.raises(Refused, match="no frame after the trigger can be used"):
            asked.result(60)
        assert stored(service) == []


def test_frames_of_the_next_part_never_complete_the_one_before(tmp_path):
    with station(tmp_path) as (_, source, script):
        first = source.take("P-1", None, "a")
        script.send(10, 11)
        waits(script.coming.empty)
        time.sleep(0.1)
        second = source.take("P-2", None, "b")
        script.send(20, 21, 22)
        assert (scores(first.result(60)), first.result().decision) == ({"light1": 10, "light2": 11}, "review")
        assert scores(second.result(60)) == {"light1": 20, "light2": 21, "light3": 22}


def test_what_a_camera_has_is_judged_when_the_station_ends(tmp_path):
    with station(tmp_path) as (service, source, script):
        asked = source.take("P-1", None, "a")
        script.send(10)
        waits(script.coming.empty)
        time.sleep(0.1)
        script.closed = True
        source.close()
        assert asked.result(60).reason == "no light2; no light3"
        with pytest.raises(Refused, match="the station is stopping"):
            source.take("P-2", None, "b").result(60)
        assert len(stored(service)) == 1


CAMERA = (
    '[[station]]\nname = "a"\nmodel = "m"\n[station.source]\nkind = "camera"\nurl = "http://127.0.0.1:1/"\n'
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'members = ["light1"]\n',
            "members = .*: frames are told apart by their order after a trigger; give",
        ),
        ('policy = "trigger"\nmembers = ["light1"]\n', "and lag, without which the first one would be left"),
        (
            'policy = "trigger"\nlag = 0\nmembers = ["light1", "light1"]\n',
            "give each picture of a part once",
        ),
    ],
)
def test_members_need_an_order_after_a_trigger(tmp_path, text, words):
    (tmp_path / "line.toml").write_text(CAMERA + text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_lineup(tmp_path / "line.toml")
    assert "\n" not in str(caught.value)


def test_a_camera_and_its_model_have_the_same_pictures(tmp_path):
    def why(detector, **keys):
        settings = CameraSource(kind="camera", url="http://127.0.0.1:1/", **keys)
        return Station(name="a", model="m", source=settings).unfit(detector)

    members = {"policy": "trigger", "lag": 0.0, "members": ("light1", "light2")}
    assert "its camera cannot know which of light1, light2 a frame is" in why(("light1", "light2"))
    assert why(("light2", "light1"), **members) is None
    assert why(LIGHTS, **members) == (
        "its camera has members = ['light1', 'light2'], and its model has light1, light2, light3"
    )
    assert why((), **members).endswith("and its model judges one picture of each part")
    assert why(()) is None
    assert Station(name="a", model="m").unfit(LIGHTS) is None
    folder = FolderSource(kind="folder", path="in")
    assert Station(name="a", model="m", source=folder).unfit(LIGHTS) is None
    (tmp_path / "line.toml").write_text(CAMERA)
    with (
        Service({"a": GreyParts("light1", "light2")}, tmp_path / "line") as service,
        pytest.raises(ConfigError, match="station a: its model judges parts by several pictures"),
    ):
        Plant(service, tmp_path / "line.toml")
    (tmp_path / "line.toml").write_text(f'{CAMERA}policy = "trigger"\nlag = 0\nmembers = ["light1"]\n')
    with (
        Service({"a": Greys()}, tmp_path / "line2") as service,
        pytest.raises(ConfigError, match="its model judges one picture of each part"),
    ):
        Plant(service, tmp_path / "line.toml")


def test_a_trigger_that_has_just_come_is_not_given_up_with_a_camera_that_was_silent(tmp_path):
    with station(tmp_path) as (_, source, script):
        script.send(NoFrame("sent nothing for 0.3 s"))
        waits(script.coming.empty)
        time.sleep(0.3)
        asked = source.take(None, None, "a")
        time.sleep(0.2)
        script.send(1, 2, 3)
        assert asked.result(60).decision == "good"


def test_frames_of_a_real_stream_are_those_that_follow_the_trigger_byte_by_byte(tmp_path):
    pytest.importorskip("av", reason="needs invad[camera]")
    camera = Camera(lambda number: jpeg(picture(number % 256)))
    keys = {"policy": "trigger", "lag": 0.0, "members": LIGHTS}
    settings = CameraSource(kind="camera", url=camera.url, **keys)
    place = Station(name="default", model="m", source=settings)
    with Service(GreyParts(*LIGHTS), tmp_path / "line", options=Options(reserve=0)) as service:
        source = made_source(service, place, settings)
        source.start()
        waits(lambda: source.state().problem is None)
        found = source.take("P-1", "L", "a").result(60)
        seen = [round(score) for score in scores(found).values()]
        first = seen[0]
        assert seen == [(first + i) % 256 for i in range(3)]
        for number, grey in enumerate(seen):
            assert service.picture(service.result(found.id), "image", number) == jpeg(picture(grey))
        source.close()
    camera.close()


def test_a_controller_gets_ok_for_a_part_by_all_its_lights_alone(tmp_path, monkeypatch):
    """Over Modbus; a part that lacks a light is NG, and its result is kept."""
    pytest.importorskip("pymodbus", reason="needs invad[line]")
    import plc

    script = Script()
    monkeypatch.setattr(making, "opened_feed", lambda source: script)
    monkeypatch.setattr(Service, "take_models", lambda service, models: None)
    port = plc.free_port()
    text = f'{CAMERA}policy = "trigger"\nlag = 0\nmembers = ["light1", "light2"]\n'
    text = text.replace("[station.source]", "deadline = 60\n[station.source]")
    (tmp_path / "line.toml").write_text(f'{text}[station.controller]\nkind = "modbus"\nport = {port}\n')
    detector = GreyParts("light1", "light2")
    with Service({"a": detector}, tmp_path / "line", options=Options(reserve=0)) as service:
        plant = Plant(service, tmp_path / "line.toml")
        plant.start()
        script.send(1)  # it is there
        controller = plc.Plc(port)

        def answered(part, *frames):
            waits(lambda: controller.status() == plc.READY)
            controller.command(1, part, "L")
            waits(lambda: controller.status() & plc.BUSY)
            script.send(*frames)
            registers = controller.answer()
            controller.acknowledge()
            return registers[1] & ~plc.RESULTS, registers[2]

        assert answered("P-1", 5, 9) == (plc.OK, 0)
        assert answered("P-2", 5, SpoiledFrame("a frame is incomplete")) == (plc.NG, 0)
        script.send(1)
        waits(script.coming.empty)  # before the next trigger, whose frame it would be
        time.sleep(0.1)
        assert answered("P-3", 5, 60) == (plc.NG, 0)
        assert sorted((one.part_id, one.lot, one.decision, one.reason) for one in stored(service)) == [
            ("P-1", "L", "good", None),
            ("P-2", "L", "review", "no light2"),
            ("P-3", "L", "bad", None),
        ]
        controller.close()
        script.closed = True
        plant.close()
