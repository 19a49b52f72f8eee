"""The benchmark from the command line: a killed process, formats, refusals, rescoring without torch."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from invad.data.synthetic import write_dataset
from invad.evaluation.predictions import read_predictions, write_predictions

OPTIONS = ("--preset", "paper-s", "--steps", 1, "--setting", "single", "--device", "cpu")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two categories of 4 training images, 2 good ones and one of each of 5 defects. Not to be written to."""
    folder = tmp_path_factory.mktemp("sets") / "two_sets"
    return write_dataset(folder, categories=["gasket", "fabric"], train=4, test_good=2, per_defect=1, size=64)


@pytest.fixture(scope="module")
def killed(two, command, environment, run, tmp_path_factory):
    """(output folder, prediction file before the kill, its time, result of the continued run)."""
    home = tmp_path_factory.mktemp("home")
    images = listing(two)
    output = home / "run"
    first = output / "predictions" / "fabric-seed-0.npz"
    arguments = ("benchmark", "run", "mvtec", two, *OPTIONS, "--output", output, "--metrics", "exact,adeval")
    # As many threads as the run in this process, which continues it: else the table names two machines.
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        command(*arguments), env=environment(home, **threads), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert first.exists()
    assert not (output / "predictions" / "gasket-seed-0.npz").exists()
    before = first.stat().st_mtime_ns
    result = run(*arguments, "--json", "-")
    assert listing(two) == images  # the data set is read only
    return output, first, before, result


def listing(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_killed_run_continues_and_runs_nothing_twice(killed):
    _, first, before, result = killed
    assert result.exit_code == 0
    assert first.stat().st_mtime_ns == before
    assert "fabric-seed-0, finished before" in result.stderr
    assert result.stderr.count("features: 4") == 2  # images and megabytes, then the stage: of one category
    told = json.loads(result.stdout)
    assert (told["run"]["finished"], told["run"]["expected"], told["failed"]) == (2, 2, {})
    assert {(r["category"], r["protocol"], r["definition"]) for r in told["rows"]} == {
        (c, p, d) for c in ("fabric", "gasket") for p in ("calibrated", "paper") for d in ("exact", "adeval")
    }


def test_only_whole_files_are_left(killed):
    output = killed[0]
    names = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    formats = {f"benchmark.{ending}" for ending in ("json", "csv", "md", "html")}
    pairs = {
        f"{folder}/{c}-seed-0.{e}"
        for c in ("fabric", "gasket")
        for folder, e in (("predictions", "npz"), ("rows", "json"))
    }
    assert names == {"run.json", *formats, *pairs}


def test_json_and_csv_hold_the_same_numbers(killed):
    output, *_, result = killed
    told = json.loads((output / "benchmark.json").read_text())
    assert told["rows"] == json.loads(result.stdout)["rows"]
    lines = list(csv.DictReader(io.StringIO((output / "benchmark.csv").read_text())))
    assert len(lines) == len(told["rows"]) == 8
    for line, row in zip(lines, told["rows"], strict=True):
        assert (line["category"], line["protocol"], line["definition"]) == (
            row["category"],
            row["protocol"],
            row["definition"],
        )
        for key in ("image_auroc", "pixel_aupro", "mad", "false_alarm_rate", "images_per_second"):
            assert float(line[key]) == row[key]
        low, high = row["image_95"]["image_auroc"]
        assert (float(line["image_auroc_95_low"]), float(line["image_auroc_95_high"])) == (low, high)


def test_markdown_tables_are_tables(killed):
    text = (killed[0] / "benchmark.md").read_text()
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    for name in ("exact", "adeval"):
        assert f"## Protocol calibrated, metrics {name}" in text
        assert f"## Protocol paper, metrics {name}" in text


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.linked = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        self.linked += [value for key, value in attributes if key in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] in ("td", "th", "h2"):
            self.cells.append(text.strip())


def test_the_page_is_whole_and_loads_nothing(killed):
    page = Page((killed[0] / "benchmark.html").read_text())
    assert (page.open, page.linked) == ([], [])
    for word in ("fabric", "gasket", "mean", "calibrated, adeval", "Protocol paper, metrics exact", "AUPRO"):
        assert word in page.cells
    told = json.loads((killed[0] / "benchmark.json").read_text())
    assert f"{told['rows'][0]['image_auroc']:.4f}" in page.cells


def test_words_on_the_terminal(killed, run):
    result = run("benchmark", "rescore", killed[0], "--metrics", "ader200")
    assert result.exit_code == 0
    assert "Protocol calibrated, metrics ader200" in result.stdout
    heads = [line.split() for line in result.stdout.splitlines() if "AUPRO" in line]
    assert heads[0][:2] == ["good", "defective"]
    assert [line.split()[0] for line in result.stdout.splitlines()[2:5]] == ["fabric", "gasket", "mean"]


def test_published_figures_are_printed_for_a_known_set_alone(killed, run, tmp_path):
    assert "published" not in run("benchmark", "rescore", killed[0]).stdout
    ours = read_predictions(killed[1])
    named = replace(ours, meta={**ours.meta, "category": "bottle"})
    write_predictions(tmp_path / "bottle-seed-0.npz", named)
    result = run("benchmark", "rescore", tmp_path)
    assert "Beside published figures, metrics exact" in result.stdout
    assert re.search(r"^bottle: PatchCore +1\.0000 .* 0\.9848 ", result.stdout, re.MULTILINE)
    assert "PatchCore (one model for each category): arXiv 2106.08265" in result.stdout
    assert "MVTec AD has 20 and 63" in result.stderr


def test_rescoring_needs_neither_model_nor_torch(killed, tmp_path):
    code = (
        "import sys\nfrom invad.cli import main\nsys.argv[0] = 'invad'\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    arguments = [
        "benchmark",
        "rescore",
        str(killed[0]),
        "--metrics",
        "exact,official",
        "--output",
        str(tmp_path / "again"),
    ]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "False\n")
    told = json.loads((tmp_path / "again" / "benchmark.json").read_text())
    assert list(told["definitions"]) == ["exact", "official"]
    assert len(list((tmp_path / "again").iterdir())) == 4


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--categories", "gasket,screw"], 1, "no category screw; choose from fabric, gasket"),
        (["--metrics", "exact,best"], 2, "'best' is unknown; choose from exact, adeval, ader200, official"),
        (["--seeds", "0,one"], 2, "--seeds 0,one: give whole numbers"),
        (["--preset", "best"], 2, "preset 'best' is unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_options_are_one_line_and_leave_nothing(
    two, run, tmp_path, one_line, arguments, status, words
):
    result = run("benchmark", "run", "auto", two, "--output", tmp_path / "out", *arguments)
    assert result.exit_code == status
    assert words in one_line(result)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_layout_or_folder(two, run, tmp_path, one_line):
    result = run("benchmark", "run", "cifar", two, "--output", tmp_path / "out")
    assert result.exit_code == 2
    one_line(result, "layout 'cifar' is unknown")
    missing = run("benchmark", "run", "auto", tmp_path / "none", "--output", tmp_path / "out")
    assert missing.exit_code == 1
    one_line(missing, "no such folder")
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_cannot_be_written(two, run, tmp_path, one_line):
    if os.geteuid() == 0:
        (tmp_path / "file").write_text("")  # rights do not bind root: a file in the way does
        output = tmp_path / "file" / "out"
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
        output = tmp_path / "locked" / "out"
    result = run("benchmark", "run", "auto", two, "--output", output)
    assert result.exit_code == 1
    one_line(result, "cannot be written", "choose" if os.geteuid() else "check the path")


def test_rescoring_what_is_not_there(run, tmp_path, one_line, killed):
    nothing = run("benchmark", "rescore", tmp_path)
    assert nothing.exit_code == 1
    one_line(nothing, tmp_path, "no prediction files")
    one_line(run("benchmark", "rescore", tmp_path / "none"), "no such file or folder")
    broken = tmp_path / "gasket-seed-0.npz"
    broken.write_bytes((killed[0] / "predictions" / "gasket-seed-0.npz").read_bytes()[:-300])
    one_line(run("benchmark", "rescore", broken), broken, "damaged or no prediction file")
    unknown = run("benchmark", "rescore", killed[0], "--metrics", "best")
    assert unknown.exit_code == 2
    one_line(unknown, "'best' is unknown")
