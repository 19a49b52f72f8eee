"""Formats of a benchmark with names that would break them, several seeds and nothing finished."""

import csv
import io
import re

import pytest

from invad.data.known import KNOWN
from invad.data.published import PUBLISHED
from invad.evaluation.benchmark import SETTINGS
from invad.evaluation.definitions import DEFINITIONS, same_metric
from invad.evaluation.results import FIGURES, result
from invad.evaluation.tables import (
    all_tables,
    as_csv,
    as_html,
    as_markdown,
    cell,
    overview,
    published_tables,
)
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


def of_mvtec(*categories, definitions=("exact", "ader200")):
    """Ours of the named categories of MVTec AD, with as many test images as it has."""
    rows = []
    for name in categories:
        count = KNOWN["mvtec"].categories[name.removeprefix("mvtec_")]
        bad = count.defective
        numbers = {"n_normal": count.test - bad, "n_anomalous": bad, "n_masked": bad}
        rows += [row(name, 0, 0.5, **numbers, definition=definition) for definition in definitions]
    return result(rows, RUN, len(categories))


def cells(table):
    """Name of a row -> column -> cell."""
    return {name: dict(zip(table.head, row, strict=True)) for name, row in table.rows}


def test_published_figures_stand_beside_the_same_metric():
    told = of_mvtec("mvtec_bottle")
    exact, ader = map(cells, published_tables(told))
    assert exact["mvtec_bottle: ours, calibrated"]["AUROC"] == "0.5000"
    dinomaly, patchcore = "mvtec_bottle: Dinomaly", "mvtec_bottle: PatchCore"
    assert (exact[dinomaly]["AUROC"], exact[dinomaly]["AUPRO"]) == ("1.0000", "–")
    assert (ader[dinomaly]["AUROC"], ader[dinomaly]["AUPRO"]) == ("1.0000", "0.9660")
    assert (exact[patchcore]["px AUROC"], ader[patchcore]["px AUROC"]) == ("0.9848", "–")
    assert (exact[dinomaly]["models"], exact[patchcore]["models"]) == ("one", "one each")
    assert "mean: Dinomaly" not in exact
    assert told["notes"] == []


def test_every_format_has_the_published_figures_and_their_source():
    told = of_mvtec("bottle", definitions=("ader200",))
    for text in (as_markdown(told), as_html(told)):
        for words in ("bottle: Dinomaly", "0.9660", "arXiv 2405.14325v1, tables A8 and A9"):
            assert words in text
    lines = [line for line in csv.DictReader(io.StringIO(as_csv(told))) if line["source"]]
    (line,) = [line for line in lines if line["protocol"] == "published: Dinomaly"]
    assert (line["category"], line["pixel_aupro"], line["pixel_f1max"]) == ("bottle", "0.966", "")


def test_the_published_mean_needs_the_whole_set():
    (table,) = published_tables(of_mvtec(*KNOWN["mvtec"].categories, definitions=("official",)))
    mean = cells(table)["mean: InvAD (arXiv 2504.05662)"]
    assert (mean["AUROC"], mean["mAD"]) == ("0.9900", "0.8370")
    (table,) = published_tables(of_mvtec("bottle", "cable", definitions=("official",)))
    assert not [name for name in cells(table) if name.startswith("mean")]


def test_an_unknown_set_has_none():
    assert found()["published"] == []
    assert published_tables(found()) == []
    assert "Beside published figures" not in as_markdown(found())


def test_another_number_of_test_images_is_said():
    (note,) = result([row("bottle", 0, 0.5)], RUN, 1)["notes"]
    assert "bottle: tested on 5 good and 4 defective images, MVTec AD has 20 and 63" in note


@pytest.mark.parametrize(
    ("metric", "first", "second", "same"),
    [
        ("image_auroc", "exact", "official", True),
        ("image_auroc", "exact", "adeval", False),
        ("image_f1max", "exact", "official", False),
        ("pixel_auroc", "exact", "ader200", False),
        ("pixel_aupro", "ader200", "ader200", True),
        ("mad", "official", "ader200", False),
        ("mad", "official", "official", True),
    ],
)
def test_same_metric(metric, first, second, same):
    assert same_metric(metric, first, second) is same


def test_publications_name_what_exists():
    for publications in PUBLISHED.values():
        for publication in publications:
            assert {publication.image, publication.pixel} <= DEFINITIONS.keys()
            assert publication.setting in SETTINGS
            assert {key for figures in publication.figures.values() for key in figures} <= set(FIGURES)
