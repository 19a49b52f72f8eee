"""The page on which a region is drawn, in a browser, with a mouse and with a finger."""

import json

import numpy as np
import pytest
from PIL import Image

from invad.data.region import read_region

CODE = [(235, 205), (430, 205), (430, 265), (235, 265)]
PART = [(60, 20), (590, 20), (600, 460), (50, 460)]


@pytest.fixture
def drawn(run, draw, tmp_path):
    """drawn(*options): where the page of a picture of 640 x 480 pixels is."""
    Image.fromarray(draw(0)).resize((640, 480)).save(tmp_path / "part.png")

    def write(*options):
        page = tmp_path / "region.html"
        result = run("roi", "draw", tmp_path / "part.png", "--to", page, *options)
        assert result.exit_code == 0, result.stderr
        return page.as_uri()

    return write


@pytest.fixture(params=["mouse", "finger"])
def tab(request, browser):
    """A new tab; tab.touches says how it is touched. It fails with what the page's script complained of."""
    size = {"width": 1280, "height": 800} if request.param == "mouse" else {"width": 390, "height": 844}
    context = browser.new_context(viewport=size, has_touch=request.param == "finger")
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text))
    page.touches = page.touchscreen.tap if request.param == "finger" else page.mouse.click
    yield page
    context.close()
    assert wrong == []


def touch(tab, points):
    box = tab.locator("#paper").bounding_box()
    for x, y in points:
        tab.touches(box["x"] + x * box["width"] / 640, box["y"] + y * box["height"] / 480)


def saved(tab, path):
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save region.json").click()
    download.value.save_as(path)
    return read_region(path)


def near(polygon, points):
    return np.abs(np.subtract(polygon, points)).max() < 2


def test_shapes_are_drawn_and_saved(tab, drawn, tmp_path):
    tab.goto(drawn())
    touch(tab, CODE)
    tab.get_by_role("button", name="Close shape").click()
    tab.get_by_role("button", name="Inspect", exact=True).click()
    touch(tab, [*PART, PART[0]])
    region = saved(tab, tmp_path / "region.json")
    assert (region.frame, region.min_cover, len(region.include), len(region.ignore)) == (
        (640, 480),
        0.5,
        1,
        1,
    )
    assert near(region.ignore[0], CODE)
    assert near(region.include[0], PART)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # What is saved can be gone on with, on the same page and on another.
    tab.goto(drawn("--roi", tmp_path / "region.json"))
    tab.get_by_role("button", name="Remove shape 1").click()
    assert saved(tab, tmp_path / "less.json").ignore == region.ignore
    tab.get_by_label("Go on with a region drawn earlier").set_input_files(tmp_path / "region.json")
    tab.get_by_role("button", name="Remove shape 2").wait_for()  # a file is read beside what else happens
    assert saved(tab, tmp_path / "again.json") == region


def test_points_are_moved_and_steps_undone(tab, drawn, tmp_path):
    tab.goto(drawn())
    save = tab.get_by_role("button", name="Save region.json")
    assert save.is_disabled()
    touch(tab, CODE[:2])
    assert tab.get_by_role("button", name="Close shape").is_disabled()
    assert save.is_disabled()
    touch(tab, [(600, 400), CODE[2]])
    tab.get_by_role("button", name="Undo").click()
    tab.get_by_role("button", name="Undo").click()
    touch(tab, CODE[2:])
    tab.get_by_role("button", name="Close shape").click()
    box = tab.locator("#paper").bounding_box()

    def at(x, y):
        return box["x"] + x * box["width"] / 640, box["y"] + y * box["height"] / 480

    tab.mouse.move(*at(*CODE[0]))
    tab.mouse.down()
    tab.mouse.move(*at(100, 100))
    tab.mouse.up()
    region = saved(tab, tmp_path / "region.json")
    assert near(region.ignore[0], [(100, 100), *CODE[1:]])


def test_a_region_of_another_picture_is_not_taken(browser, drawn, tmp_path):
    (tmp_path / "other.json").write_text(
        json.dumps({"frame": [64, 64], "ignore": [[[0, 0], [9, 0], [9, 9]]]})
    )
    page = browser.new_page()
    page.goto(drawn())
    page.get_by_label("Go on with a region drawn earlier").set_input_files(tmp_path / "other.json")
    page.get_by_text("other.json: is drawn on pictures of 64,64 pixels").wait_for()
    page.close()


def test_a_name_is_only_text(run, draw, tmp_path):
    path = tmp_path / "<script>alert(1)<script>.png"
    Image.fromarray(draw(0)).save(path)
    assert run("roi", "draw", path, "--to", tmp_path / "page.html").exit_code == 0
    assert "<script>alert" not in (tmp_path / "page.html").read_text()


def test_a_region_of_another_size_is_one_line(run, one_line, draw, tmp_path):
    Image.fromarray(draw(0)).save(tmp_path / "part.png")
    (tmp_path / "other.json").write_text(
        json.dumps({"frame": [640, 480], "ignore": [[[0, 0], [9, 0], [9, 9]]]})
    )
    options = ("--to", tmp_path / "page.html", "--roi", tmp_path / "other.json")
    result = run("roi", "draw", tmp_path / "part.png", *options)
    assert result.exit_code == 1
    one_line(result, "64 x 64 pixels, and the region of interest is drawn on pictures of 640 x 480")
    assert not (tmp_path / "page.html").exists()
