"""What a reader of the Markdown files meets: links that lead somewhere, pages that say what they are for."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = sorted(ROOT.glob("docs/*.md"))
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
