"""Frames of cameras as parts: from cameras on loopback, over HTTP and RTSP, and from video files."""

import io
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cameras import Camera, H264Camera, RtspCamera, jpeg, picture
from greys import Greys
from invad import runtime
from invad.cli.app import app
from invad.errors import ConfigError
from invad.serve import Options, Refused, Service
from invad.serve.plant import camera as watch
from invad.serve.plant.camera import CameraWatch
from invad.serve.plant.controllers import ModbusController
from invad.serve.plant.lineup import Station, read_lineup
from invad.serve.plant.making import made_source, opened_feed
from invad.serve.plant.plant import Plant
from invad.serve.plant.sources import CameraSource, FolderSource
from invad.serve.store.results import Query
from waiting import waits

av = pytest.importorskip("av", reason="needs invad[camera]")


@pytest.fixture
def camera():
    one = Camera()
    yield one
    one.close()


@pytest.fixture
def station(tmp_path):
    """station(url, key=value, ...): (service, source) of one station, started; ended with the test."""
    opened = []

    def make(url, *, detector=None, options=None, **keys):
        chosen = options or Options(reserve=0)
        service = Service(detector or Greys(), tmp_path / f"line-{len(opened)}", options=chosen)
        opened.append(service.close)
        settings = CameraSource(kind="camera", url=str(url), **{"timeout": 2.0, **keys})
        source = made_source(service, Station(name="default", model="m", source=settings), settings)
        source.start()
        opened.append(source.close)
        return service, source

    yield make
    for close in reversed(opened):
        close()


def rows(service):
    """Results, oldest first."""
    found, before = [], None
    while True:
        page, before = service.history(Query(limit=500, before=before))
        found += [one.result for one in page]
        if before is None:
            return found[::-1]


def numbers(service):
    """The numbers of the frames that were stored; two that came at once may be stored in either order."""
    return sorted(round(one.score) for one in rows(service))


def video(path, frames, codec="png", pixel_format="rgb24", given_format="rgb24", rate=25):
    """A lossless video of H x W (x 3) arrays."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        for one in frames:
            frame = av.VideoFrame.from_ndarray(one, format=given_format).reformat(format=pixel_format)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# What a frame is


def test_a_jpeg_of_a_camera_is_the_part_byte_by_byte(camera, station):
    service, source = station(camera.url)
    waits(lambda: source.state().taken >= 5)
    source.close()
    for one in rows(service):
        number = round(one.score)
        assert service.picture(service.result(one.id), "image") == jpeg(picture(number))
        assert (one.source, one.part_id, one.width, one.height) == ("camera", None, 64, 48)
        assert one.request_id.startswith("camera-")
    assert len(set(numbers(service))) == len(numbers(service))


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "given_format"),
    [
        ("clip.mkv", "ffv1", "bgr0", "rgb24"),
        ("clip.mkv", "ffv1", "gray16le", "gray16le"),
        ("clip.mkv", "ffv1", "gbrp16le", "rgb48le"),
        ("clip.mov", "png", "rgb24", "rgb24"),
        ("clip.mov", "png", "rgb48be", "rgb48le"),
    ],
)
def test_a_frame_of_a_video_scores_as_its_file(
    bundle, draw, station, tmp_path, name, codec, pixel_format, given_format
):
    pixels = [draw(500 + i) for i in range(2)]
    if given_format != "rgb24":  # levels that 8 bits do not have
        fine = np.arange(64, dtype=np.uint16)[:, None, None]
        pixels = [one * np.uint16(256) + fine for one in pixels]
    given = pixels
    if given_format == "gray16le":
        given = [one[..., 0] for one in pixels]
        pixels = [np.repeat(one[..., None], 3, 2) for one in given]
    judge = runtime.load(bundle, threads=1)
    path = video(tmp_path / name, given, codec, pixel_format, given_format)
    service, source = station(path, detector=judge)
    waits(lambda: source.state().note == "the video has ended" and not source.state().waiting)
    found = rows(service)
    assert sorted(one.score for one in found) == sorted(one.score for one in judge.predict(pixels))
    for one in found:
        kept = service.picture(service.result(one.id), "image")
        assert judge.predict(kept).score == one.score
    assert (source.state().problem, source.state().taken) == (None, 2)


def test_raw_frames_come_over_rtsp_as_they_are(station):
    camera = RtspCamera(
        lambda number: np.random.default_rng(number % 50).integers(0, 256, (16, 20, 3), np.uint8)
    )
    service, source = station(camera.url)
    waits(lambda: source.state().taken >= 3)
    camera.cut()
    taken = source.state().taken
    waits(lambda: source.state().taken >= taken + 3)
    assert re.search("frames|None", str(source.state().note))
    source.close()
    camera.close()
    shown = {camera.frame(number).tobytes() for number in range(50)}
    for one in rows(service):
        kept = service.picture(service.result(one.id), "image")
        assert np.asarray(Image.open(io.BytesIO(kept))).tobytes() in shown


def test_frames_of_h264_are_decoded_and_come_back(station):
    if "libx264" not in av.codecs_available:
        pytest.skip("this PyAV has no encoder of H.264")
    camera = H264Camera(interval=0.05)
    service, source = station(camera.url)
    waits(lambda: source.state().taken >= 5)
    camera.cut()
    taken = source.state().taken
    waits(lambda: source.state().taken >= taken + 5 and source.state().problem is None)
    source.close()
    camera.close()
    found = rows(service)
    assert len({one.request_id for one in found}) == len(found)
    levels = sorted(one.score for one in found)  # full of one grey, so nothing but rounding is lost
    assert np.abs(np.array(levels) - np.round(levels)).max() < 0.5
    assert levels[-1] - levels[0] >= len(found) - 2  # no number comes twice, as they rise


def test_what_came_while_a_stream_was_opened_is_old():
    camera = RtspCamera(lambda number: picture(number % 256, (16, 12)))
    feed = opened_feed(CameraSource(kind="camera", url=camera.url))
    opened = time.monotonic()
    assert feed.read().arrived < opened - 0.2  # FFmpeg looks at a stream for a second
    waits(lambda: feed.read().arrived > opened)
    feed.close()
    camera.close()


def test_a_driver_that_does_not_keep_its_time_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "PATIENCE", 0.0)
    monkeypatch.setattr(watch, "CLOSING_SECONDS", 0.2)
    released = threading.Event()
    settings = CameraSource(kind="camera", url="/dev/video0", policy="trigger", timeout=0.1)
    with Service(Greys(), tmp_path / "line", options=Options(reserve=0)) as service:
        place = Station(name="default", model="m", source=settings)
        source = CameraWatch(service, place, settings, lambda: released.wait(60) and None)
        source.start()
        source._problem = None  # as if it had been open
        waits(lambda: re.fullmatch(r"/dev/video0: has not answered for \d+ s", source.state().problem or ""))
        with pytest.raises(Refused, match="has not answered"):
            source.take(None, None, "a").result(60)
        source.close()
        released.set()


# Policies


def test_every_frame_is_judged_however_slow_the_engine(station, tmp_path):
    pixels = [picture(i, (16, 16)) for i in range(40)]
    path = video(tmp_path / "clip.mov", pixels)
    detector = Greys()
    detector.gate.clear()
    service, source = station(path, detector=detector, options=Options(reserve=0, queue=2))
    waits(lambda: detector.entered)
    detector.gate.set()
    waits(lambda: source.state().note == "the video has ended" and not source.state().waiting)
    assert numbers(service) == list(range(40))
    assert (source.state().taken, source.state().skipped, source.state().failed) == (40, 0, 0)


def test_before_a_controller_results_come_in_the_order_of_the_frames(tmp_path):
    path = video(tmp_path / "clip.mov", [picture(i, (16, 16)) for i in range(40)])
    settings = CameraSource(kind="camera", url=str(path))
    shown = ModbusController(kind="modbus", trigger=False)
    station = Station(name="default", model="m", source=settings, controller=shown)
    with Service(Greys(), tmp_path / "line", options=Options(reserve=0)) as service:
        source = made_source(service, station, settings)
        source.start()
        waits(lambda: source.state().taken == 40)
        source.close()
        assert [one.score for one in rows(service)] == list(range(40))


def test_a_video_that_is_begun_again_is_judged_once(station, tmp_path):
    path = video(tmp_path / "clip.mov", [picture(7, (16, 16)) for _ in range(3)])
    service, source = station(path)
    waits(lambda: source.state().note == "the video has ended" and not source.state().waiting)
    again = made_source(service, source.station, source.source)
    again.start()
    waits(lambda: again.state().note == "the video has ended" and not again.state().waiting)
    again.close()
    assert len(rows(service)) == 3  # equal pictures are frames of their own, and come once


def test_frames_are_thinned_out_by_the_time_of_the_video(station, tmp_path):
    path = video(tmp_path / "clip.mov", [picture(i, (16, 16)) for i in range(20)], rate=10)
    service, source = station(path, interval=0.5)
    waits(lambda: source.state().note == "the video has ended" and not source.state().waiting)
    assert numbers(service) == [0, 5, 10, 15]
    assert source.state().skipped == 0


def test_the_newest_frame_is_judged_and_the_others_are_counted(camera, station):
    detector = Greys()
    detector.gate.clear()
    service, source = station(camera.url, detector=detector, policy="latest")
    waits(lambda: source.state().skipped >= 5)
    detector.gate.set()
    waits(lambda: source.state().taken >= 6)
    source.close()
    state, found = source.state(), numbers(service)
    assert found == sorted(set(found))
    # All that came are there, but those before the first and after the last.
    assert state.taken + state.skipped >= found[-1] - found[0] + 1
    assert state.taken + state.skipped <= len(camera.sent)
    text = service.metrics.text().decode()
    assert f'invad_frames_skipped_total{{station="default"}} {float(state.skipped)}' in text


@pytest.mark.parametrize(("lag", "later"), [(0.0, 0), (None, 1)])
def test_a_trigger_gets_the_next_frame_that_was_exposed_after_it(camera, station, lag, later):
    service, source = station(camera.url, policy="trigger", lag=lag)
    waits(lambda: source.state().problem is None and len(camera.sent) >= 3)
    assert rows(service) == []
    for i in range(3):
        next_one = camera.hold()
        asked = source.take(f"part-{i}", "lot", f"trigger-{i}")
        assert not asked.done()
        camera.begun.set()
        found = asked.result(60)
        # Without a lag the next frame may have been exposed already, and the one after it not.
        assert found.score == next_one + later
        assert (found.part_id, found.lot, found.request_id) == (f"part-{i}", "lot", f"trigger-{i}")
    assert source.take("part-0", "lot", "trigger-0").result(60).score < found.score  # told once more
    assert len(rows(service)) == 3
    with ThreadPoolExecutor(4) as pool:
        twice = list(pool.map(lambda _: source.take("p", None, "trigger-3").result(60), range(4)))
    assert len({one.id for one in twice}) == 1
    assert len(rows(service)) == 4


def test_a_trigger_without_a_camera_is_refused_at_once(camera, station):
    _service, source = station(camera.url, policy="trigger")
    waits(lambda: source.state().problem is None)
    camera.begun.clear()  # a trigger waits for a frame, and the camera is cut off
    waiting = source.take(None, None, "a")
    camera.leave()
    with pytest.raises(Refused, match=r"no frame: .*127\.0\.0\.1") as caught:
        waiting.result(60)
    assert (caught.value.status, caught.value.code) == (503, "source")
    waits(lambda: source.state().problem is not None)
    with pytest.raises(Refused, match="no frame"):
        source.take(None, None, "b").result(60)
    camera.begun.set()
    camera.come_back()
    waits(lambda: source.state().problem is None)
    assert source.take(None, None, "b").result(60).request_id == "b"
    source.close()
    with pytest.raises(Refused, match="is stopping") as caught:
        source.take(None, None, "c").result(60)
    assert caught.value.code == "stopping"


def test_a_trigger_is_only_for_cameras_that_wait_for_one(camera, station, tmp_path):
    service, source = station(camera.url)
    with pytest.raises(ConfigError, match="policy = 'every'; a trigger needs policy = 'trigger'"):
        source.take(None, None, "a")
    settings = FolderSource(kind="folder", path=str(tmp_path))
    folder = made_source(service, Station(name="default", model="m", source=settings), settings)
    with pytest.raises(ConfigError, match="one of kind camera or genicam with policy = 'trigger'"):
        folder.take(None, None, "a")


# Troubles


def test_a_camera_that_is_cut_comes_back_and_no_frame_counts_twice(camera, station):
    service, source = station(camera.url)
    for _ in range(3):
        taken = source.state().taken
        waits(lambda taken=taken: source.state().taken >= taken + 3)
        camera.leave()
        problem = waits(lambda: source.state().problem)
        assert re.match(r"http://127\.0\.0\.1:\d+/video: \w", problem)
        assert "\n" not in problem
        assert 'invad_source_up{station="default"} 0.0' in service.metrics.text().decode()
        camera.come_back()
        waits(lambda: source.state().problem is None, 10)
    source.close()
    found = numbers(service)
    assert found == sorted(set(found))
    assert 'invad_source_up{station="default"} 1.0' in service.metrics.text().decode()


def test_a_camera_that_repeats_its_last_frame_when_it_is_opened_again(camera, station):
    last = []

    def frame(number):
        last[:] = last if camera.opened > 1 and not again.is_set() else [number % 256]
        again.set()
        return jpeg(picture(last[0]))

    again = threading.Event()
    again.set()
    camera.frame = frame
    service, source = station(camera.url)
    waits(lambda: source.state().taken >= 3)
    camera.begun.clear()
    waits(lambda: not source.state().waiting)
    again.clear()
    camera.cut()
    camera.begun.set()
    waits(lambda: camera.opened >= 2 and source.state().taken >= 6)
    source.close()
    found = numbers(service)
    assert found == sorted(set(found))


def test_a_camera_that_accepts_and_sends_nothing_is_named(camera, station):
    _, source = station(camera.url, timeout=0.5)
    waits(lambda: source.state().taken >= 1)
    camera.stalled = True
    assert "sent nothing for 0.5 s" in waits(lambda: source.state().problem)
    opened = camera.opened
    waits(lambda: camera.opened > opened + 1)  # it is tried again, also while it is opened
    camera.stalled = False
    taken = source.state().taken
    waits(lambda: source.state().taken >= taken + 2 and source.state().problem is None)
    camera.stalled = True  # and it does not hold up the end
    begun = time.monotonic()
    source.close()
    assert time.monotonic() - begun < 20


def test_a_frame_of_another_size_is_judged_and_named(camera, station, caplog):
    camera.frame = lambda number: jpeg(picture(number % 256, (64, 48) if number < 5 else (32, 24)))
    service, source = station(camera.url)
    note = waits(lambda: source.state().note)
    assert re.fullmatch(
        r"since \S+ frames are 32 x 24 pixels, JPEG; before they were 64 x 48 pixels, JPEG", note
    )
    waits(lambda: note in caplog.text)
    assert {(one.width, one.height) for one in rows(service)} == {(64, 48), (32, 24)}
    assert source.state().problem is None


def test_frames_that_cannot_be_read_are_named_and_the_next_are_judged(camera, station, caplog):
    whole = jpeg(picture(9))
    spoiled = threading.Event()
    camera.frame = lambda number: (
        whole[: len(whole) // 2] if spoiled.is_set() else jpeg(picture(number % 256))
    )
    _service, source = station(camera.url)
    waits(lambda: source.state().taken >= 2)
    spoiled.set()
    waits(lambda: source.state().failed >= 12)
    problem = waits(lambda: source.state().problem)
    assert problem.startswith("frames cannot be judged: the image: ")
    assert caplog.text.count("cannot judge a frame") <= 6  # those that were good may come in between
    taken = source.state().taken
    spoiled.clear()
    waits(lambda: source.state().taken >= taken + 2 and source.state().problem is None)
    assert camera.opened == 1


def test_a_black_feed_is_judged(camera, station):
    camera.frame = lambda number: jpeg(picture(0))
    service, source = station(camera.url)
    waits(lambda: source.state().taken >= 3)
    assert set(numbers(service)) == {0}


def test_memory_is_bounded_by_few_frames(camera, station):
    detector = Greys()
    detector.gate.clear()
    camera.interval = 0.002
    _service, source = station(camera.url, detector=detector, policy="latest")
    waits(lambda: source.state().skipped >= 50)
    assert source.state().waiting <= 3
    detector.gate.set()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/video", "http://127.0.0.1:1/video: Connection refused"),
        ("rtsp://127.0.0.1:1/live", "rtsp://127.0.0.1:1/live: Connection refused"),
        ("/dev/video99", "/dev/video99: No such file or directory"),
        ("none.mkv", "none.mkv: No such file or directory"),
    ],
)
def test_a_camera_that_is_not_there_is_named(station, url, words):
    _, source = station(url)
    assert words in waits(
        lambda: source.state().problem if source.state().problem != "not opened yet" else None
    )


def test_a_video_of_a_kind_that_cannot_be_decoded_is_named(station, tmp_path):
    path = video(tmp_path / "clip.mov", [picture(1, (16, 16))], "libx264", "yuv420p")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    _, source = station(path)
    assert waits(lambda: _said(source)) == f"{path}: has no video that can be decoded; check the address"


# Around it


def test_a_login_comes_from_the_environment_and_is_never_shown(camera, station, monkeypatch):
    camera.login = "me:p@ss/word"
    settings = {"login_variable": "INVAD_TEST_LOGIN", "url": camera.url}
    with pytest.raises(ConfigError, match="no variable INVAD_TEST_LOGIN; set it"):
        _ = CameraSource(kind="camera", **settings).address
    monkeypatch.setenv("INVAD_TEST_LOGIN", "me:wrong")
    _, source = station(**settings)
    assert "asks for another login; see login_variable" in waits(lambda: _said(source))
    monkeypatch.setenv("INVAD_TEST_LOGIN", camera.login)
    waits(lambda: source.state().taken >= 2)
    camera.leave()
    problem = waits(lambda: source.state().problem)
    assert problem.startswith(camera.url)
    assert source.state().place == camera.url


def _said(source):
    problem = source.state().problem
    return None if problem == "not opened yet" else problem


def test_check_opens_each_camera_and_says_what_it_sends(bundle, camera, tmp_path):
    video(tmp_path / "clip.mkv", [picture(i, (20, 16)) for i in range(9)], "ffv1", "gray16le", rate=5)
    sources = [camera.url, "clip.mkv", "none.mkv"]
    text = "".join(
        f'[[station]]\nname = "s{i}"\nmodel = "{bundle}"\n[station.source]\nkind = "camera"\nurl = "{url}"\n'
        for i, url in enumerate(sources)
    )
    (tmp_path / "line.toml").write_text(text)
    found = CliRunner().invoke(app, ["serve", "check", str(tmp_path / "line.toml")])
    assert found.exit_code == 1
    first, second, third, *_ = found.stdout.splitlines()
    assert re.fullmatch(
        rf"station s0: {camera.url}: 64 x 48 pixels, 8 bit JPEG, [\d.]+ frames a second", first
    )
    assert second == f"station s1: {tmp_path}/clip.mkv: 20 x 16 pixels, 16 bit grey, 5 frames a second"
    assert third == f"station s2: {tmp_path}/none.mkv: No such file or directory"


def test_a_station_of_a_plant_has_its_camera_and_the_page_says_how_it_fares(camera, bundle, tmp_path, served):
    def say(policy):
        line = f'[[station]]\nname = "a"\nmodel = "{bundle}"\ncategory = "part"\n'
        line += '[station.source]\nkind = "camera"\n'
        (tmp_path / "line.toml").write_text(f'{line}url = "{camera.url}"\npolicy = "{policy}"\n')

    say("latest")
    camera.interval = 0.002
    lineup = read_lineup(tmp_path / "line.toml")
    with Service(lineup.models, tmp_path / "line", options=Options(reserve=0), threads=1) as service:
        plant = Plant(service, tmp_path / "line.toml")
        plant.start()
        waits(lambda: plant.states()["a"].skipped and plant.states()["a"].taken)
        with served(service, without_keys=True) as address:
            page = httpx.get(address, trust_env=False).text
            source = httpx.get(f"{address}/api/v1/stations", trust_env=False).json()["stations"][0]["source"]
        assert re.search(rf"camera {camera.url}.*, \d+ skipped", page)
        assert (source["kind"], source["note"], source["skipped"] > 0) == ("camera", None, True)
        assert {one.category for one in rows(service)} == {"part"}
        say("trigger")
        plant.reload()
        waits(lambda: plant.states()["a"].problem is None)
        assert (plant.states()["a"].skipped, camera.opened) == (0, 2)
        plant.close()


def test_without_pyav_a_camera_says_what_to_install(camera, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    settings = CameraSource(kind="camera", url=camera.url)
    with pytest.raises(ConfigError, match=r"needs av>=17 \(not installed\); pip install 'invad\[camera\]'"):
        opened_feed(settings)


def test_a_video_that_is_played_as_a_camera_keeps_its_pace_and_begins_again(station, tmp_path):
    path = video(tmp_path / "clip.mov", [picture(i, (16, 16)) for i in range(4)], rate=20)
    service, source = station(path, loop=True, policy="latest")
    begun = time.monotonic()
    waits(lambda: source.state().taken >= 10)
    assert time.monotonic() - begun > 0.3  # ten frames at 20 a second
    assert source.state().note is None
    assert len(set(numbers(service))) == 4


def test_a_controller_triggers_a_camera(camera, tmp_path, monkeypatch):
    pytest.importorskip("pymodbus", reason="needs invad[line]")
    import plc

    monkeypatch.setattr(Service, "take_models", lambda service, models: None)
    port = plc.free_port()
    text = '[[station]]\nname = "a"\nmodel = "m"\ndeadline = 30\n[station.source]\nkind = "camera"\n'
    text += f'url = "{camera.url}"\npolicy = "trigger"\ntimeout = 2\n'
    (tmp_path / "line.toml").write_text(f'{text}[station.controller]\nkind = "modbus"\nport = {port}\n')
    camera.frame = lambda number: jpeg(picture(255 if bad.is_set() else 5))
    bad = threading.Event()
    with Service({"a": Greys()}, tmp_path / "line", options=Options(reserve=0)) as service:
        plant = Plant(service, tmp_path / "line.toml")
        plant.start()
        controller = plc.Plc(port)
        waits(lambda: controller.status() == plc.READY)
        controller.command(1, "P-1", "L")
        assert controller.answer()[1] == plc.RESULTS | plc.OK
        controller.acknowledge()
        waits(lambda: controller.status() == plc.READY)
        bad.set()
        controller.command(1, "P-2", "L")
        assert controller.answer()[1] == plc.RESULTS | plc.NG
        found = [(one.part_id, one.lot, one.source, one.decision) for one in rows(service)]
        assert found == [("P-1", "L", "camera", "good"), ("P-2", "L", "camera", "bad")]
        controller.acknowledge()
        waits(lambda: controller.status() == plc.READY)
        camera.leave()
        waits(lambda: not controller.status() & plc.READY and controller.status() & plc.ERROR)
        camera.come_back()
        waits(lambda: controller.status() == plc.READY)
        controller.close()
        plant.close()
