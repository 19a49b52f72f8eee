"""What a reader of the Markdown files meets: links that lead somewhere, pages that say what they are for."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from invad.cli.app import app

ROOT = Path(__file__).parents[1]
DOCS = sorted(ROOT.glob("docs/**/*.md"))
PAGES = [*ROOT.glob("*.md"), *DOCS, *ROOT.glob("benchmarks/**/*.md")]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [t for t in targets if not t.startswith(("http://", "https://"))]
    assert [t for t in local if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_rows_of_a_table_have_the_columns_of_its_head(page):
    columns, odd = None, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("|"):
            columns = None
            continue
        found = len(re.findall(r"(?<!\\)\|", line))
        columns = columns or found
        if found != columns:
            odd.append(number)
    assert odd == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 800


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", index)}
    assert [p.name for p in DOCS if p.name != "index.md" and p.resolve() not in linked] == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_opens_with_whom_it_is_for_and_a_short_summary(page):
    title, _, rest = page.read_text(encoding="utf-8").partition("\n\n")
    opening = rest.partition("\n## ")[0]
    for_whom, _, after = opening.partition("\n\nIn short:\n\n")
    summary = after.partition("\n\n")[0].splitlines()
    assert title.startswith("# ")
    assert for_whom.startswith("For ")
    assert summary[0].startswith("- ")
    assert len(summary) <= 15
    assert max(map(len, summary)) <= 125


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda page: page.name)
def test_python_examples_compile(page):
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(code, str(page), "exec")


def calls(text):
    """Words after `invad` of every call in code, in blocks and in sentences, `torchrun -m invad` too."""
    blocks = [code for language, code in FENCE.findall(text) if language != "python"]
    blocks += re.findall(r"^(?: {4}.*\n)+", text, re.MULTILINE)
    blocks += [f"{code}\n" for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)]
    lines = re.sub(r"\\\n", " ", "".join(blocks)).splitlines()
    found = (re.match(r"\s*(?:\$ )?(?:\w+=\S+ )*(?:torchrun .* -m )?invad (.*)", line) for line in lines)
    return [re.findall(r"[^\s\[\]]+", call[1].partition(" #")[0]) for call in found if call]


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    for words in calls(page.read_text(encoding="utf-8")):
        command, rest = get_command(app), words
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            if rest[0] not in command.commands and hasattr(command, "default_verb"):
                rest = [command.default_verb, *rest]
            assert rest[0] in command.commands, words
            command, rest = command.commands[rest[0]], rest[1:]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        assert {word for word in rest if word.startswith("-") and word != "-"} - options == set(), words
