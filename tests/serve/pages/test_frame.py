"""What all pages share."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from invad.serve import pages

VENDOR = Path(pages.__file__).parent / "static" / "vendor"
NAV = ["Live", "History", "Review", "Limits", "Drift", "Models", "Settings"]


def test_vendored_files_are_those_of_their_packages():
    listed = json.loads((VENDOR / "hashes.json").read_text())
    found = {path.name: sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    del found["hashes.json"]
    assert found == {name: one["sha256"] for name, one in listed.items()}


@pytest.mark.parametrize("name", NAV)
def test_the_bar_leads_to_every_page(name, page):
    page.goto("/")
    page.get_by_role("link", name=name, exact=True).click()
    page.locator("h1").get_by_text(name).wait_for()
    assert page.locator("nav [aria-current=page]").inner_text() == name
