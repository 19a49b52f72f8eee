"""The report of a lot from the command line, and what it does not go with."""

import json
import re

import pytest

from invad.detector.detector import Detector


@pytest.fixture
def images(own_parts):
    """A good one, one that is cut off, and one with a defect."""
    test = own_parts / "gasket" / "test"
    good, broken = sorted((test / "good").iterdir())[:2]
    broken.write_bytes(broken.read_bytes()[:300])
    return good, broken, next((test / "cut").iterdir())


def test_the_page_says_what_the_rows_say(run, model, images, tmp_path):
    page, rows, table = tmp_path / "lot.html", tmp_path / "rows.json", tmp_path / "d.csv"
    done = run(
        *("predict", model, *images, "--report", page, "--json", rows, "--defects", table),
        *("--scale", "0.05mm"),
    )
    assert done.exit_code == 0, done.stderr
    html = page.read_text(encoding="utf-8")
    told = json.loads(rows.read_text())["images"]
    decisions = [row["decision"] for row in told if row["decision"]]
    assert len(decisions) == 2
    assert re.findall(r'badge \w+">(?:called |sent to )(\w+)', html) == sorted(
        decisions, key=lambda d: -max(row["score"] for row in told if row["decision"] == d)
    )
    flagged = sum(len(row["defects"]) for row in told if row["decision"] in ("review", "bad"))
    assert f"<strong>{len(decisions)}</strong><span>parts judged" in html
    assert (f"{flagged} place" if flagged else "No place: no heat map of a flagged part") in html
    assert told[1]["error"].split(":")[0] in html
    detector = Detector.load(model)
    assert f"{detector.calibrations[''].n} good images set the limits" in html
    assert "Drift cannot be seen" in html  # twelve normals are too few
    assert table.exists()


def test_what_a_report_cannot_be_is_one_line(run, model, images, tmp_path, one_line):
    for options, words in (
        (["--report", tmp_path / "lot.pdf"], "end the name in .html"),
        (["--report", tmp_path / "a.html", "--defects", tmp_path / "a.html"], "give it one of its own"),
        (["--report", tmp_path / "a.html", "--server", "http://127.0.0.1:1"], "--report needs the maps"),
        (["--report", "/proc/lot.html"], "/proc/lot.html: cannot be written"),
    ):
        done = run("predict", model, images[0], *options)
        assert done.exit_code in (1, 2), options
        assert words in one_line(done)
        assert not (tmp_path / "a.html").exists()


def test_a_report_of_nothing_is_not_written(run, model, images, tmp_path):
    done = run("predict", model, images[1], "--report", tmp_path / "lot.html")
    assert done.exit_code == 1
    assert not (tmp_path / "lot.html").exists()


def test_evaluate_says_where_defects_lie(run, model, own_parts, tmp_path):
    report, table = tmp_path / "r.html", tmp_path / "d.json"
    done = run("evaluate", model, own_parts, "--report", report, "--defects", table)
    assert done.exit_code == 0, done.stderr
    html = report.read_text(encoding="utf-8")
    rows = json.loads(table.read_text())["images"]
    flagged = sum(len(row["defects"]) for row in rows if row["decision"] != "good")
    assert flagged
    assert (f"{flagged} place" if flagged else "No place: no heat map of a flagged part") in html
    assert "Where defects lie" in html
