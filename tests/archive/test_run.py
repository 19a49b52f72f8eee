"""Archives on a real local Ray, driven from the command line as a user would.

One test starts the command as a process with a Ray of its own, to kill it; the others share another Ray.
Bundles are scored with where the question allows it: a worker without torch starts in half the time.
"""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import pytest

pq = pytest.importorskip("pyarrow.parquet", reason="needs pip install invad[archive]")
if not find_spec("ray"):  # imported by invad alone, which sets its environment first
    pytest.skip("needs pip install invad[archive]", allow_module_level=True)

import archives  # noqa: E402
from invad.archive.run import BLOCK, MANIFEST, _unfinished  # noqa: E402
from invad.archive.sources import list_source, readable, states  # noqa: E402
from invad.archive.worker import ATTEMPTS, PARTS, Worker, finished_paths, part_name  # noqa: E402
from invad.detector.detector import Detector  # noqa: E402
from invad.detector.opening import open_detector  # noqa: E402
from invad.errors import ArtifactError, ConfigError, DataError  # noqa: E402
from invad.scoring.regions import regions  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # its own use of itself
SRC = Path(__file__).resolve().parents[2] / "src"
BESIDE_OTHERS = {"RAY_worker_niceness": "0"}
"""Ray lets its workers yield to all other processes, here to the other tests, which are never idle."""
KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
IMAGES = 640
BROKEN = ("0003.png", "0500.png")


@pytest.fixture(scope="module")
def model(detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive") / "model"
    detector.save(folder)
    return folder


@pytest.fixture(scope="module")
def images(write_parts, tmp_path_factory):
    """640 files: links to ten pictures, the last of them defective, and two broken files."""
    root = tmp_path_factory.mktemp("images")
    drawn = [s.path for s in write_parts(root / "drawn", 9)]
    drawn.append(write_parts(root / "drawn", 1, first=500, defect=True)[0].path)
    folder = root / "all"
    folder.mkdir()
    for i in range(IMAGES):
        path = folder / f"{i:04d}.png"
        if path.name in BROKEN:
            path.write_bytes(b"no image")
        else:
            os.link(drawn[i % 10], path)
    return folder


@pytest.fixture(scope="module")
def score():
    """score(model, source, output, *options): (status, output, errors) of the command on a Ray that stays.

    Its workers have the keys to any S3 server.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("OMP_NUM_THREADS", "1"),
            ("PYTHONPATH", str(SRC)),
            *BESIDE_OTHERS.items(),
        ):
            patch.setenv(name, value)
        with ProcessPoolExecutor(1, get_context("spawn"), archives.begin) as own:

            def run(model, source, output, *options):
                words = [model, source, "--output", output, *options]
                return own.submit(archives.score, [str(word) for word in words]).result(300)

            yield run
            own.submit(archives.end).result(60)


def start(model, source, output, home, *options):
    """The command as a process with a Ray of its own."""
    kept = {k: v for k, v in os.environ.items() if k in KEPT}
    command = [sys.executable, "-m", "invad", "predict", str(model), str(source), "--engine", "ray"]
    return subprocess.Popen(
        [*command, "--output", str(output), *options],
        env={**kept, **BESIDE_OTHERS, "HOME": str(home), "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers_of(driver):
    """Process numbers of the Ray workers below a driver that hold a model."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                titles[int(folder.name)] = (folder / "cmdline").read_bytes()
                status = (folder / "status").read_text()
            except OSError:
                continue
            parents[int(folder.name)] = int(status.split("PPid:")[1].split()[0])

    def below(pid):
        while pid > 1:
            pid = parents.get(pid, 0)
            if pid == driver:
                return True
        return False

    return [pid for pid, title in titles.items() if title.startswith(b"ray::Map") and below(pid)]


def wait_for(condition, process, seconds=180):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def rows_of(output):
    return [
        row for part in sorted((output / "parts").glob("part-*")) for row in pq.read_table(part).to_pylist()
    ]


def parts_in(output):
    return len(list((output / "parts").glob("part-*.parquet")))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds Ray's workers in /proc")
def test_a_killed_worker_and_a_killed_run_lose_and_double_nothing(bundle, images, tmp_path):
    output = tmp_path / "scores"
    run = start(bundle, images, output, tmp_path, "--workers", "2", "--json", tmp_path / "first.json")
    wait_for(lambda: parts_in(output) >= 2, run)
    os.kill(workers_of(run.pid)[0], signal.SIGKILL)
    killed_at = parts_in(output)
    wait_for(lambda: parts_in(output) >= killed_at + 3, run)
    assert json.loads((output / MANIFEST).read_text())["finished"] is False

    run.kill()
    run.communicate()
    before = len(finished_paths(output))
    assert 0 < before < IMAGES
    again = start(bundle, images, output, tmp_path, "--json", tmp_path / "told.json")
    said, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert "Traceback" not in errors

    rows = rows_of(output)
    assert sorted(row["path"] for row in rows) == sorted(str(p) for p in images.iterdir())
    unreadable = {Path(row["path"]).name: row["error"] for row in rows if row["decision"] is None}
    assert sorted(unreadable) == sorted(BROKEN)
    assert all("none of the formats" in text for text in unreadable.values()), unreadable
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["images"], told["errors"]) == (IMAGES, 2)
    assert told["before"] >= before
    assert f"{IMAGES} images" in said
    manifest = json.loads((output / MANIFEST).read_text())
    assert manifest["finished"] is True
    assert sum(part["rows"] for part in manifest["parts"]) == IMAGES
    assert manifest["decisions"] == told["decisions"]

    detector = open_detector(bundle, "auto", "cpu", threads=1)
    limit = detector.calibrations[""].map_limits()[0]
    for row in rows[:: IMAGES // 8]:
        if row["error"] is None:
            alone = detector.predict(row["path"])
            assert (row["score"], row["p_value"], row["decision"]) == (
                alone.score,
                alone.p_value,
                alone.decision,
            )
            found = regions(alone.anomaly_map, limit)
            assert [box["area"] for box in row["boxes"]] == [region.area for region in found]


def test_a_url_a_finished_output_and_another_model(model, images, own_detector, score, tmp_path):
    few = tmp_path / "few images"
    few.mkdir()
    for path in sorted(images.iterdir())[:5]:
        os.link(path, few / path.name)
    output = tmp_path / "scores"
    url = few.as_uri()
    status, _, errors = score(model, url, output, "--fail-on", "review")
    assert status == 3, errors  # one of them nobody could judge
    rows = rows_of(output)
    assert [row["path"] for row in rows] == [f"{url}/{i:04d}.png" for i in range(5)]
    assert [row["decision"] is None for row in rows] == [False, False, False, True, False]

    stamp = {path.name: path.stat().st_mtime_ns for path in (output / "parts").glob("part-*")}
    status, said, errors = score(model, url, output)
    assert status == 0, errors
    assert "5 of them scored before" in said
    assert {path.name: path.stat().st_mtime_ns for path in (output / "parts").glob("part-*")} == stamp

    status, _, errors = score(own_detector, url, output)
    assert status == 1
    assert "holds scores made with model" in errors.splitlines()[-1]


@pytest.fixture
def own_detector(model, tmp_path, write_parts):
    other = Detector.load(model, device="cpu")
    other.calibrate(write_parts(tmp_path / "fresh", 10, first=300))
    other.save(tmp_path / "other")
    return tmp_path / "other"


def test_lists_name_images_relative_to_themselves(tmp_path):
    import pyarrow as pa

    names = ["a.png", "sub/b.png", "/abs/c.png", "s3://bucket/d.png", "a.png"]
    wanted = [f"{tmp_path}/a.png", f"{tmp_path}/sub/b.png", "/abs/c.png", "s3://bucket/d.png"]
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n\n")
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["note", "path"], *[["", name] for name in names]])
    pq.write_table(pa.table({"path": names}), tmp_path / "list.parquet")
    for name in ("list.txt", "list.csv", "list.parquet"):
        assert list_source(tmp_path / name).images == wanted


def test_lists_as_spreadsheets_and_other_systems_save_them(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.png").touch()
    wanted = [f"{tmp_path}/sub/b.png", f"{tmp_path}/c.png"]
    (tmp_path / "list.csv").write_text("note;path\n;sub\\b.png\n;c.png\n", encoding="utf-16")
    assert list_source(tmp_path / "list.csv").images == wanted
    (tmp_path / "list.txt").write_text("sub\\b.png\r\nc.png\r\n", encoding="utf-16", newline="")
    assert list_source(tmp_path / "list.txt").images == wanted
    (tmp_path / "list.txt").write_bytes(b"\xff\xe4.png\nc.png")  # of an old encoding: the bytes stay
    assert list_source(tmp_path / "list.txt").images[0] == f"file://{tmp_path}/%FF%E4.png"


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("list.csv", b"file\na.png\n", "column named path"),
        ("list.parquet", b"junk", "cannot be read as a table"),
        ("list.txt", b"\n", "no images"),
        ("notes.md", b"a.png", "give a folder"),
    ],
)
def test_a_list_that_is_none(tmp_path, name, content, word):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=word):
        list_source(tmp_path / name)


def test_a_list_that_cannot_be_read_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "list.csv").write_text("path\na.png\n")

    def stale(*args, **options):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "list.csv")

    monkeypatch.setattr(Path, "open", stale)
    with pytest.raises(DataError) as caught:
        list_source(tmp_path / "list.csv")
    assert str(caught.value) == f"{tmp_path / 'list.csv'}: Stale file handle; is the share mounted?"


def test_files_that_an_archive_leaves_out_are_named(tmp_path):
    for name in ("1.png", "2.psd", "notes.txt", "@eaDir/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for source in (tmp_path, tmp_path.as_uri()):
        images, (line,) = list_source(source)
        assert len(images) == 1
        assert line.startswith("1 file was not taken (.psd 1), the first")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    assert "links that lead nowhere 1" in list_source(tmp_path).left_out[0]


def test_a_name_that_is_no_text_has_a_row_that_leads_to_it(model, images, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("raw\udcff.png", "raw\udcfe.png", "a b.png"):
        os.link(images / "0000.png", folder / name)
    os.link(images / BROKEN[0], folder / "cut\udcff.png")
    paths = list_source(folder).images
    (output / PARTS).mkdir(parents=True)
    (output / ATTEMPTS).mkdir()
    assert Worker(str(model), output, None, None)({"paths": [paths]}) == {"images": [4]}
    rows = rows_of(output)
    assert {readable(row["path"]) for row in rows} == {str(path) for path in folder.iterdir()}
    assert finished_paths(output) == states(paths)
    assert [row["path"].rpartition("/")[2] for row in rows if row["error"]] == ["cut%FF.png"]


def test_a_worker_cuts_into_tiles(tiled_detector, cloth, tmp_path):
    tiled_detector.save(tmp_path / "model")
    paths = sorted(str(path) for path in (cloth / "test/spot").iterdir())
    output = tmp_path / "out"
    (output / PARTS).mkdir(parents=True)
    (output / ATTEMPTS).mkdir()
    Worker(str(tmp_path / "model"), output, None, None)({"paths": [paths]})
    rows = {row["path"]: row for row in rows_of(output)}
    for path in paths:
        found = tiled_detector.predict(path)
        assert rows[path]["score"] == pytest.approx(found.score)
        assert (rows[path]["decision"], len(rows[path]["boxes"]) > 0) == ("bad", True)


@pytest.fixture
def scored(model, images, tmp_path):
    """scored(files): a worker, and the paths of copies of these images, in one block that is scored."""
    (tmp_path / "in").mkdir()
    paths = [str(tmp_path / "in" / name) for name in ("a.png", "b.png", "broken.png")]
    for path, source in zip(paths, ("0000.png", "0001.png", BROKEN[0]), strict=True):
        Path(path).write_bytes((images / source).read_bytes())
    output = tmp_path / "out"
    (output / PARTS).mkdir(parents=True)
    (output / ATTEMPTS).mkdir()
    return Worker(str(model), output, None, None), paths, output


def test_what_a_share_lost_in_the_middle_is_judged_again(scored, monkeypatch):
    worker, paths, output = scored
    usual = Path.open

    def gone(self, *args, **options):
        if self.name == "b.png":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self))
        return usual(self, *args, **options)

    with monkeypatch.context() as away:
        away.setattr(Path, "open", gone)
        worker({"paths": [paths]})
    first = {Path(row["path"]).name: row for row in rows_of(output)}
    assert "Stale file handle; is the share mounted?" in first["b.png"]["error"]
    todo = _unfinished(paths, output)
    assert todo == [paths[1]]  # a file that is read and no picture stays what it is
    worker({"paths": [todo]})
    second = rows_of(output)
    assert sorted(row["path"] for row in second) == sorted(paths)
    assert [row["error"] is None for row in sorted(second, key=lambda row: row["path"])] == [
        True,
        True,
        False,
    ]
    assert _unfinished(paths, output) == []


def test_a_replaced_picture_is_judged_again(scored, images):
    worker, paths, output = scored
    worker({"paths": [paths]})
    before = {row["path"]: row["score"] for row in rows_of(output)}
    times = Path(paths[0]).stat()
    Path(paths[0]).write_bytes((images / "0009.png").read_bytes())
    os.utime(paths[0], ns=(times.st_atime_ns, times.st_mtime_ns))  # known by its size alone
    os.utime(paths[1], ns=(0, 0))  # and by its time alone
    todo = _unfinished(paths, output)
    assert todo == paths[:2]
    worker({"paths": [todo]})
    after = {row["path"]: row["score"] for row in rows_of(output)}
    assert len(rows_of(output)) == len(after) == 3
    assert (after[paths[0]] == before[paths[0]], after[paths[1]] == before[paths[1]]) == (False, True)


def test_a_file_that_is_gone_keeps_its_row(scored):
    worker, paths, output = scored
    worker({"paths": [paths]})
    Path(paths[0]).unlink()
    assert _unfinished(paths, output) == []


def test_a_server_that_fails_is_told_in_one_line(scored, monkeypatch):
    worker, paths, output = scored

    def stale(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("invad.archive.worker.readable", stale)
    with pytest.raises(DataError, match=r"a\.png: Stale file handle; is the share mounted\?$"):
        worker({"paths": [paths]})
    assert not list((output / PARTS).iterdir())


def test_urls_that_cannot_be_listed(tmp_path):
    with pytest.raises(DataError, match="cannot be listed"):
        list_source("nosuchscheme://bucket/x")
    with pytest.raises(DataError, match="no images"):
        list_source(tmp_path.as_uri())


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/x", "s3://bucket/x?access_key=a&secret_key=b"])
def test_no_password_reaches_the_rows(url):
    with pytest.raises(ConfigError, match="password"):
        list_source(url)


@pytest.fixture
def bucket(images):
    """Address of an S3 server on this machine; its bucket `parts` holds three images and a broken one."""
    server = pytest.importorskip("moto.server", reason="needs moto[server]")
    from pyarrow import fs

    thread = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    thread.start()
    host, port = thread.get_host_and_port()
    files = fs.S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True)
    files.create_dir("parts")
    for name in ("0000.png", "0001.png", "0002.png", "0003.png"):
        with files.open_output_stream(f"parts/line 1/{name}") as stream:
            stream.write((images / name).read_bytes())
    yield f"{host}:{port}"
    thread.stop()


def test_an_s3_server_named_in_the_url(bundle, images, bucket, score, tmp_path):
    url = f"s3://parts/line%201?endpoint_override={bucket}&scheme=http"
    listed = list_source(url).images
    assert [readable(path) for path in listed] == [(images / f"{i:04d}.png").read_bytes() for i in range(4)]
    # One run for both questions; what a URL as the source does is asked above, of a folder.
    wanted = [*listed, listed[2].replace("0002", "0009")]
    (tmp_path / "list.txt").write_text("\n".join(wanted))
    status, _, errors = score(bundle, tmp_path / "list.txt", tmp_path / "scores")
    assert status == 0, errors
    rows = rows_of(tmp_path / "scores")
    assert [row["path"] for row in rows] == wanted
    alone = open_detector(bundle, "auto", "cpu", threads=1).predict(images / "0000.png")
    assert (rows[0]["score"], rows[0]["decision"]) == (alone.score, alone.decision)
    assert [row["error"] is None for row in rows] == [True, True, True, False, False]
    # Only what is not there is asked for again.
    assert _unfinished(wanted, tmp_path / "scores") == wanted[-1:]

    (tmp_path / "gone.txt").write_text(listed[0].replace(bucket, "127.0.0.1:9"))
    status, _, errors = score(bundle, tmp_path / "gone.txt", tmp_path / "gone")
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert status == 1
    assert line.startswith(f"error: Ray stopped ({listed[0]}".replace(bucket, "127.0.0.1:9")[:40])
    assert "run the same command again" in line


def test_an_image_that_kills_its_workers_gets_a_row(model, images, tmp_path):
    """Two workers die on the second image; the third passes over it and scores the others."""
    paths = [str(images / f"{i:04d}.png") for i in range(3)]
    (tmp_path / "parts").mkdir()
    dying = f"""
import os
from pathlib import Path
import invad.detector.detector
from invad.archive.worker import Worker

def work():
    worker = Worker({str(model)!r}, Path({str(tmp_path)!r}), None, None)
    usual = worker.detector.predict
    worker.detector.predict = lambda x, **k: os._exit(9) if x.endswith("0001.png") else usual(x, **k)
    worker({{"paths": [{paths!r}]}})
    os._exit(0)

for _ in range(4):
    if not (child := os.fork()):
        work()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", dying], env=environment, capture_output=True, text=True, timeout=120
    )
    codes = [int(code) for code in done.stdout.split()]
    assert codes == [9, 9, 9, 0], done.stderr  # the first death is not yet told apart
    rows = rows_of(tmp_path)
    assert [row["error"] for row in rows] == [None, "killed its worker 2 times", None]
    assert not list((tmp_path / ".attempts").iterdir())


def test_a_damaged_part_is_named(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part-1.parquet").write_bytes(b"PAR1junk")
    with pytest.raises(ArtifactError, match=r"part-1\.parquet: damaged"):
        finished_paths(tmp_path)


def test_the_name_of_a_part_follows_from_its_paths():
    assert part_name(["a", "b"]) == part_name(["a", "b"]) != part_name(["ab"])
    assert BLOCK * 9 < IMAGES


def test_options_that_do_not_go_together(model, images, tmp_path):
    from invad.archive import score_archive

    with pytest.raises(ConfigError, match="no category 'x'"):
        score_archive(model, images, tmp_path / "o", category="x")
    with pytest.raises(ConfigError, match="at least 1"):
        score_archive(model, images, tmp_path / "o", workers=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        score_archive(model, images, tmp_path / "full")
    assert not (tmp_path / "o").exists()
