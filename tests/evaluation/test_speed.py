"""What is measured, and that the numbers are those of real calls."""

import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from invad.data.images import read_image
from invad.errors import ArtifactError, ConfigError
from invad.evaluation import speed as benching
from invad.evaluation.speed import EAGER, FOLDED, bench, call_times, cores, machine

NAMES = {
    "engine",
    "precision",
    "threads",
    "batch",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "images_per_second",
}
PARTS = ("decode", "preprocess", "backbone", "inversion", "post")


@pytest.fixture(scope="module")
def folder(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "model"
    detector.save(path)
    return path


@pytest.fixture(scope="module")
def bundle(detector, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from invad.export import ExportConfig, export

    path = tmp_path_factory.mktemp("bench") / "bundle"
    export(detector, path, ExportConfig(size_hw=(64, 64)))
    return path


@pytest.fixture(scope="module")
def rows(folder):
    return bench(folder, seconds=0.05, threads=1)


def test_a_model_is_measured_as_it_is_and_folded(rows):
    assert {(row.engine, row.precision) for row in rows} == {(EAGER, "fp32"), (FOLDED, "fp32")}
    assert all(row.latency_ms_p50 > 0 for row in rows)


class Steady:
    """Takes a millisecond of its own clock, whatever it is given: a busy machine adds nothing to that."""

    engine, precision, device, batch = "steady", "fp32", "cpu", None

    def __init__(self):
        self.given, self.now = set(), 0.0

    def run(self, pixels):
        self.given.add(len(pixels))
        self.now += 0.001

    def half(self, pixels):
        self.now += 0.002

    def parts(self, size_hw):
        return {"decode": read_image, "half": self.half}


def test_batches_double_while_that_pays_and_one_image_alone_is_split(monkeypatch):
    subject = Steady()
    monkeypatch.setattr(benching.time, "perf_counter", lambda: subject.now)
    rows = list(benching._measured(subject, [benching._picture(0, (8, 8))], 1, 0.02))
    assert [row.batch for row in rows] == [1, 2, 4, 8, 16, 32, 64]
    assert subject.given == {1, 2, 4, 8, 16, 32, 64}
    assert rows[0].split_ms == {"decode": 0, "half": 2}
    assert [bool(row.split_ms) for row in rows] == [True, *[False] * 6]


def test_every_row_is_a_consistent_measurement(rows):
    for row in rows:
        assert row.to_plain().keys() >= NAMES
        assert 0 < row.latency_ms_p50 <= row.latency_ms_p95 <= row.latency_ms_p99
        assert row.images_per_second == pytest.approx(1000 * row.batch / row.latency_ms_p50, rel=0.01)
        assert row.runs >= (10 if row.batch == 1 else 3)
        assert (row.threads, row.device, row.size) == (1, "cpu", "64x64")


def test_the_parts_of_an_image_are_told(rows):
    eager = next(row for row in rows if row.engine == EAGER and row.batch == 1)
    assert tuple(eager.split_ms) == PARTS
    assert all(value > 0 for value in eager.split_ms.values())


def test_the_time_of_a_part_is_the_median_over_rounds_in_milliseconds(monkeypatch):
    """By a clock of our own: what a busy machine adds to a real one is no fault."""
    now = [0.0]
    taken = {"decode": iter([0.002, 0.002, 0.5] * 100), "graph": iter([0.005, 0.9, 0.005] * 100)}

    def part(name):
        def step(value):
            now[0] += next(taken[name])
            return [*value, name]

        return step

    subject = SimpleNamespace(parts=lambda size_hw: {name: part(name) for name in taken})
    monkeypatch.setattr(benching.time, "perf_counter", lambda: now[0])
    assert benching._split(subject, [], (8, 8), 20.0) == {"decode": 2.0, "graph": 5.0}


def test_the_parts_are_the_way_of_an_image(detector):
    """What the split times is the prediction itself, step by step."""
    picture = benching._picture(0, (70, 50))
    value = picture
    for part in benching._Eager(detector).parts((70, 50)).values():
        value = part(value)
    expected = detector.predict(read_image(picture))
    assert value[0].score == expected.score
    np.testing.assert_array_equal(value[0].anomaly_map, expected.anomaly_map)


def test_a_bundle_is_measured_by_each_engine_that_runs_it(bundle):
    pytest.importorskip("openvino")
    rows = bench(bundle, seconds=0.05, threads=1)
    assert [(row.engine, row.batch) for row in rows] == [("onnxruntime", 1), ("openvino", 1)]
    assert all(tuple(row.split_ms) == ("decode", "preprocess", "graph") for row in rows)
    alone = bench(bundle, engine="onnxruntime", seconds=0.05, threads=1)
    assert [row.engine for row in alone] == ["onnxruntime"]


def test_the_threads_of_the_process_are_as_before(folder):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        rows = bench(folder, engine=EAGER, size_hw=(40, 48), threads=1, seconds=0.02)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert (rows[0].threads, rows[0].size) == (1, "40x48")


def test_what_cannot_be_measured_is_said(folder, bundle, tmp_path):
    with pytest.raises(ConfigError, match="engine 'openvino' runs exported bundles"):
        bench(folder, engine="openvino")
    with pytest.raises(ConfigError, match="64x64 alone"):
        bench(bundle, size_hw=(32, 32))
    with pytest.raises(ConfigError, match="seconds = 0"):
        bench(folder, seconds=0)
    with pytest.raises(ArtifactError, match="no such"):
        bench(tmp_path / "none")


def test_a_sample_takes_the_time_it_is_given_after_a_warm_up():
    calls = []

    def slow():
        calls.append(time.perf_counter())
        time.sleep(0.02)

    times = call_times(slow, seconds=0.2, least=3)
    assert len(times) < len(calls)
    assert 0.02 <= np.median(times) < 0.2
    assert 0.2 <= times.sum() < 1
    assert len(call_times(lambda: time.sleep(0.03), seconds=0.01, least=4)) == 4


def test_the_machine_is_described():
    about = machine()
    assert about["cores"] == cores() == len(os.sched_getaffinity(0))
    assert about["cpu"]
