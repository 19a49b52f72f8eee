"""Rows from prediction files against scikit-learn and loops, the file itself, and what is said of gaps."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from invad.data.preprocess import resize_map
from invad.errors import DataError
from invad.evaluation.definitions import DEFINITIONS
from invad.evaluation.predictions import PackedMask, Predictions, read_predictions, write_predictions
from invad.evaluation.results import mean_row, notes, rescore, rows_of_file, summary
from invad.evaluation.rows import Lazy, framed, row_of
from invad.metrics.alarms import count_interval
from invad.metrics.exact import SEVEN_METRICS
from oracles import brute_aupro

INPUT = (12, 16)


def made_up(seed=0, n=12, category="part", grid=(3, 4), sizes=((24, 32), (18, 20)), **changed):
    """Predictions of n images, a third of them defective with masks; scores with ties."""
    rng = np.random.default_rng(seed)
    defects = tuple("scratch" if i % 3 == 0 else "good" for i in range(n))
    hw = [sizes[i % len(sizes)] for i in range(n)]
    masks = tuple(
        PackedMask.pack(codes_of(rng, size), 2) if defect != "good" else None
        for size, defect in zip(hw, defects, strict=True)
    )
    scores = rng.integers(0, 8, n) + 2.0 * np.array([d != "good" for d in defects])
    parts = {
        "meta": {
            "category": category,
            "seed": seed,
            "input_hw": list(INPUT),
            "rates": {"review": 0.05, "bad": 0.01},
            "run": {"setting": "single"},
            "machine": {},
        },
        "paths": tuple(f"{category}/test/{i:03d}.png" for i in range(n)),
        "defects": defects,
        "samples": ("",) * n,
        "sizes_N2": np.array(hw, np.int32),
        "p_values": rng.random(n),
        "decisions": tuple("good" if score < 7 else "bad" for score in scores),
        "scores": {"calibrated": scores, "paper": rng.random(n)},
        "maps": {
            name: rng.standard_normal((n, *grid)).astype(np.float32) for name in ("calibrated", "paper")
        },
        "masks": masks,
    }
    return Predictions(**{**parts, **changed})


def codes_of(rng, size):
    codes = np.zeros(size, np.uint8)
    for code in (1, 2):
        y, x = rng.integers(0, size[0] - 6), rng.integers(0, size[1] - 6)
        codes[y : y + 6, x : x + 6] = code
    return codes


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_exact_rows_equal_scikit_learn_and_loops(seed):
    p = made_up(seed)
    row = row_of(p, "calibrated", "exact", resamples=2)
    labels, scores = p.labels, p.scores["calibrated"]
    maps, masks = (list(lazy) for lazy in framed(p, "calibrated", DEFINITIONS["exact"]))
    pixels, truth = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    for kind, values, true in (("image", scores, labels), ("pixel", pixels, truth)):
        assert row[f"{kind}_auroc"] == pytest.approx(roc_auc_score(true, values), abs=1e-9)
        assert row[f"{kind}_ap"] == pytest.approx(average_precision_score(true, values), abs=1e-9)
        precision, recall, _ = precision_recall_curve(true, values)
        with np.errstate(invalid="ignore"):
            best = np.nanmax(2 * precision * recall / (precision + recall))
        assert row[f"{kind}_f1max"] == pytest.approx(best, abs=1e-9)
    assert row["pixel_aupro"] == pytest.approx(brute_aupro(maps, masks, 0.3), abs=1e-9)
    assert row["mad"] == pytest.approx(np.mean([row[name] for name in SEVEN_METRICS]), abs=1e-12)


def test_each_definition_has_its_own_frame():
    p = made_up()
    shapes = {name: [m.shape for m in framed(p, "paper", d)[0]] for name, d in DEFINITIONS.items()}
    assert set(shapes["exact"]) == {INPUT}
    assert shapes["adeval"] == [p.size(i) for i in range(len(p.paths))]
    assert set(shapes["ader200"]) == set(shapes["official"]) == {(256, 256)}
    for definition in DEFINITIONS.values():
        maps, masks = framed(p, "paper", definition)
        assert [m.shape for m in maps] == [m.shape for m in masks]
        np.testing.assert_array_equal(maps[3], resize_map(p.maps["paper"][3], maps[3].shape))
    assert framed(p, "paper", DEFINITIONS["exact"])[1][0].any()
    assert not framed(p, "paper", DEFINITIONS["exact"])[1][1].any()


def test_maps_are_made_on_demand_and_not_kept():
    made = []
    lazy = Lazy(5, lambda i: made.append(i) or np.full(2, i))
    assert len(lazy) == 5
    assert made == []
    assert [int(x[0]) for x in lazy] == [0, 1, 2, 3, 4]
    assert int(lazy[-1][0]) == 4
    assert [int(x[0]) for x in lazy[1:4:2]] == [1, 3]
    assert made == [0, 1, 2, 3, 4, 4, 1, 3]
    with pytest.raises(IndexError):
        lazy[5]


def test_defects_without_a_mask_count_for_images_only():
    p = made_up()
    masks = list(p.masks)
    masks[0] = None
    some = replace(p, masks=tuple(masks))
    assert len(framed(some, "paper", DEFINITIONS["exact"])[0]) == len(p.paths) - 1
    row = row_of(some, "paper", "exact", resamples=2)
    assert (row["n_anomalous"], row["n_masked"]) == (4, 3)
    none = row_of(replace(p, masks=(None,) * len(masks)), "paper", "adeval", resamples=2)
    assert none["image_auroc"] is not None
    assert none["undefined"]["pixel_aupro"] == "no masks"
    assert none["undefined"]["mad"] == "one of the seven is undefined"
    empty = tuple(m and PackedMask.pack(np.zeros(p.size(i), np.uint8), 1) for i, m in enumerate(p.masks))
    lost = row_of(replace(p, masks=empty), "paper", "ader200", resamples=2)
    assert lost["undefined"]["pixel_ap"] == "no defective pixel is left of the masks"
    level = row_of(replace(p, scores={"paper": np.ones(len(p.paths))}), "paper", "adeval", resamples=2)
    assert level["undefined"]["image_auroc"] == "all scores are alike"
    dot = np.zeros(p.size(0), np.uint8)
    dot[0, 0] = 1  # no pixel of the frame is nearest to it
    dotted = replace(p, masks=(PackedMask.pack(dot, 1), *p.masks[1:]))
    pair = [row_of(dotted, "paper", name, 2) for name in ("exact", "adeval")]
    assert [row["n_vanished"] for row in pair] == [1, 0]
    told = notes([{**row, "n_masked": 3} for row in pair], 0, {})
    assert told == [
        "part: figures of pixels are of 3 of 4 defective images; the others have no mask that could be read.",
        "part: of 3 masks some have no pixel left in the frame of a definition (1 by exact), so what they "
        "mark counts in no figure of pixels.",
    ]


def test_objects_score_as_their_most_anomalous_view():
    p = made_up(samples=tuple("abcd"[i // 3] if i < 9 else "" for i in range(12)))
    row = row_of(p, "calibrated", "exact", resamples=2)
    scores, labels = p.scores["calibrated"], p.labels
    objects = [list(range(0, 3)), list(range(3, 6)), list(range(6, 9)), [9], [10], [11]]
    tops = [max(scores[i] for i in own) for own in objects]
    bad = [any(labels[i] for i in own) for own in objects]
    assert row["n_samples"] == 6
    assert row["sample_auroc"] == pytest.approx(roc_auc_score(bad, tops))
    assert row["sample_ap"] == pytest.approx(average_precision_score(bad, tops))
    assert "sample_auroc" not in row_of(made_up(), "calibrated", "exact", resamples=2)
    (told,) = notes([row], 0, {})
    assert "take the views of an object as independent images" in told


def test_false_alarms_are_those_of_the_decisions():
    row = row_of(made_up(), "paper", "exact", resamples=2)
    p = made_up()
    normal = [d for d, bad in zip(p.decisions, p.labels, strict=True) if not bad]
    assert row["false_alarm_rate"] == normal.count("bad") / 8
    assert row["false_alarms"]["bad"]["count"] == normal.count("bad")
    # Of a file that does not say how many calibrated it, the limit counts as known.
    assert row["false_alarms"]["review"]["expected_count_95"] == list(count_interval([(8, None)], 0.05))
    told = made_up(meta={**p.meta, "calibration_n": 8})
    row = row_of(told, "paper", "exact", resamples=2)
    assert row["false_alarms"]["review"]["expected_count_95"] == list(count_interval([(8, 8)], 0.05))


# The file


def test_a_file_gives_back_what_was_written(tmp_path):
    p = made_up(category="ödd/name", samples=("x",) * 12)
    q = read_predictions(write_predictions(tmp_path / "p.npz", p))
    assert {**q.meta, "format": None} == {**p.meta, "format": None}
    for name in ("paths", "defects", "samples", "decisions", "masks"):
        assert getattr(q, name) == getattr(p, name)
    np.testing.assert_array_equal(q.sizes_N2, p.sizes_N2)
    np.testing.assert_array_equal(q.p_values, p.p_values)
    for protocol in p.scores:
        np.testing.assert_array_equal(q.scores[protocol], p.scores[protocol])
        np.testing.assert_array_equal(q.maps[protocol], p.maps[protocol])
    codes, least = q.mask(0)
    assert (codes.shape, codes.max(), least) == (p.size(0), 2, 2)
    assert not q.mask(1)[0].any()
    with pytest.raises(DataError, match="mask of the prediction file is damaged"):
        PackedMask(b"nonsense", 1).unpack((2, 2))


def test_damaged_foreign_and_newer_files(tmp_path):
    path = write_predictions(tmp_path / "p.npz", made_up())
    whole = path.read_bytes()
    for content in (
        b"",
        b"text",
        whole[: len(whole) // 2],
        whole[:-40],
        whole.replace(b"meta.npy", b"mata.npy"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"p\.npz: damaged or no prediction file"):
            read_predictions(path)
    with pytest.raises(DataError, match=r"none\.npz: cannot be read"):
        read_predictions(tmp_path / "none.npz")
    stream = io.BytesIO()
    np.savez(stream, meta=np.array([json.dumps({"format": 99})]))
    path.write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="newer than this invad reads"):
        read_predictions(path)
    np.savez(path, meta=np.array([{"a": 1}], dtype=object))  # needs pickle, so it is not read
    with pytest.raises(DataError, match="damaged"):
        read_predictions(path)


def test_rows_are_kept_beside_their_file_until_it_changes(tmp_path):
    path, cache = write_predictions(tmp_path / "p.npz", made_up()), tmp_path / "rows" / "p.json"
    rows = rows_of_file(path, cache, ("exact",))
    spoiled = json.loads(cache.read_text())
    spoiled["rows"]["exact"][0]["image_auroc"] = 7
    cache.write_text(json.dumps(spoiled))
    assert rows_of_file(path, cache, ("exact",))[0]["image_auroc"] == 7  # taken from the cache
    more = rows_of_file(path, cache, ("exact", "official"))
    assert [row["definition"] for row in more] == ["exact", "official", "exact", "official"]
    write_predictions(path, made_up(seed=1))
    assert rows_of_file(path, cache, ("exact",))[0]["image_auroc"] != 7
    cache.write_text("{")
    assert len(rows_of_file(path, cache, ("exact",))) == len(rows)


def test_files_of_different_runs_are_not_mixed(tmp_path):
    write_predictions(tmp_path / "a.npz", made_up())
    write_predictions(tmp_path / "b.npz", made_up(category="other"))
    assert rescore(tmp_path)["run"]["categories"] == ["other", "part"]
    other = made_up(category="third")
    other.meta["run"] = {"setting": "unified"}
    write_predictions(tmp_path / "c.npz", other)
    with pytest.raises(DataError, match=r"c\.npz: of another run than .*a\.npz"):
        rescore(tmp_path)


# Means and notes


def rows_of_two(**changed):
    first = row_of(made_up(0, category="a"), "calibrated", "exact", resamples=2)
    return [
        first,
        {**row_of(made_up(1, category="b"), "calibrated", "exact", resamples=2), "seed": 0, **changed},
    ]


def test_means_are_over_the_categories_that_define_a_metric():
    rows = rows_of_two(pixel_aupro=None, mad=None, peak_memory_mb=200.0, images_per_second=4.0)
    rows[0] |= {"peak_memory_mb": 300.0, "images_per_second": 2.0}
    mean = mean_row(rows)
    assert mean["pixel_aupro"] == rows[0]["pixel_aupro"]
    assert mean["image_auroc"] == pytest.approx((rows[0]["image_auroc"] + rows[1]["image_auroc"]) / 2)
    assert mean["mad"] == pytest.approx(np.mean([mean[name] for name in SEVEN_METRICS]))
    assert (mean["peak_memory_mb"], mean["images_per_second"]) == (300.0, 3.0)
    table = summary(rows)["calibrated"]["exact"]
    assert table["categories"]["b"]["pixel_aupro"] is None
    assert table["mean"]["n_normal"] == 16


def test_notes_name_what_is_missing_and_why():
    rows = rows_of_two()
    assert notes(rows, 0, {}) == []
    rows[1]["undefined"] = {"pixel_aupro": "no masks", "pixel_ap": "no masks", "mad": "one of the seven"}
    rows[0]["skipped"] = ["a/test/x.png"]
    rows[0]["measured_on"], rows[1]["measured_on"] = "a processor", "a GPU"
    told = notes(rows, 3, {"c-seed-0": "no images"})
    assert told == [
        "c-seed-0 failed: no images",
        "Unfinished: 3 of the categories and seeds asked for are not in these tables.",
        "b: no masks, so no pixel_aupro, pixel_ap",
        "A mean is over the categories that define the metric (pixel_ap, pixel_aupro: 1 of 2); mAD is the "
        "mean of the seven means.",
        "Speed and memory were measured on several machines: a GPU; a processor.",
        "a: not read and left out: a/test/x.png",
    ]
    other = [{**row, "definition": "adeval", "undefined": {}} for row in rows]
    assert "b: no masks, so no pixel_aupro, pixel_ap by the definition exact" in notes([*rows, *other], 0, {})
