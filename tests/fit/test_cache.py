"""Features on disk: continued, checked, and never those of something else."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import invad.fit.cache
from invad.cli.app import app
from invad.errors import DataError, TrainingError
from invad.fit.cache import BLOCK, FeatureCache
from invad.fit.features import extract_features
from invad.fit.plan import plan
from invad.fit.run import Run
from invad.observer import Silent

SRC = Path(__file__).resolve().parents[2] / "src"


class Notes(Silent):
    def __init__(self):
        self.notes, self.computed = [], 0

    def note(self, text):
        self.notes.append(text)

    def advance(self, detail=""):
        self.computed += 1


@pytest.fixture
def read(tiny_preset, make_backbone, tmp_path):
    """read(samples, seed=0): features through a cache in tmp_path / "cache", and what was told."""

    def call(samples, seed=0, cache=True, strict=False):
        notes = Notes()
        extract = plan(samples, tiny_preset, make_backbone(seed), strict=False)
        run = Run(cache=tmp_path / "cache" if cache else None, observer=notes)
        with ExitStack() as stack:
            return extract_features(samples, extract, strict=strict, run=run, stack=stack), notes

    return call


def stored(tmp_path):
    (folder,) = (tmp_path / "cache").iterdir()
    return folder


def test_a_second_run_computes_nothing_and_reads_the_same(read, good_parts):
    first, notes = read(good_parts)
    assert notes.computed == 64
    second, notes = read(good_parts)
    assert (notes.computed, notes.notes[1].startswith("features: 64 found in")) == (0, True)
    memory, _ = read(good_parts, cache=False)
    for other in (second, memory):
        np.testing.assert_array_equal(first.z_NChw, other.z_NChw)
        assert (other.samples, other.skipped) == (first.samples, ())


def test_a_damaged_block_is_computed_again(read, good_parts, tmp_path):
    first, _ = read(good_parts)
    expected = np.array(first.z_NChw)
    with (stored(tmp_path) / "features.npy").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    second, notes = read(good_parts)
    assert notes.computed == BLOCK
    assert any("images 49 to 64 are damaged; computed again" in note for note in notes.notes)
    np.testing.assert_array_equal(expected, second.z_NChw)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"sha256": "0", "unreadable": {"x": 1}}', b"\xff"])
def test_a_damaged_record_is_no_record(read, good_parts, tmp_path, content):
    read(good_parts)
    (stored(tmp_path) / "block-000001.json").write_bytes(content)
    assert read(good_parts)[1].computed == BLOCK


def test_a_truncated_array_is_made_anew(read, good_parts, tmp_path):
    read(good_parts[:20])
    path = stored(tmp_path) / "features.npy"
    os.truncate(path, path.stat().st_size // 2)
    features, notes = read(good_parts[:20])
    assert notes.computed == 20
    np.testing.assert_array_equal(features.z_NChw, read(good_parts[:20], cache=False)[0].z_NChw)


def test_other_weights_images_or_sizes_are_not_mixed_up(read, write_parts, tmp_path):
    samples = write_parts(tmp_path / "a", 6)
    read(samples)
    assert read(samples, seed=1)[1].computed == 6
    assert read(samples[1:])[1].computed == 5
    assert read(write_parts(tmp_path / "b", 6))[1].computed == 6
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(samples[2].path)
    assert read(samples)[1].computed == 6
    assert len(list((tmp_path / "cache").iterdir())) == 5


def test_other_taps_of_the_same_weights_are_not_mixed_up(good_parts, tiny_preset, make_backbone, tmp_path):
    backbone = make_backbone(0)
    run = Run(cache=tmp_path / "cache")
    for shape in ({}, {"strides": [2]}):
        backbone.info = replace(backbone.info, shape=shape)
        with ExitStack() as stack:
            extract = plan(good_parts[:2], tiny_preset, backbone, strict=False)
            extract_features(good_parts[:2], extract, strict=False, run=run, stack=stack)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_other_pixels_in_a_file_of_the_same_size_and_time_are_seen(read, write_parts, tmp_path):
    samples = write_parts(tmp_path / "a", 2)
    path = samples[1].path.with_suffix(".bmp")
    samples[1] = replace(samples[1], path=path)
    Image.open(samples[0].path).transpose(Image.Transpose.ROTATE_90).save(path)
    before, first = path.stat(), read(samples)[0].z_NChw.copy()
    Image.open(samples[0].path).transpose(Image.Transpose.ROTATE_180).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    features, notes = read(samples)
    assert notes.computed == 2
    assert not np.array_equal(first[1], features.z_NChw[1])


def test_copies_are_known_from_the_cache_too(read, write_parts, tmp_path):
    samples = write_parts(tmp_path / "a", 6)
    shutil.copy(samples[0].path, samples[4].path)
    for computed in (6, 0):
        features, notes = read(samples)
        assert (notes.computed, features.copies) == (computed, (str(samples[4].path),))


def test_two_trainings_share_a_cache_one_after_the_other(good_parts, tiny_preset, make_backbone, tmp_path):
    """The second waits for the one that computes, is told so, and finds its features."""
    extract = plan(good_parts[:20], tiny_preset, make_backbone(), strict=False)

    def read(notes):
        with ExitStack() as stack:
            return extract_features(
                good_parts[:20], extract, strict=False, run=Run(cache=tmp_path, observer=notes), stack=stack
            ).z_NChw.copy()

    told = [Notes(), Notes()]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(read, told)
    assert sorted(notes.computed for notes in told) == [0, 20]
    np.testing.assert_array_equal(first, second)
    said = [note for notes in told for note in notes.notes]
    assert sum("another training computes these features" in note for note in said) == 1


def test_unreadable_images_are_remembered(read, write_parts, tmp_path):
    samples = write_parts(tmp_path / "a", 20)
    samples[17].path.write_bytes(b"junk")
    for computed in (20, 0):
        features, notes = read(samples)
        assert (notes.computed, features.skipped) == (computed, (str(samples[17].path),))
        assert features.rows.tolist() == [i for i in range(20) if i != 17]
        assert any(note.startswith(f"skipped: {samples[17].path}") for note in notes.notes)
    with pytest.raises(DataError, match=r"017\.png"):
        read(samples, strict=True)


def test_a_disk_without_room_is_said_before(tmp_path, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(invad.fit.cache.shutil, "disk_usage", lambda folder: usage)
    said = pytest.raises(TrainingError, match=r"no room for .* MB of features; .*--cache")
    with said, ExitStack() as held:
        FeatureCache(tmp_path / "c", (5, 100, 8, 8)).prepare(held, lambda text: None)
    assert list((tmp_path / "c").iterdir()) == []


def test_a_killed_extraction_continues_where_it_stopped(write_parts, tmp_path):
    """SIGKILL, on the command as a user starts it; then the same command with --resume."""
    write_parts(tmp_path / "parts", 60)
    command = ["train", str(tmp_path / "parts"), "--preset", "fast", "--device", "cpu", "--steps", "1"]
    command += ["--output", str(tmp_path / "m"), "--cache", str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "invad", *command], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("cache/*/block-000001.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/*/block-*.json")}
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert f"features: {BLOCK * len(kept)} found in {tmp_path}" in done.stderr
    assert all(path.stat().st_mtime_ns == kept[path] for path in kept)
    assert len(list(tmp_path.glob("cache/*/block-*.json"))) == 4
