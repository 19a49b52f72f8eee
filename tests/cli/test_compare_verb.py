"""Two results side by side from the command line."""

import csv
import json

import pytest


@pytest.fixture(scope="session")
def rows(parts, trained, run, once):
    """What `evaluate --csv` writes of the parts."""

    def make(folder):
        folder.mkdir()
        assert run("evaluate", trained[0], parts, "--csv", folder / "a.csv").exit_code == 0

    return once("evaluated", make) / "a.csv"


def other(rows, path, change):
    """The same file with each row changed."""
    with rows.open(newline="") as file:
        told = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, told[0])
        writer.writeheader()
        writer.writerows(change(row) for row in told)
    return path


def test_two_models_on_the_same_images(run, rows, tmp_path):
    b = other(rows, tmp_path / "b.csv", lambda row: row | {"decision": "bad"})
    page, told, table = tmp_path / "c.html", tmp_path / "c.json", tmp_path / "c.csv"
    done = run("compare", rows, b, "--report", page, "--json", told, "--csv", table)
    assert done.exit_code == 0, done.stderr
    found = json.loads(told.read_text())
    assert (found["in_both"], found["a_alone"], found["b_alone"]) == (9, 0, 0)
    assert [test["what"].split()[0] for test in found["tests"]] == ["good", "defective"]
    assert found["tests"][0]["only_b"] + found["tests"][0]["both"] == 4
    assert found["image_auroc"]["a"] == found["image_auroc"]["b"]
    with table.open(newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} > {"good"}
    html = page.read_text(encoding="utf-8")
    assert html.count("<circle") == 9
    assert f"<strong>{len(found['changed'])}</strong><span>changed their decision" in html
    assert "McNemar" in done.stdout


def test_two_lots(run, rows, tmp_path):
    b = other(rows, tmp_path / "b.csv", lambda row: row | {"path": f"{row['path']}.bmp"})
    done = run("compare", rows, b, "--report", tmp_path / "c.html")
    assert done.exit_code == 0, done.stderr
    assert "no part in common" in done.stdout
    assert "<circle" not in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_the_same_pictures_from_another_folder_are_matched_and_it_is_said(run, rows, tmp_path):
    b = other(rows, tmp_path / "b.csv", lambda row: row | {"path": f"../there{row['path']}"})
    done = run("compare", rows, b, "--json", tmp_path / "c.json")
    assert "parts are matched by the end of their paths, before which stands nothing in A and there in B" in (
        " ".join(done.stderr.split())
    )
    assert json.loads((tmp_path / "c.json").read_text())["in_both"] == 9
    assert "no part in common" in run("compare", rows, b, "--two-lots").stdout
    moved = other(
        rows, tmp_path / "m.csv", lambda row: row | {"path": row["path"].replace("/test/", "/lot/")}
    )
    done = run("compare", rows, moved)
    assert "no part in common" in done.stdout
    assert "if the parts are the same ones, give --same-parts" in " ".join(done.stderr.split())
    assert "in both" in run("compare", rows, moved, "--same-parts").stdout


def test_parts_say_by_which_picture_they_were_seen(run, tmp_path):
    head = "part,score,p_value,decision,seen_by,reason,error,light1_path,light1_score,light1_p_value"
    for name, decided, seen in (("a", "bad", "light1"), ("b", "good", "light2")):
        rows = f"p0,3,0.02,{decided},{seen},,,in/p0_light1.png,2,0.05\n"
        (tmp_path / f"{name}.csv").write_text(f"{head}\n{rows}")
    files = ["--report", tmp_path / "c.html", "--csv", tmp_path / "c.csv", "--json", tmp_path / "c.json"]
    done = run("compare", tmp_path / "a.csv", tmp_path / "b.csv", *files)
    assert "bad -> good  p 0.02 -> 0.02  p0  light1 -> light2" in done.stdout
    with (tmp_path / "c.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["seen_by_a"], row["seen_by_b"]) == ("light1", "light2")
    assert json.loads((tmp_path / "c.json").read_text())["changed"][0]["seen_by_b"] == "light2"
    html = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "<b>light1 0.05</b>" in html
    assert "in bold the one that decided" in html


def test_what_cannot_be_compared_is_one_line(run, rows, tmp_path, one_line):
    for options, words in (
        ([tmp_path / "none.csv"], "none.csv: No such file"),
        ([rows, "--report", tmp_path / "c.pdf"], "end the name in .html"),
        ([rows, "--report", tmp_path / "c.html", "--csv", tmp_path / "c.html"], "give it one of its own"),
        ([rows, "--report", "/proc/c.html"], "/proc/c.html: cannot be written"),
    ):
        done = run("compare", rows, *options)
        assert done.exit_code in (1, 2), options
        assert words in one_line(done)
