"""Scoring images from the command line."""

import csv
import json
import os
import resource
import signal
import subprocess
import threading
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import pytest
from PIL import Image

from invad.cli.pictures import OverlayNames
from invad.cli.predict import expand
from invad.detector.detector import Detector
from invad.errors import ConfigError, DataError
from invad.scoring.rates import Rates


@pytest.fixture
def tests(parts):
    return parts / "gasket" / "test"


@pytest.fixture
def incoming(own_parts):
    """Three images; the middle one is truncated."""
    folder = own_parts / "gasket" / "test" / "good"
    for path in sorted(folder.iterdir())[3:]:
        path.unlink()
    broken = folder / "001.png"
    broken.write_bytes(broken.read_bytes()[:300])
    return folder


def test_the_rows_are_what_the_library_says(run, model, tests, tmp_path):
    result = run("predict", model, tests, "--json", tmp_path / "p.json", "--csv", tmp_path / "p.csv")
    assert result.exit_code == 0
    told = json.loads((tmp_path / "p.json").read_text())
    assert list(told) == ["model", "content_hash", "images"]
    assert [list(row) for row in told["images"]] == [["path", "score", "p_value", "decision"]] * 9
    detector = Detector.load(model)
    for row in told["images"]:
        alone = detector.predict(row["path"])
        assert (row["score"], row["p_value"], row["decision"]) == (alone.score, alone.p_value, alone.decision)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [row["path"] for row in told["images"]]
    assert [float(row["score"]) for row in rows] == [row["score"] for row in told["images"]]
    assert set(rows[0]) == {"path", "score", "p_value", "decision", "error"}
    lines = result.stdout.splitlines()
    assert len(lines) == 10
    assert all(row["path"] in line for row, line in zip(told["images"], lines, strict=False))
    assert lines[-1].startswith("9 images: ")


def test_standard_output_is_json_alone_when_asked(run, model, tests):
    result = run("predict", model, tests / "good" / "000.png", "--json", "-")
    assert [row["path"] for row in json.loads(result.stdout)["images"]] == [str(tests / "good" / "000.png")]
    assert "1 image: " in result.stderr


def test_an_unreadable_image_gets_a_row_and_the_rest_goes_on(run, model, incoming):
    result = run("predict", model, incoming, "--json", "-")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)["images"]
    assert [row["path"] for row in rows] == [str(incoming / f"00{i}.png") for i in range(3)]
    assert rows[1] == {
        "path": str(incoming / "001.png"),
        "score": None,
        "p_value": None,
        "decision": None,
        "error": rows[1]["error"],
    }
    assert str(incoming / "001.png") in rows[1]["error"]
    assert "1 unreadable" in result.stderr


def test_strict_stops_at_the_unreadable_image(run, model, incoming, tmp_path, one_line):
    result = run("predict", model, incoming, "--strict", "--json", tmp_path / "p.json")
    assert result.exit_code == 1
    one_line(result, incoming / "001.png")
    told = json.loads((tmp_path / "p.json").read_text())
    assert ([row["path"] for row in told["images"]], told["partial"]) == ([str(incoming / "000.png")], True)


def test_nothing_readable_is_an_error(run, model, incoming, tmp_path, one_line):
    result = run("predict", model, incoming / "001.png", tmp_path / "none.png")
    assert result.exit_code == 1
    one_line(result, "none of 2 images could be read", incoming / "001.png")
    assert "none.png: no such file" in result.stdout


def test_fail_on_tells_by_the_status(run, own_model, tests):
    """Limits for absurd rates, which 'calibrate' refuses, make sure of both decisions."""
    images = sorted((tests / "good").iterdir())

    def status(bad_rate, review_rate, *options):
        detector, rates = Detector.load(own_model), Rates(review=review_rate, bad=bad_rate)
        detector.calibrations = {
            name: replace(calibration, rates=rates) for name, calibration in detector.calibrations.items()
        }
        detector.save(own_model)
        return run("predict", own_model, *images, *options).exit_code

    assert status(0.9, 0.9, "--fail-on", "review") == 3
    assert status(0.9, 0.95) == 0
    assert run("predict", own_model, *images, "--fail-on", "bad").exit_code == 3
    assert run("predict", own_model, *images, "--fail-on", "review").exit_code == 3
    assert status(1e-99, 0.9, "--fail-on", "bad") == 0
    assert run("predict", own_model, *images, "--fail-on", "review").exit_code == 3
    assert status(1e-99, 1e-99, "--fail-on", "review") == 0


def test_overlays_are_written_and_not_taken_for_input(run, model, own_parts):
    folder = own_parts / "gasket" / "test"
    for _ in range(2):
        result = run("predict", model, folder, "--output", folder / "seen", "--json", "-")
        assert len(json.loads(result.stdout)["images"]) == 9
    names = sorted(path.name for path in (folder / "seen").iterdir())
    assert len(names) == 9
    assert "good_000_overlay.png" in names
    with Image.open(folder / "seen" / names[0]) as picture:
        assert picture.width > 2 * 64


def test_overlays_never_land_among_the_images(run, model, own_parts, one_line):
    folder = own_parts / "gasket" / "test" / "good"
    result = run("predict", model, folder, "--output", own_parts)
    assert result.exit_code == 2
    one_line(result, "--output", "another folder")
    assert len(list(folder.iterdir())) == 4


def test_nothing_is_written_over_what_is_read(run, own_parts, tmp_path, one_line):
    """As where a shell spreads `--csv *.png`."""
    first, second = sorted((own_parts / "gasket" / "test" / "good").iterdir())[:2]
    rows = tmp_path / "rows.csv"
    rows.write_text("path,score\n")
    (tmp_path / "link.csv").symlink_to(rows)
    picture, table = "is a picture that is there already", "is read by this command, too"
    for arguments, words in (
        (("predict", "m", "--csv", first, second), picture),
        (("predict", "m", "--json", first, first), table),
        (("data", "check", own_parts, "--sheet", first), picture),
        (("compare", rows, "other.csv", "--csv", tmp_path / "link.csv"), table),
        (("drift", rows, "--csv", rows), table),
    ):
        before = first.read_bytes(), rows.read_bytes()
        result = run(*arguments)
        assert result.exit_code == 2
        assert words in one_line(result)
        assert (first.read_bytes(), rows.read_bytes()) == before


def test_paths_are_expanded_once_in_order(tests, tmp_path):
    images = [path for path, _ in expand([tests / "good", tests / "good" / "002.png"], None)]
    assert [path.name for path in images] == ["000.png", "001.png", "002.png", "003.png"]
    with pytest.raises(DataError, match="no images in it"):
        list(expand([tmp_path], None))
    with pytest.raises(ConfigError, match="--output"):
        list(expand([tests], tests))


def test_overlay_names_never_meet(tmp_path):
    below = [
        "a/b.png",
        "a_b.png",
        "a/b.PNG",
        "A_B.jpg",
        "a_b_2.png",
        "a_b_overlay.png",
        "é.png",
        "e\u0301.png",
    ]
    naming = OverlayNames(tmp_path)
    names = [naming.name(Path(name)) for name in below]
    assert names[0] == "a_b_overlay.png"
    assert len({name.casefold() for name in names}) == len(below)


def test_an_unknown_category_is_refused(run, model, tests, one_line):
    result = run("predict", model, tests, "--category", "screw")
    assert result.exit_code == 2
    one_line(result, model, "no category 'screw'", "gasket")
    assert run("predict", model, tests / "good" / "000.png", "--category", "gasket").exit_code == 0


def test_a_name_that_is_no_text_does_not_end_the_run(run_outside, bundle, tests, tmp_path):
    odd = tmp_path / "part-\udcff.png"
    odd.write_bytes((tests / "good" / "000.png").read_bytes())
    result = run_outside("predict", bundle, odd, "--csv", tmp_path / "p.csv", "--json", tmp_path / "p.json")
    assert (result.returncode, "Traceback" in result.stderr) == (0, False)
    assert json.loads((tmp_path / "p.json").read_text())["images"][0]["path"] == str(odd)
    assert "part-\\xff.png" in result.stdout


def test_an_archive_needs_a_folder_and_one_source(run, model, tests, one_line):
    one_line(run("predict", model, tests, "--engine", "ray"), "--output")
    one_line(run("predict", model, tests, tests, "--engine", "ray", "--output", "x"), "not 2 paths")
    one_line(run("predict", model, tests, "--engine", "ray", "--csv", "x.csv"), "--csv")


def test_an_image_that_nobody_could_judge_is_not_good(run, model, incoming, tmp_path):
    for kind in ("bad", "review"):
        result = run("predict", model, incoming, "--fail-on", kind, "--csv", tmp_path / "p.csv")
        assert result.exit_code == 3
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 4


@pytest.fixture
def many(tests, tmp_path):
    """1000 names of one image: more lines than a pipe holds that nobody reads."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(1000):
        (folder / f"{i:03d}.png").symlink_to(tests / "good" / "000.png")
    return folder


def stopped(process, how):
    """(status, printed lines, words on standard error) of a run that is stopped after its third line."""
    lines = [process.stdout.readline() for _ in range(3)]
    if how == "head":
        process.stdout.close()
        rest = ""
    else:
        process.send_signal(how)
        rest = process.stdout.read()
    said = process.stderr.read()
    return process.wait(60), [*lines, *rest.splitlines()], said


@pytest.mark.parametrize(
    ("how", "made"), [(signal.SIGINT, "model"), (signal.SIGTERM, "bundle"), ("head", "bundle")]
)
def test_what_was_judged_before_the_end_is_kept(request, command, environment, many, tmp_path, how, made):
    """Of a model and of an exported one, which starts in a third of the time."""
    files = ["--csv", tmp_path / "p.csv", "--json", tmp_path / "p.json"]
    (tmp_path / "p.csv").write_text("of an earlier run")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    arguments = command("predict", request.getfixturevalue(made), many, *files)
    with subprocess.Popen(arguments, env=environment(tmp_path), **pipes) as process:
        status, lines, said = stopped(process, how)
    assert status == (1 if how == "head" else 130)
    told = json.loads((tmp_path / "p.json").read_text())
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert told["partial"] is True
    assert 3 <= len(rows) == len(told["images"]) < 1000
    assert f"warning: partial: {len(rows)} of 1000 images were judged" in said
    assert "Traceback" not in said
    if how != "head":
        assert said.splitlines()[-1] == "error: interrupted"
        assert lines[-1].startswith(f"partial: {len(rows)} of 1000 images: ")
        assert len(lines) == len(rows) + 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["p.csv", "p.json"]


def test_a_full_disk_costs_no_row_elsewhere(run_outside, bundle, many, tmp_path):
    """Standard output is full, or the CSV; a limit on the size of files stands for the disk."""
    (tmp_path / "full").symlink_to("/dev/full")
    result = run_outside("predict", bundle, many, "--csv", tmp_path / "full", "--json", tmp_path / "p.json")
    assert result.returncode == 1
    assert "No space left on device; free space" in result.stderr.splitlines()[-1]
    assert len(json.loads((tmp_path / "p.json").read_text())["images"]) == 1
    assert len(result.stdout.splitlines()) == 2

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    result = run_outside("predict", bundle, many, "--csv", tmp_path / "p.csv", preexec_fn=small_disk)
    assert result.returncode == 1
    assert "p.csv" in result.stderr.splitlines()[-1]
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert 0 < len(rows) == len(result.stdout.splitlines()) - 2
    assert all(row["decision"] for row in rows)


def test_an_overlay_that_cannot_be_written_is_a_warning(run, model, tests, tmp_path):
    out = tmp_path / "out"
    (out / "000_overlay.png").mkdir(parents=True)
    result = run("predict", model, tests / "good", "--output", out, "--json", tmp_path / "p.json")
    assert result.exit_code == 0
    assert len(json.loads((tmp_path / "p.json").read_text())["images"]) == 4
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert [("no overlay of" in line, "Is a directory" in line) for line in warnings] == [(True, True)]
    assert len(list(out.glob("*_overlay.png"))) == 4


def test_long_names_have_overlays(run, model, tests, tmp_path):
    deep = tmp_path / "in" / ("station-of-the-second-hall/" * 12)
    deep.mkdir(parents=True)
    for name in ("検査" * 40, "検査" * 40 + "b"):
        (tmp_path / "in" / f"{name}.png").symlink_to(tests / "good" / "000.png")
    (deep / "a.png").symlink_to(tests / "good" / "001.png")
    result = run("predict", model, tmp_path / "in", "--output", tmp_path / "out")
    assert (result.exit_code, "warning" in result.stderr) == (0, False)
    assert len(list((tmp_path / "out").iterdir())) == 3
    long = run("predict", model, "a" * 300 + ".png")
    assert long.exit_code == 1
    assert "File name too long" in long.stderr.splitlines()[-1]


def test_names_are_data(run, model, tests, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    names = [
        "bad.png\ngood  p 0.9  score 1.0  other",
        "e\033[2J",
        "raw\udcff",
        "raw\udcfe",
        "back\rward",
        "\u202e",
    ]
    for name in names:
        (folder / f"{name}.png").symlink_to(tests / "good" / "000.png")
    (folder / "cut\n.png").write_bytes(b"no image")
    files = ["--csv", tmp_path / "p.csv", "--json", tmp_path / "p.json"]
    result = run("predict", model, folder, *files)
    assert len(result.stdout.splitlines()) == len(result.stdout.split("\n")) - 1 == 8
    assert not [character for character in "\033\r\u202e" if character in result.stdout + result.stderr]
    assert r"bad.png\ngood  p 0.9  score 1.0  other.png" in result.stdout
    paths = {str(folder / f"{name}.png") for name in [*names, "cut\n"]}
    with (tmp_path / "p.csv").open(newline="", errors="surrogateescape") as file:
        assert {row["path"] for row in csv.DictReader(file)} == paths
    assert {row["path"] for row in json.loads((tmp_path / "p.json").read_text())["images"]} == paths


def test_standard_output_belongs_to_the_table_that_is_written_there(run_outside, bundle, tests):
    for name in ("-", "/dev/stdout"):
        result = run_outside("predict", bundle, tests / "good", "--csv", name)
        assert [line.split(",")[0] for line in result.stdout.splitlines()] == [
            "path",
            *(str(tests / "good" / f"00{i}.png") for i in range(4)),
        ]
        assert "4 images: " in result.stderr
    result = run_outside("predict", bundle, tests / "good", "--json", "/dev/stdout")
    assert len(json.loads(result.stdout)["images"]) == 4


def test_the_overlay_of_a_pipe_shows_the_pixels_that_were_judged(run, model, tests, tmp_path):
    pipe, content = tmp_path / "pipe", (tests / "good" / "000.png").read_bytes()
    os.mkfifo(pipe)

    def write():
        for part in chain([content], repeat(b"")):  # whoever reads twice finds nothing
            pipe.write_bytes(part)

    threading.Thread(target=write, daemon=True).start()
    result = run("predict", model, pipe, "--output", tmp_path / "seen")
    assert "no overlay" not in result.stderr
    run("predict", model, tests / "good" / "000.png", "--output", tmp_path / "file")
    assert (tmp_path / "seen/pipe_overlay.png").read_bytes() == (
        tmp_path / "file/000_overlay.png"
    ).read_bytes()
