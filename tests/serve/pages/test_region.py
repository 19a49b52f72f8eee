"""The region of interest of what judges: said and shown, and drawn anew on the last picture."""

import io
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image

from bundles import altered
from invad.data.region import digest_of, read_region
from invad.serve import Options, Service

CORNER = [[32, 32], [64, 32], [64, 64], [32, 64]]
REGION = {"frame": [64, 64], "include": [], "ignore": [CORNER], "min_cover": 0.5}


@pytest.fixture(scope="module")
def line(bundle, served, tmp_path_factory):
    """A service without keys whose model ignores a corner: url, and http to ask it."""
    folder = tmp_path_factory.mktemp("region")
    model = altered(bundle, folder / "ignoring", lambda plain: plain.update(region=REGION))
    with (
        Service(model, folder / "line", options=Options(reserve=0)) as service,
        served(service, without_keys=True) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as http,
    ):
        yield SimpleNamespace(url=url, http=http, service=service)


@pytest.fixture(scope="module")
def part(line, pictures):
    """A part that it has judged."""
    assert "No picture of this station is kept yet" in line.http.get("/region").text
    return line.service.inspect(pictures[0][0], part_id="first")


@pytest.fixture
def tab(browser, line):
    """A tab of a phone; it fails with what the page's script or its policy complained of."""
    context = browser.new_context(base_url=line.url, viewport={"width": 390, "height": 844})
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text))
    yield page
    context.close()
    assert wrong == []


def ignored(http, address):
    """H x W: how opaque the stripes are there."""
    with Image.open(io.BytesIO(http.get(address).raise_for_status().content)) as drawn:
        return np.asarray(drawn.convert("LA"))[..., 1]


def test_a_station_says_what_counts(line, part):
    (station,) = line.http.get("/api/v1/stations").json()["stations"]
    sha256 = digest_of(line.service.active().detector.region)
    assert station["region"] == {"frame": [64, 64], "inspected": 0.75, "sha256": sha256}
    assert line.http.get("/api/v1/stations/default/region").json() == REGION
    corner = np.zeros((64, 64), bool)
    corner[32:, 32:] = True
    for address in ("/region/ignored?station=default", f"/parts/{part.id}/ignored"):
        assert np.array_equal(ignored(line.http, address) > 0, corner)
    assert "75 % of pictures of 64 × 64 pixels" in line.http.get("/models").text
    assert 'id="ignored"' in line.http.get(f"/parts/{part.id}").text


def test_where_all_of_a_picture_counts_nothing_is_shown(site):
    with site.http() as http:
        assert http.get("/api/v1/stations").json()["stations"][0]["region"] is None
        refused = http.get("/api/v1/stations/default/region")
        assert (refused.status_code, refused.json()["error"]) == (
            404,
            "at station 'default' all of a picture counts",
        )
        assert http.get("/region/ignored", params={"station": "default"}).status_code == 404


def test_only_who_may_upload_draws(site):
    with site.http() as http:
        key = http.post("/api/v1/keys", json={"name": "looks", "scopes": ["read"]}).json()["secret"]
        assert "Draw a region" in http.get("/models").text
    with site.http(key) as http:
        models = http.get("/models")
        assert (models.status_code, "Draw a region" in models.text) == (200, False)
        assert http.get("/region").status_code == 403


def test_a_region_is_drawn_on_the_last_picture(tab, part, tmp_path):
    tab.goto("/models")
    tab.get_by_role("link", name="Draw a region").click()
    tab.get_by_text("Ignore: 4 points").wait_for()  # the model's own
    paper = tab.locator("#paper")
    paper.scroll_into_view_if_needed()
    assert tab.evaluate("document.querySelector('.boxed img').complete")
    box = paper.bounding_box()
    for x, y in [(4, 4), (20, 4), (20, 20)]:
        tab.mouse.click(box["x"] + x * box["width"] / 64, box["y"] + y * box["height"] / 64)
    tab.get_by_role("button", name="Close shape").click()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save region.json").click()
    download.value.save_as(tmp_path / "region.json")
    region = read_region(tmp_path / "region.json")
    first, second = region.ignore
    assert np.array_equal(first, CORNER)
    assert np.abs(np.subtract(second, [(4, 4), (20, 4), (20, 20)])).max() < 1
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_one_may_draw_on_another_recent_picture(tab, line, part, pictures, draw):
    other = line.service.inspect(pictures[0][1], part_id="second")
    tab.goto("/region")
    paper = tab.locator("#paper")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    for x, y in [(4, 4), (20, 4), (20, 20)]:
        tab.mouse.click(box["x"] + x * box["width"] / 64, box["y"] + y * box["height"] / 64)
    assert tab.locator("#drawn").text_content() == "second"
    tab.locator(".strip a").last.click()
    assert tab.locator("#drawn").text_content() == "first"
    assert part.id in tab.locator(".drawing img").get_attribute("src")
    tab.get_by_text("3 points; the first one closes it").wait_for()  # what was drawn is still there
    tab.evaluate("document.getElementById('undo').click()")
    assert f'/parts/{other.id}"' in line.http.get("/region").text
    assert f'/parts/{part.id}"' in line.http.get("/region", params={"part": part.id}).text
    refused = line.http.get("/region", params={"part": "none"})
    assert refused.status_code == 404


def test_stripes_over_a_part_are_shown_and_hidden(tab, part):
    tab.goto(f"/parts/{part.id}")
    stripes = tab.locator("#ignored")
    stripes.wait_for()
    tab.keyboard.press("i")
    stripes.wait_for(state="hidden")
