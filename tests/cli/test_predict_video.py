"""Scoring videos from the command line."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from clips import write_clip, write_sound
from invad.detector.detector import Detector
from invad.scoring.events import JudgedFrame, find_events

pytest.importorskip("av", reason="PyAV is not installed")


@pytest.fixture(scope="module")
def shots(parts):
    """Three good parts, five that the tiny model calls bad, four good ones."""
    good = [np.asarray(Image.open(path)) for path in sorted((parts / "gasket" / "test" / "good").iterdir())]
    noise = np.random.default_rng(0).integers(0, 256, (5, *good[0].shape)).astype(np.uint8)
    return [*good[:3], *noise, *good[:4]]


@pytest.fixture(scope="module")
def clip(shots, tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "belt.mkv", shots)


def test_a_frame_is_judged_as_the_image_file_of_its_pixels(run, model, clip, shots, tmp_path):
    files = []
    for i, shot in enumerate(shots):
        files.append(tmp_path / f"{i:02d}.png")
        Image.fromarray(shot).save(files[-1])
    result = run("predict", model, clip, *files, "--json", tmp_path / "p.json", "--csv", tmp_path / "p.csv")
    assert result.exit_code == 0
    told = json.loads((tmp_path / "p.json").read_text())
    assert list(told) == ["model", "content_hash", "images", "events"]
    frames, images = told["images"][: len(shots)], told["images"][len(shots) :]
    assert [list(row) for row in frames] == [["path", "frame", "time", "score", "p_value", "decision"]] * 12
    assert [list(row) for row in images] == [["path", "score", "p_value", "decision"]] * 12
    assert [(row["path"], row["frame"], row["time"]) for row in frames] == [
        (str(clip), i, pytest.approx(0.04 * i)) for i in range(12)
    ]
    for frame, image in zip(frames, images, strict=True):
        assert [frame[key] for key in ("score", "p_value", "decision")] == [
            image[key] for key in ("score", "p_value", "decision")
        ]
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "frame", "time", "score", "p_value", "decision", "error"]
    assert [row["frame"] for row in rows] == [*map(str, range(12)), *[""] * 12]
    lines = result.stdout.splitlines()
    assert lines[1].endswith(f"{clip}  frame 1 at 0.040 s")
    assert lines[-1].startswith("24 images and frames: ")


def test_an_event_is_told_with_its_peak(run, model, clip, tmp_path):
    result = run("predict", model, clip, "--json", tmp_path / "p.json", "--events", "2/3")
    told = json.loads((tmp_path / "p.json").read_text())
    (event,) = told["events"]
    bad = [row for row in told["images"] if row["decision"] == "bad"]
    peak = max(bad, key=lambda row: row["score"])
    assert event == {
        "path": str(clip),
        "start": 0.12,
        "end": 0.28,
        "flagged": 5,
        "judged": 5,
        "peak_frame": peak["frame"],
        "peak_time": peak["time"],
        "peak_score": peak["score"],
    }
    assert (
        f"event       0.120 s to 0.280 s  5 bad of 5 frames  peak score {peak['score']:.4g} in frame "
        f"{peak['frame']} at {peak['time']:.3f} s  {clip}"
    ) in result.stdout.splitlines()
    lone = run("predict", model, clip, "--json", "-", "--events", "6/6")
    assert json.loads(lone.stdout)["events"] == []
    assert "event " not in lone.stderr


def test_every_and_the_library_agree(run, model, clip):
    told = json.loads(run("predict", model, clip, "--every", "80ms", "--json", "-").stdout)
    rows = [(row["frame"], row["score"], row["decision"]) for row in told["images"]]
    judged = list(Detector.load(model).predict_video(clip, every=0.08))
    assert [frame for frame, _, _ in rows] == [0, 2, 4, 6, 8, 10]
    assert rows == [(frame.number, p.score, p.decision) for frame, p in judged]
    assert {p.path for _, p in judged} == {str(clip)}
    frames = [
        JudgedFrame(number=f.number, time=f.time, score=p.score, flagged=p.decision == "bad")
        for f, p in judged
    ]
    assert len(told["events"]) == len(find_events(frames))


def test_overlays_carry_the_time(run, model, clip, tmp_path):
    run("predict", model, clip, "--every", "0.2s", "--output", tmp_path / "o")
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        f"belt_00000.{ms}s_overlay.png" for ms in ("000", "200", "400")
    ]


def test_a_folder_means_its_images(run, model, own_parts, shots):
    folder = own_parts / "gasket" / "test" / "good"
    write_clip(folder / "belt.mkv", shots[:2])
    result = run("predict", model, folder, "--json", "-")
    assert len(json.loads(result.stdout)["images"]) == 4
    assert "1 file was not taken (.mkv 1)" in result.stderr


def test_a_damaged_frame_is_counted_and_the_rest_goes_on(run, model, shots, tmp_path, one_line):
    clip = write_clip(tmp_path / "belt.avi", shots, codec="mjpeg", layout="yuvj420p")
    content = bytearray(clip.read_bytes())
    start = len(content) // 2
    content[start : start + 60] = bytes(60)
    clip.write_bytes(content)
    result = run("predict", model, clip, "--json", "-")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)["images"]
    (lost,) = [row for row in rows if "error" in row]
    assert len(rows) == 12
    assert lost["error"].startswith(
        f"{clip}: frame {lost['frame']} at {lost['time']:.3f} s cannot be decoded"
    )
    assert [lost[key] for key in ("score", "p_value", "decision")] == [None] * 3
    assert "12 frames: " in result.stderr
    assert "1 unreadable" in result.stderr
    for batch in (1, 4):
        result = run("predict", model, clip, "--strict", "--batch", batch, "--json", tmp_path / "p.json")
        assert result.exit_code == 1
        one_line(result, f"frame {lost['frame']} at ")
        told = json.loads((tmp_path / "p.json").read_text())
        assert [row["frame"] for row in told["images"]] == list(range(lost["frame"]))
        assert told["partial"] is True


def test_what_is_no_video_gets_a_row_and_the_rest_goes_on(run, model, clip, tmp_path, one_line):
    text, empty, sound = tmp_path / "text.mp4", tmp_path / "empty.mp4", write_sound(tmp_path / "sound.mp4")
    text.write_text("no video\n" * 50)
    empty.touch()
    result = run("predict", model, text, empty, sound, clip, "--every", "1s", "--csv", "-")
    assert result.exit_code == 0
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [(row["path"], row["frame"]) for row in rows] == [
        (str(text), ""),
        (str(empty), ""),
        (str(sound), ""),
        (str(clip), "0"),
    ]
    assert "is no video" in rows[0]["error"]
    assert "is empty" in rows[1]["error"]
    assert "holds audio and no video" in rows[2]["error"]
    result = run("predict", model, sound)
    assert result.exit_code == 1
    one_line(result, "none of 1 frames could be read", "holds audio and no video")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--every", "0"], "--every 0: give a time above 0, such as 0.2s or 200ms"),
        (["--every", "0.0ms"], "give a time above 0"),
        (["--every", "often"], "--every often: give a time above 0"),
        (["--every", "-1s"], "give a time above 0"),
        (["--events", "3"], "--events 3: give two numbers of frames, such as 3/5"),
        (["--events", "6/5"], "events of 6 among 5 frames"),
        (["--events", "0/5"], "events of 0 among 5 frames"),
        (["--engine", "ray", "--output", "out", "--every", "1s"], "do not go with --engine ray"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_options(options, words, run, model, clip, one_line):
    result = run("predict", model, clip, *options)
    assert result.exit_code == 2
    one_line(result, words)


def test_options_of_videos_need_one(run, model, clip, parts, one_line):
    one_line(run("predict", model, parts, "--every", "1s"), "--every and --events go with a video")
    server = run("predict", clip, "--server", "http://127.0.0.1:1")
    assert server.exit_code == 2
    one_line(server, clip, "--server takes images")
