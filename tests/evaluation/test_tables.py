"""Formats of a benchmark with names that would break them, several seeds and nothing finished."""

import csv
import io
import re

from invad.evaluation.results import FIGURES, result
from invad.evaluation.tables import all_tables, as_csv, as_html, as_markdown, cell, overview
from invad.metrics.exact import SEVEN_METRICS

NASTY = r"a_b & <b>|100%|\x{$#~^}"
RUN = {
    "data": "set_1",
    "layout": "mvtec",
    "setting": "single",
    "preset": "fast",
    "backbone": None,
    "steps": 40,
    "machine": {
        "gpu": None,
        "cpu": "a processor",
        "cores": 2,
        "threads": 1,
        "date": "2026-11-24",
        "versions": {"invad": "0.1"},
    },
}


def row(category, seed, value, **changed):
    figures = dict.fromkeys(FIGURES, value) | {"images_per_second": 12.345, "peak_memory_mb": 1234.5}
    return {
        "category": category,
        "seed": seed,
        "protocol": "calibrated",
        "definition": "exact",
        **{key: figure for key, figure in figures.items() if not key.startswith("sample")},
        "image_95": {"image_auroc": [value - 0.1, value + 0.1]},
        "n_normal": 5,
        "n_anomalous": 4,
        "n_masked": 4,
        "false_alarms": {"review": {"asked": 0.05}, "bad": {"asked": 0.01}},
        "undefined": {},
        **changed,
    }


def found():
    rows = [row(name, seed, 0.5 + seed / 10) for name in (NASTY, "plain") for seed in (0, 1)]
    rows[0] |= {"pixel_ap": None, "mad": None, "undefined": {"pixel_ap": "no masks", "mad": "undefined"}}
    return result(rows, RUN, 4)


def test_cells():
    assert cell("image_auroc", [0.98765, None]) == "0.9877"
    assert cell("image_auroc", [0.98765, 0.01]).replace("\u00a0", " ") == "0.9877 ± 0.0100"
    assert cell("peak_memory_mb", [1234.5, None]) == "1234"
    assert cell("pixel_ap", None) == "–"


def test_means_stand_side_by_side():
    table = overview(found())
    assert [name for name, _ in table.rows] == ["calibrated, exact"]
    assert len(table.head) == len(SEVEN_METRICS) + 1
    assert table.rows[0][1][0].replace("\u00a0", " ") == "0.5500 ± 0.0707"


def test_markdown_keeps_its_columns():
    text = as_markdown(found())
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) == len(all_tables(found())) + 1
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_csv_quotes_names_and_leaves_gaps_empty():
    lines = list(csv.DictReader(io.StringIO(as_csv(found()))))
    assert [line["category"] for line in lines] == [NASTY, NASTY, "plain", "plain"]
    assert lines[0]["pixel_ap"] == lines[0]["mad"] == lines[0]["image_ap_95_low"] == ""
    assert lines[0]["undefined"] == "pixel_ap: no masks; mad: undefined"
    assert float(lines[0]["image_auroc_95_low"]) == 0.4


def test_html_escapes_names_and_loads_nothing():
    page = as_html(found())
    assert "a_b &amp; &lt;b&gt;|100%|" in page
    assert "<b>|" not in page
    assert "Content-Security-Policy" in page
    assert not re.search(r"(?:src|href)=", page)
    assert "over 2 seeds" in page
    assert "a processor, 2 cores, 1 thread, 2026-11-24" in page


def test_nothing_finished_still_makes_every_format():
    empty = result([], RUN, 3, {"x-seed-0": "no images"})
    assert all_tables(empty) == []
    assert "x-seed-0 failed: no images" in as_markdown(empty)
    assert "Nothing is finished" in as_html(empty)
    assert len(as_csv(empty).splitlines()) == 1
