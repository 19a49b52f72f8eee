"""A watched folder whose files are pictures of parts: whole, in any order, missing, late, or of no part."""

import os
import time
from contextlib import contextmanager

import numpy as np
import pytest
from tifffile import imwrite

from greys import GreyParts, png
from invad.errors import ConfigError
from invad.serve import Options, Service
from invad.serve.plant import folder
from invad.serve.plant.folder import FolderWatch
from invad.serve.plant.lineup import Station, read_lineup
from invad.serve.plant.plant import Plant
from invad.serve.plant.sources import CameraSource, FolderSource
from invad.serve.store.results import Query
from waiting import waits

LIGHTS = ("light1", "light2", "light3")


def put(path, content):
    """As a careful writer does: whole at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name("." + path.name)
    partial.write_bytes(content)
    partial.replace(path)


class Watched(Service):
    """What a test looks at."""


class Stand:
    """A service and one watched folder, with a place for what was judged and one for what could not be."""

    def __init__(self, tmp_path):
        self.place, self.done, self.failed = (tmp_path / name for name in ("in", "done", "failed"))
        self.data, self.database = tmp_path / "line", None
        self.place.mkdir()

    @contextmanager
    def running(self, detector=None, moves=True, **source):
        moved = {"done": str(self.done), "failed": str(self.failed)} if moves else {}
        keys = {"settle": 0.02, "rescan": 0.05, "missing_after": 60.0, **moved, **source}
        settings = FolderSource(kind="folder", path=str(self.place), **keys)
        one = Station(name="press-1", model="-", source=settings)
        detector = detector or GreyParts(*LIGHTS)
        options = Options(reserve=0)
        with Watched({"press-1": detector}, self.data, database=self.database, options=options) as service:
            watch = FolderWatch(service, one, settings)
            watch.start()
            try:
                yield service, watch
            finally:
                watch.close()

    def put(self, part, *lights, level=1, ending="png"):
        for light in lights:
            put(self.place / f"{part}_light{light}.{ending}", png(level + light))

    def names(self, *lights, part="p1"):
        return [f"{part}_light{light}.png" for light in lights]


@pytest.fixture
def stand(tmp_path):
    return Stand(tmp_path)


def parts(service):
    """(part, decision, members, reason) of all results, oldest first."""
    stored = service.history(Query(limit=1000))[0][::-1]
    return [
        (one.part_id, one.decision, len(one.members), one.reason) for one in (each.result for each in stored)
    ]


def there(place):
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


def test_files_of_a_part_come_in_any_order_and_are_one_result(stand):
    with stand.running() as (service, watch):
        stand.put("p1", 3)
        stand.put("p2", 1, 2)
        waits(lambda: watch.state().waiting == 3)
        time.sleep(0.2)
        assert parts(service) == []  # nobody judges a part in pieces
        stand.put("p2", 3)
        waits(lambda: len(parts(service)) == 1)
        stand.put("p1", 1, 2, level=50)
        waits(lambda: watch.state().taken == 6)
        assert parts(service) == [("p2", "good", 3, None), ("p1", "bad", 3, None)]
        waits(lambda: not there(stand.place))
        assert there(stand.done) == stand.names(1, 2, 3) + stand.names(1, 2, 3, part="p2")
        found = service.history(Query(limit=1))[0][0]
        assert (found.result.source, found.result.seen_by, found.result.score) == ("folder", "light2", 52)
        assert service.picture(found, "image", 0) == (stand.done / "p1_light1.png").read_bytes()
        assert not stand.failed.exists()


def test_a_part_waits_until_each_of_its_files_is_whole(stand):
    content = png(9, size=(200, 200))
    with stand.running(settle=0.3) as (service, watch):
        stand.put("p1", 1, 2)
        with (stand.place / "p1_light3.png").open("wb") as file:
            for i in range(0, len(content), len(content) // 8):
                file.write(content[i : i + len(content) // 8])
                file.flush()
                time.sleep(0.1)
        waits(lambda: watch.state().taken == 3)
        assert parts(service) == [("p1", "good", 3, None)]


def test_a_part_that_lacks_a_picture_is_reviewed_and_what_comes_later_is_told(stand, caplog):
    stand.put("p1", 1, 3)
    with stand.running(missing_after=0.3) as (service, watch):
        waits(lambda: there(stand.done) == stand.names(1, 3))
        assert parts(service) == [("p1", "review", 2, "no light2")]
        (line,) = [one for one in caplog.messages if "without light2" in one]
        assert "\n" not in line
        stand.put("p1", 2)
        waits(lambda: there(stand.failed) == stand.names(2))
        (line,) = [one for one in caplog.messages if "its part was decided before it came" in one]
        assert "p1_light2.png" in line
        assert len(parts(service)) == 1
        assert watch.state().note == "pictures that came too late: 1, the last one p1_light2.png"
        assert (watch.state().taken, watch.state().failed) == (2, 1)
    with stand.running() as (service, watch):
        stand.put("p1", 1, 2, 3, level=20)  # the name is used again, for another part
        waits(lambda: watch.state().taken == 3)
        assert parts(service)[1:] == [("p1", "good", 3, None)]


def test_a_bad_part_stays_bad_without_the_others(stand):
    with stand.running(missing_after=0.1) as (service, _):
        stand.put("p1", 2, level=80)
        waits(lambda: parts(service))
        assert parts(service) == [("p1", "bad", 1, "no light1; no light3")]


def test_files_that_stay_are_judged_once_whatever_is_touched(stand):
    stand.put("p1", 1, 2, 3)
    stand.put("p2", 1, 2)
    with stand.running(moves=False, missing_after=0.2) as (service, watch):
        waits(lambda: watch.state().taken == 5)
        os.utime(stand.place / "p1_light2.png")  # alone it is no part
        waits(lambda: watch.state().taken == 6)
        assert len(parts(service)) == 2
    for name in there(stand.place):
        os.utime(stand.place / name)
    with stand.running(moves=False, missing_after=0.2) as (service, watch):
        waits(lambda: watch.state().taken == 5)
        stand.put("p2", 3)
        waits(lambda: watch.state().failed == 1)
        assert [one[:3] for one in parts(service)] == [("p1", "good", 3), ("p2", "review", 2)]
    with stand.running(moves=False) as (service, watch):
        stand.put("p3", 1, 2, 3)
        waits(lambda: watch.state().taken == 3)
        assert (len(parts(service)), watch.state().failed) == (3, 0)


def test_what_a_killed_service_had_judged_is_put_away_and_not_judged_again(stand, database_url, caplog):
    """Killed between the result and the moves, in the middle of them, and with a late picture in between."""
    stand.database = database_url
    for part in ("p1", "p2", "p3", "p4"):
        stand.put(part, *((1, 2) if part in ("p3", "p4") else (1, 2, 3)), level=ord(part[1]) - 48)
    with stand.running(moves=False, missing_after=0.2) as (service, watch):
        waits(lambda: watch.state().taken == 10)
        with service.database.write() as connection:  # as if it had not come so far
            connection.exec_driver_sql("DELETE FROM taken")
    (stand.place / "p2_light1.png").unlink()  # moved already
    stand.put("p4", 3, level=4)
    with stand.running(missing_after=0.2) as (service, watch):
        waits(lambda: not there(stand.place))
        assert [(one[0], one[2]) for one in sorted(parts(service))] == [
            *(("p1", 3), ("p2", 3), ("p3", 2), ("p4", 2)),
        ]
        assert there(stand.failed) == ["p4_light3.png"]
        assert len(there(stand.done)) == 9
        assert sum("p4_light3.png" in one for one in caplog.messages) == 1


def test_files_that_are_of_no_part_are_named_and_put_aside(stand, caplog):
    with stand.running() as (service, watch):
        put(stand.place / "flat.png", png(1))
        put(stand.place / "p1_ligth2.png", png(2))
        stand.put("p1", 1, 2, 3)
        waits(lambda: there(stand.failed) == ["flat.png", "p1_ligth2.png"])
        waits(lambda: watch.state().taken == 3)
        assert parts(service) == [("p1", "good", 3, None)]
        lines = sorted(one for one in caplog.messages if "cannot judge" in one)
        assert "'names' finds no part and member in 'flat.png'" in lines[0]
        assert "ligth2 is unknown, the model has light1, light2, light3" in lines[1]
        assert len(lines) == 2


def test_a_picture_that_is_there_twice_or_unreadable_sends_the_part_to_review(stand):
    with stand.running() as (service, watch):
        stand.put("p1", 1, 2)
        stand.put("p1", 2, ending="bmp")
        waits(lambda: watch.state().waiting == 3)
        put(stand.place / "p2_light1.png", b"no picture")
        stand.put("p2", 2, 3)
        stand.put("p1", 3)
        waits(lambda: watch.state().taken == 7)
        first, second = sorted(parts(service))
        assert first == ("p1", "review", 4, "light2 is there twice")
        assert second[:3] == ("p2", "review", 3)
        assert second[3].startswith("light1: ")


def test_a_part_of_which_nothing_can_be_read_is_put_aside_whole(stand, monkeypatch, caplog):
    monkeypatch.setattr(folder, "PATIENCE", 0.1)
    with stand.running() as (service, _):
        for light in (1, 2, 3):
            put(stand.place / f"p1_light{light}.png", b"no picture")
        waits(lambda: len(there(stand.failed)) == 3)
        assert there(stand.failed) == stand.names(1, 2, 3)
        assert parts(service) == []
        (line,) = [one for one in caplog.messages if "cannot judge" in one]
        assert "p1 (p1_light1.png, p1_light2.png, p1_light3.png)" in line


def test_views_lie_in_folders(stand):
    detector = GreyParts("C1", "C2", rule="views")
    with stand.running(detector, recursive=True) as (service, watch):
        for part in ("S0001", "S0002"):
            for view in ("C2", "C1"):
                put(stand.place / "tray" / part / f"nut_{part}_{view}_x.png", png(3))
        waits(lambda: watch.state().taken == 4)
        assert sorted(parts(service)) == [("S0001", "good", 2, None), ("S0002", "good", 2, None)]
        assert there(stand.done)[0] == "tray/S0001/nut_S0001_C1_x.png"


def test_files_may_be_named_otherwise_than_those_of_the_training(stand):
    with stand.running(parts=r"(?P<member>light\d)-(?P<part>\w+)") as (service, watch):
        for light in LIGHTS:
            put(stand.place / f"{light}-A17.png", png(3))
        waits(lambda: watch.state().taken == 3)
        assert parts(service) == [("A17", "good", 3, None)]


def stack(path, *pages):
    partial = path.with_name("." + path.name)
    imwrite(partial, np.stack(pages), photometric="minisblack")
    partial.replace(path)


def test_pages_of_a_file_are_pictures_of_one_part_and_no_level_is_lost(stand, monkeypatch):
    monkeypatch.setattr(folder, "PATIENCE", 0.1)
    rng = np.random.default_rng(0)
    pages = [rng.integers(0, 70, (8, 9), np.uint16) for _ in range(3)]
    detector = GreyParts("page1", "page2", "page3", rule="pages")
    with stand.running(detector, missing_after=0.2) as (service, watch):
        stack(stand.place / "p1.tif", *pages)
        waits(lambda: watch.state().taken == 1)
        (found,) = [one.result for one in service.history(Query(limit=5))[0]]
        scores = [one.score for one in found.members]
        assert scores == pytest.approx([float(one.mean()) for one in pages])
        stack(stand.place / "p2.tif", *pages[:2])
        stack(stand.place / "p3.tif", *pages, pages[0])
        waits(lambda: watch.state().taken == 3)
        assert sorted(parts(service))[1:] == [
            ("p2", "review", 2, "no page3"),
            ("p3", "review", 4, "page4 is unknown, the model has page1, page2, page3"),
        ]
        put(stand.place / "p4.tif", (stand.done / "p1.tif").read_bytes()[:60])
        waits(lambda: there(stand.failed) == ["p4.tif"])


def test_pages_of_float_levels_stay_what_they_are(stand):
    pages = [np.linspace(0, level, 72, dtype=np.float32).reshape(8, 9) for level in (0.25, 0.75)]
    detector = GreyParts("page1", "page2", rule="pages")
    with stand.running(detector) as (service, watch):
        stack(stand.place / "p1.tif", *pages)
        waits(lambda: watch.state().taken == 1)
        (found,) = [one.result for one in service.history(Query(limit=5))[0]]
        assert [one.score for one in found.members] == pytest.approx([0.125, 0.375])


def test_other_models_take_over_without_a_new_start(stand):
    with stand.running(GreyParts("light1", "light2")) as (service, watch):
        stand.put("p1", 1, 2)
        waits(lambda: watch.state().taken == 2)
        more = GreyParts(*LIGHTS)
        more.content_hash = "2" * 64
        service.take_models({"press-1": more})
        stand.put("p2", 1, 2)
        time.sleep(0.2)
        stand.put("p2", 3)
        waits(lambda: watch.state().taken == 5)
        assert [one[2] for one in parts(service)] == [2, 3]


def test_a_file_of_stations_says_how_long_a_part_is_waited_for(tmp_path):
    path = tmp_path / "line.toml"
    text = '[[station]]\nname = "a"\nmodel = "m"\n[station.source]\nkind = "folder"\npath = "in"\n'
    path.write_text(f"{text}missing_after = 3\n")
    assert read_lineup(path).station[0].source.missing_after == 3.0
    path.write_text(f"{text}missing_after = -1\n")
    with pytest.raises(ConfigError, match="missing_after = -1: give 0 to 3600 seconds"):
        read_lineup(path)
    path.write_text(f"{text}parts = 'light'\n")
    with pytest.raises(ConfigError, match="names no group part and no group member; give") as caught:
        read_lineup(path)
    assert "\n" not in str(caught.value)
    path.write_text(f"{text}parts = 'pages'\n")
    (station,) = read_lineup(path).station
    assert station.unfit(LIGHTS) is None
    assert "has parts = 'pages', and its model judges one picture of each part" in station.unfit(())


def test_a_camera_that_cannot_know_its_lights_is_refused(tmp_path):
    source = CameraSource(kind="camera", url="/dev/video0")
    station = Station(name="a", model="m", source=source)
    assert "its camera cannot know which of light1, light2 a frame is" in station.unfit(("light1", "light2"))
    assert station.unfit(()) is None
    path = tmp_path / "line.toml"
    path.write_text(
        '[[station]]\nname = "a"\nmodel = "m"\n[station.source]\nkind = "camera"\nurl = "/dev/video0"\n'
    )
    with (
        Service({"a": GreyParts("light1", "light2")}, tmp_path / "line") as service,
        pytest.raises(ConfigError, match="station a: its model judges parts by several pictures"),
    ):
        Plant(service, path)


def test_a_controller_is_answered_by_the_next_whole_part(stand, tmp_path, monkeypatch):
    """From a folder and over HTTP; a part that lacks a picture is NG."""
    pytest.importorskip("pymodbus", reason="needs invad[line]")
    import plc

    monkeypatch.setattr(Service, "take_models", lambda service, models: None)
    port = plc.free_port()
    path = tmp_path / "line.toml"
    path.write_text(
        '[[station]]\nname = "a"\nmodel = "m"\ndeadline = 60\n[station.source]\nkind = "folder"\n'
        'path = "in"\nsettle = 0.02\nrescan = 0.05\nmissing_after = 0.5\n'
        f'[station.controller]\nkind = "modbus"\nport = {port}\n'
    )
    with Service({"a": GreyParts(*LIGHTS)}, tmp_path / "line", options=Options(reserve=0)) as service:
        plant = Plant(service, path)
        plant.start()
        controller = plc.Plc(port)

        def answered(part, bring):
            waits(lambda: controller.status() == plc.READY)
            controller.command(1, part, "L")
            waits(lambda: controller.status() & plc.BUSY)
            bring()
            registers = controller.answer()
            controller.acknowledge()
            return registers[1] & ~plc.RESULTS, registers[2]

        whole = {light: png(3) for light in LIGHTS}
        assert answered("P-1", lambda: service.inspect(whole, station="a")) == (plc.OK, 0)
        assert answered("P-2", lambda: stand.put("x", 2)) == (plc.NG, 0)
        assert answered("P-3", lambda: service.inspect(whole, station="a")) == (plc.OK, 0)
        assert parts(service) == [
            ("P-1", "good", 3, None),
            ("P-2", "review", 1, "no light1; no light3"),
            ("P-3", "good", 3, None),
        ]
        controller.close()
        plant.close()
