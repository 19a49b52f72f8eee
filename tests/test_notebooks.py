"""The notebooks of examples/ run from the first cell to the last, as plain Python in an empty folder."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples/notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_it_shows(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] != "code":
            continue
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), names)
        shown = "".join(line for out in cell["outputs"] for line in out.get("text", ()))
        # Figures differ in their last digits between machines, dates between days.
        assert len(capsys.readouterr().out.splitlines()) == len(shown.splitlines())
