"""The page of the models, by keyboard: upload, shadow, activate, roll back."""

import pytest

from bundles import altered, zipped


@pytest.fixture
def archive(bundle, tmp_path):
    path = tmp_path / "next.zip"
    path.write_bytes(zipped(altered(bundle, tmp_path / "next")))
    return path


@pytest.fixture
def press(page, ready):
    """press(name): go to a button with the keyboard and press it."""

    def go(name):
        ready(page)
        page.get_by_role("button", name=name).focus()
        page.keyboard.press("Enter")

    return go


def test_a_version_is_uploaded_shadowed_activated_and_rolled_back(page, press, site, archive, pictures):
    page.goto("/models")
    rows = page.locator("tr[data-version]")
    before = rows.count()
    (first,) = [one.get_attribute("data-version") for one in rows.all() if "judges here" in one.inner_text()]

    page.get_by_label("Bundle of").set_input_files({"name": "x.zip", "mimeType": "x", "buffer": b"nothing"})
    press("Upload and prove")
    page.get_by_text("is no .zip, .tar or .tar.gz file").wait_for()
    page.get_by_label("Bundle of").set_input_files(archive)
    press("Upload and prove")
    page.get_by_text("is a candidate").wait_for()
    assert rows.count() == before + 1
    row = rows.filter(has_text="candidate").first
    version = row.get_attribute("data-version")
    assert "probes as made" in row.inner_text()

    press("Shadow")
    page.get_by_text("of 500 parts scored by both").wait_for()
    with site.http() as http:
        for picture in (*pictures[0][:3], *pictures[1]):
            http.post("/api/v1/stations/default/inspect", files={"image": picture}).raise_for_status()
    page.locator("#shadowed").get_by_text("5", exact=True).wait_for()
    page.get_by_text("correlate by 1.000").wait_for()
    with site.http() as http:
        (newest,) = http.get("/api/v1/results", params={"limit": 1}).json()["results"]
    page.goto(f"/parts/{newest['id']}")
    shadows = page.locator('section[aria-labelledby="shadows"] tbody tr')
    assert version[:12] in shadows.inner_text()
    assert newest["decision"] in shadows.inner_text()
    page.goto("/models")

    press("Activate")
    page.keyboard.press("Enter")  # in the field of the reason: does it
    page.get_by_text("500 are asked; give a reason").wait_for()
    press("Activate")
    page.keyboard.type("a trial")
    page.keyboard.press("Enter")
    page.get_by_text("judges at default", exact=False).first.wait_for()
    here = page.locator(f'tr[data-version="{version}"]')
    here.get_by_text("judges here").wait_for()

    press(f"Roll back to {first[:12]}")
    page.keyboard.press("Enter")
    page.locator(f'tr[data-version="{first}"]').get_by_text("judges here").wait_for()
    asked = []
    page.on("request", lambda request: asked.append(request.method))
    press("Retire")
    page.get_by_text("Its files are deleted").wait_for()
    page.keyboard.press("Escape")  # which leaves it
    page.get_by_text("Its files are deleted").wait_for(state="hidden")
    page.reload()
    assert "POST" not in asked
    assert here.get_by_text("retired").count() == 0
    # What the service refused, the browser also writes down.
    page.complaints[:] = [one for one in page.complaints if "Failed to load resource" not in one]
