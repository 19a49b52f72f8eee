"""Results as lines, tables and pictures in folders that fill, go away and come back."""

import csv
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from greys import Greys, png
from invad.errors import ConfigError
from invad.serve import Options, Result, Retention, Service
from invad.serve.delivery import Unreachable
from invad.serve.pictures import draw_overlay
from invad.serve.plant import making
from invad.serve.plant.lineup import Station
from invad.serve.plant.outputs import CsvOutput, FolderOutput, ParquetOutput
from invad.serve.plant.sinks.csv_files import CsvFiles
from invad.serve.plant.sinks.parquet import ParquetFiles
from invad.serve.plant.sinks.rows import COLUMNS
from invad.serve.store import retention
from invad.serve.store.database import now_ms
from waiting import waits

STATION = "press-1"
SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def service(tmp_path):
    with Service({STATION: Greys()}, tmp_path / "line", options=Options(reserve=0)) as service:
        yield service


@pytest.fixture
def record(service):
    """A result with a region, as it is stored."""
    return service.inspect(png(255), station=STATION, part_id='a "b", c;', lot=None)


def told(service, output):
    """The service tells an output from now on; returns a function that gives the state of that."""
    station = Station(name=STATION, model="m", output=(output,))
    service.deliveries.add(making.route(station, output), making.made_sink(STATION, output, service))
    return lambda: service.deliveries.states(STATION)[f"{STATION}/{output.name}"]


def inspect(service, *names, level=255):
    return [service.inspect(png(level), station=STATION, part_id=name) for name in names]


def rows(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def day(record):
    return record.time[:10]


def on(record, number, time="2026-11-29T23:59:00.000Z", **keys):
    """A copy with another id."""
    return replace(record, id=f"{number:026d}", time=time, **keys)


# Lines


def test_each_result_is_a_line(service, tmp_path):
    state = told(service, CsvOutput(kind="csv", path=str(tmp_path / "out")))
    found = inspect(service, 'a "b", c;', "ü")
    waits(lambda: state().delivered == 2)
    path = tmp_path / "out" / f"{STATION}-{day(found[0])}.csv"
    first, second = rows(path)
    assert list(first) == list(COLUMNS)
    assert (first["id"], first["part_id"], second["part_id"]) == (found[0].id, 'a "b", c;', "ü")
    assert float(first["score"]) == found[0].score
    assert json.loads(first["regions"])[0]["peak"] == found[0].regions[0].peak
    assert (first["region_count"], first["lot"], first["audit"]) == ("1", "", "false")
    assert path.read_bytes().count(b"\n") == 3


def test_the_columns_hold_all_of_a_result_that_does_not_change():
    parts = {"picture": ("grey", "clipped", "sharpness"), "ms": ("ms_queue", "ms_decode", "ms_infer")}
    later = {"schema", "image_kept", "map_kept", "verdict"}
    for field in fields(Result):
        assert field.name in later or set(parts.get(field.name, (field.name,))) <= set(COLUMNS)


def lines_of(path, record, numbers, most_mib=64.0, **keys):
    sink = CsvFiles(CsvOutput(kind="csv", path=str(path), most_mib=most_mib), STATION)
    return list(sink.deliver([on(record, number, **keys) for number in numbers]))


def test_days_and_full_files_begin_others(record, tmp_path):
    lines_of(tmp_path, record, [1])
    lines_of(tmp_path, record, [2, 3], time="2026-11-30T00:00:00.000Z")
    lines_of(tmp_path, record, [4], most_mib=0.01)
    lines_of(tmp_path, record, range(5, 50), most_mib=0.01)
    lines_of(tmp_path, record, [50], most_mib=0.01)
    found = {path.name: [int(row["id"]) for row in rows(path)] for path in tmp_path.glob("*.csv")}
    assert found == {
        f"{STATION}-2026-11-29.csv": [1, 4, *range(5, 50)],
        f"{STATION}-2026-11-29-2.csv": [50],
        f"{STATION}-2026-11-30.csv": [2, 3],
    }


def test_a_file_with_other_columns_is_left_alone(record, tmp_path):
    other = tmp_path / f"{STATION}-2026-11-29.csv"
    other.write_text("id,score\n1,2\n")
    lines_of(tmp_path, record, [1])
    assert other.read_text() == "id,score\n1,2\n"
    assert len(rows(tmp_path / f"{STATION}-2026-11-29-2.csv")) == 1


@pytest.mark.parametrize("cut", [1, 20, 300])
def test_a_line_that_was_cut_is_written_again(record, tmp_path, cut, caplog):
    lines_of(tmp_path, record, [1, 2])
    path = tmp_path / f"{STATION}-2026-11-29.csv"
    before = path.read_bytes()
    path.write_bytes(before[:-cut])
    lines_of(tmp_path, record, [2])
    assert path.read_bytes() == before
    assert "the last line was not finished" in caplog.text


def test_a_header_that_was_cut_is_written_again(record, tmp_path):
    path = tmp_path / f"{STATION}-2026-11-29.csv"
    path.write_text("id,ti")
    lines_of(tmp_path, record, [1])
    assert [int(row["id"]) for row in rows(path)] == [1]


KILLED = """
import json, sys
from invad.serve import Result
from invad.serve.plant.outputs import CsvOutput
from invad.serve.plant.sinks.csv_files import CsvFiles
from dataclasses import replace
record = Result.of_plain(json.loads(sys.argv[2]))
sink = CsvFiles(CsvOutput(kind="csv", path=sys.argv[1]), "press-1")
for begin in range(0, 10**9, 500):
    some = [replace(record, id=f"{begin + i:026d}") for i in range(500)]
    for id in sink.deliver(some):
        print(id, flush=True)
"""


def test_no_line_is_lost_or_torn_by_a_kill(record, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-c", KILLED, str(tmp_path), json.dumps(record.plain())]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    said = [int(child.stdout.readline()) for _ in range(3000)]
    child.kill()
    said += [int(line) for line in child.stdout if line.endswith("\n")]
    child.stdout.close()
    child.wait()
    lines_of(tmp_path, record, [10**9], time=record.time)
    (path,) = tmp_path.glob("*.csv")
    found = rows(path)
    assert {None not in row and None not in row.values() for row in found} == {True}
    ids = [int(row["id"]) for row in found]
    assert ids[: len(said)] == said
    assert ids[-1] == 10**9


def test_a_full_disk_leaves_no_half_lines(record, tmp_path):
    lines_of(tmp_path, record, [1])
    path = tmp_path / f"{STATION}-2026-11-29.csv"
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(Unreachable, match="File too large; the disk takes no file of this size") as said:
            lines_of(tmp_path, record, [2, 3])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(said.value)
    assert path.read_bytes() == before
    assert lines_of(tmp_path, record, [2]) == [f"{2:026d}"]


@pytest.mark.parametrize("kind", [CsvOutput, ParquetOutput, FolderOutput])
def test_a_folder_that_is_gone_is_named_and_comes_back(service, tmp_path, kind):
    if kind is ParquetOutput:
        pytest.importorskip("pyarrow", reason="needs invad[tables]")
    name = kind.__name__.removesuffix("Output").lower()
    keys = {"every": 1.0} if kind is ParquetOutput else {}
    out = tmp_path / "out"
    state = told(service, kind(kind=name, path=str(out), **keys))
    inspect(service, "a")
    waits(lambda: state().delivered == 1)
    shutil.move(out, tmp_path / "away")
    waits(lambda: state().problem is not None)  # before anything is to be written
    inspect(service, "b")
    assert state().problem == f"{out}: No such file or directory; check the path"
    assert state().waiting == 1
    assert not out.exists()
    shutil.move(tmp_path / "away", out)
    waits(lambda: state().delivered == 2 and state().problem is None)
    output = kind(kind=name, path=str(tmp_path / "none" / "out"))
    (line,) = making.made_sink(STATION, output).problems()
    assert line == f"{tmp_path / 'none'}: is no folder; make it, or check the path"
    assert list(making.made_sink(STATION, replace(output, path=str(out))).problems()) == []


# Tables


def parquet(folder):
    import pyarrow.parquet as pq

    return {path.name: pq.read_table(path).to_pylist() for path in sorted(folder.glob("*/*.parquet"))}


@pytest.fixture
def needs_pyarrow():
    pytest.importorskip("pyarrow", reason="needs invad[tables]")


def test_results_gather_into_a_table(needs_pyarrow, service, tmp_path):
    output = ParquetOutput(kind="parquet", path=str(tmp_path / "out"), rows=3, every=3600)
    state = told(service, output)
    found = inspect(service, "a", "b")
    time.sleep(0.2)
    assert (state().waiting, state().delivered, state().problem) == (2, 0, None)
    assert parquet(tmp_path / "out") == {}
    found += inspect(service, "c")
    waits(lambda: state().delivered == 3)
    (table,) = parquet(tmp_path / "out").values()
    assert [row["part_id"] for row in table] == ["a", "b", "c"]
    assert [row["score"] for row in table] == [one.score for one in found]
    assert table[0]["time"].isoformat(timespec="milliseconds") == found[0].time.replace("Z", "+00:00")
    assert table[0]["regions"][0]["width"] == found[0].regions[0].width
    assert list(table[0]) == list(COLUMNS)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [day(found[0])]


def test_what_there_is_is_written_after_a_while(needs_pyarrow, service, tmp_path):
    state = told(service, ParquetOutput(kind="parquet", path=str(tmp_path / "out"), every=1))
    inspect(service, "a")
    waits(lambda: state().delivered == 1)
    assert len(parquet(tmp_path / "out")) == 1


def test_a_table_that_was_written_and_not_noted_is_there_once(needs_pyarrow, record, tmp_path):
    sink = ParquetFiles(ParquetOutput(kind="parquet", path=str(tmp_path)), STATION)
    list(sink.deliver([on(record, number) for number in (1, 2)]))
    list(sink.deliver([on(record, number) for number in (1, 2, 3)]))  # as after a kill
    (table,) = parquet(tmp_path).values()
    assert [int(row["id"]) for row in table] == [1, 2, 3]
    assert [path.name for path in (tmp_path / "2026-11-29").iterdir()] == [f"{STATION}-{1:026d}.parquet"]


def test_a_full_disk_leaves_no_half_table(needs_pyarrow, record, tmp_path):
    sink = ParquetFiles(ParquetOutput(kind="parquet", path=str(tmp_path)), STATION)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(Unreachable, match="File too large"):
            list(sink.deliver([on(record, 1)]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "2026-11-29").iterdir()) == []


def test_a_day_has_tables_of_its_own(needs_pyarrow, record, tmp_path):
    sink = ParquetFiles(ParquetOutput(kind="parquet", path=str(tmp_path)), STATION)
    list(sink.deliver([on(record, 1), on(record, 2, time="2026-11-30T00:00:00.000Z")]))
    assert sorted(path.name for path in tmp_path.glob("2*")) == ["2026-11-29", "2026-11-30"]


# Pictures


def test_pictures_of_flagged_parts_lie_in_a_folder(service, tmp_path):
    state = told(service, FolderOutput(kind="folder", path=str(tmp_path / "out")))
    inspect(service, "fine", level=5)
    (bad,) = inspect(service, "../../x y")
    waits(lambda: state().delivered == 1)
    (path,) = (tmp_path / "out").rglob("*.png")
    assert path == tmp_path / "out" / day(bad) / f"{STATION}_.._.._x_y_{bad.id}.png"
    stored = service.result(bad.id)
    files = (service.picture(stored, kind) for kind in ("image", "map"))
    assert path.read_bytes() == draw_overlay(*files, stored.map_limits)


@pytest.mark.parametrize(
    ("keys", "form", "size"),
    [
        ({"picture": "image"}, "PNG", (4, 3)),
        ({"picture": "map"}, "PNG", (4, 3)),
        ({"form": "jpeg", "side": 16}, "JPEG", (4, 3)),
    ],
)
def test_pictures_may_be_of_other_kinds(service, tmp_path, keys, form, size):
    state = told(service, FolderOutput(kind="folder", path=str(tmp_path / "out"), **keys))
    (bad,) = inspect(service, "part")
    waits(lambda: state().delivered == 1)
    (path,) = (one for one in (tmp_path / "out").rglob("*") if one.is_file())
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert (image.format, image.size) == (form, size)
        pixels = np.asarray(image)
    if keys.get("picture") == "map":
        assert pixels.dtype.itemsize > 1
    assert path.suffix == (".jpg" if form == "JPEG" else ".png")
    assert bad.id in path.name


def test_a_picture_that_is_not_kept_any_more_holds_up_nothing(service, tmp_path, caplog):
    inspect(service, "old")
    keep = Retention(good=0, review=0, bad=0)
    state = told(service, FolderOutput(kind="folder", path=str(tmp_path / "missing" / "out")))
    inspect(service, "expired")
    waits(lambda: state().problem is not None)
    retention.sweep(service.database, service.files, keep, now_ms() + 1000, lambda: False)
    (tmp_path / "missing" / "out").mkdir(parents=True)
    service.deliveries.wake([f"{STATION}/folder"])
    waits(lambda: state().delivered == 1)
    inspect(service, "new")
    waits(lambda: state().delivered == 2)
    assert len(list((tmp_path / "missing" / "out").rglob("*new*.png"))) == 1
    assert "1 results have no picture, because it is not kept; 1 since the start" in caplog.text


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: CsvOutput(kind="csv", path="x", most_mib=0), "most_mib = 0: give 0.01 to 4096"),
        (lambda: ParquetOutput(kind="parquet", path="x", rows=0), "rows = 0: give 1 to 20000"),
        (lambda: ParquetOutput(kind="parquet", path="x", every=0.1), "every = 0.1: give 1 to 86400"),
        (lambda: FolderOutput(kind="folder", path="x", side=1), "side = 1: give 16 to 16384"),
        (
            lambda: FolderOutput(kind="folder", path="x", picture="map", form="jpeg"),
            "leave form and side out",
        ),
        (
            lambda: Station(
                name="a",
                model="m",
                output=tuple(CsvOutput(kind="csv", path="x", name=name) for name in ("b", "c")),
            ),
            "two outputs of kind csv write to x",
        ),
    ],
)
def test_what_an_output_cannot_say_is_named(made, words):
    with pytest.raises(ConfigError, match=words):
        made()


def test_the_page_names_the_columns():
    text = (SRC.parent / "docs" / "connections.md").read_text()
    named = text.partition("have these columns")[2].partition("\n\n")[0]
    assert named.split("`")[1::2] == list(COLUMNS)
