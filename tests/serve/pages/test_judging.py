"""People judge, limits follow, drift is seen: one station of the shared service, in the order of a story."""

import io

import numpy as np
import pytest
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of invad[test]")
expect = sync_api.expect
expect.set_options(timeout=30_000)  # as of the pages: the machine may be busy
STATION = "judging"
EDGE = 64
"""Of the pictures, in pixels."""


@pytest.fixture(scope="module")
def line(site, draw):
    """line(seed, defect, light): the answer to a part that was sent. One station for these tests alone."""
    with site.http() as http:
        assert http.post("/api/v1/stations", json={"name": STATION}).status_code == 201

        def send(seed, defect=False, light=0.0):
            stream = io.BytesIO()
            pixels = draw(seed, defect).astype(float) + light
            Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)).save(stream, "PNG")
            answer = http.post(
                f"/api/v1/stations/{STATION}/inspect",
                content=stream.getvalue(),
                params={"part_id": f"{'bad' if defect else 'part'}-{seed}"},
                headers={"Content-Type": "image/png"},
            )
            assert answer.status_code == 200, answer.text
            return answer.json()

        send.http = http
        yield send


def reviews(line, part):
    return line.http.get(f"/api/v1/results/{part['id']}/reviews").json()["reviews"]


def verdict(line, part):
    return line.http.get(f"/api/v1/results/{part['id']}").json()["verdict"]


def bits(runs):
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(EDGE, EDGE)


def test_parts_are_judged_by_key_with_a_mask_and_a_verdict_is_taken_back(page, line):
    parts = [line(9000 + i, defect=True) for i in range(3)]
    page.goto(f"/review?station={STATION}")
    expect(page.locator("#waiting")).to_have_text("3 parts wait")
    expect(page.locator("#what")).to_have_text("Part bad-9000")
    expect(page.locator("#decided")).to_contain_text("bad")
    expect(page.locator("#picture")).to_have_js_property("naturalWidth", EDGE)
    expect(page.locator("#heat")).not_to_have_js_property("naturalWidth", 0)
    # a stroke with the mouse in the upper left quarter, taken back and done again
    page.keyboard.press("p")
    box = page.locator("#mask").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.2 * box["height"], steps=4)
    page.mouse.up()
    expect(page.locator("#painted")).to_contain_text("pixels are painted")
    page.keyboard.press("Control+z")
    expect(page.locator("#painted")).to_be_empty()
    page.keyboard.press("Control+y")
    expect(page.locator("#painted")).to_contain_text("pixels are painted")
    page.get_by_label("Kind of defect").fill("spot")
    page.locator("#what").focus()
    page.keyboard.press("b")
    expect(page.locator("#what")).to_have_text("Part bad-9001")
    expect(page.locator("#waiting")).to_have_text("2 parts wait")
    (said,) = reviews(line, parts[0])
    painted = bits(said["mask"])
    assert (said["verdict"], said["defect"]) == ("bad", "spot")
    assert painted[12, 14:25].all()
    assert 0 < painted.sum() < 300
    assert not painted[20:].any()
    # a slip of the finger, and back: the part waits again, with its mask
    page.keyboard.press("z")
    expect(page.locator("#what")).to_have_text("Part bad-9000")
    expect(page.locator("#painted")).to_have_text(f"{painted.sum()} pixels are painted")
    expect(page.get_by_label("Kind of defect")).to_have_value("spot")
    assert verdict(line, parts[0]) is None
    # the eraser with the keyboard alone takes away, the brush adds
    page.locator("#mask").focus()
    page.keyboard.press("e")
    for _ in range(20):
        page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("p")
    page.keyboard.press("Space")
    page.keyboard.press("b")
    expect(page.locator("#what")).to_have_text("Part bad-9001")
    assert [one["verdict"] for one in reviews(line, parts[0])] == ["bad", "open", "bad"]
    assert not np.array_equal(bits(reviews(line, parts[0])[0]["mask"]), painted)
    page.keyboard.press("u")
    expect(page.locator("#what")).to_have_text("Part bad-9002")
    page.get_by_role("button", name="bad B").click()
    expect(page.locator("#empty")).to_be_visible()
    assert [verdict(line, one) for one in parts] == ["bad", "unsure", "bad"]
    # the page of the part lays the mask over the picture
    page.goto(f"/parts/{parts[0]['id']}")
    expect(page.locator("#mask")).to_be_hidden()
    page.keyboard.press("p")
    expect(page.locator("#mask")).to_be_visible()
    expect(page.locator("#mask")).to_have_js_property("naturalWidth", EDGE)
    shown = line.http.get(f"/parts/{parts[0]['id']}/mask").content
    alpha = np.asarray(Image.open(io.BytesIO(shown)))[:, :, 3] > 0
    assert np.array_equal(alpha, bits(reviews(line, parts[0])[0]["mask"]))
    assert line.http.get(f"/parts/{parts[2]['id']}/mask").status_code == 404
    line.http.post(f"/api/v1/results/{parts[1]['id']}/review", json={"verdict": "bad"})


def test_two_people_do_not_get_one_part(page, line):
    made = line.http.post("/api/v1/keys", json={"name": "Bob", "scopes": ["review", "read"]}).json()
    parts = [line(9100 + i, defect=True) for i in range(3)]
    bob = {"Authorization": f"Bearer {made['secret']}"}
    taken = line.http.get("/api/v1/queue", params={"station": STATION}, headers=bob).json()["results"]
    assert [one["id"] for one in taken] == [parts[0]["id"]]
    page.goto(f"/review?station={STATION}")
    expect(page.locator("#what")).to_have_text("Part bad-9101")
    for part in parts:
        line.http.post(f"/api/v1/results/{part['id']}/review", json={"verdict": "bad"})


def test_limits_are_drawn_shown_put_in_force_and_rolled_back(page, line):
    address = f"/api/v1/stations/{STATION}/calibrations"
    page.goto(f"/limits?station={STATION}")
    expect(page.get_by_text("These limits cannot be put in force")).to_be_visible()
    expect(page.get_by_text("normal parts are too few")).to_be_visible()
    expect(page.get_by_role("button", name="Put these limits in force")).to_be_disabled()
    for seed in range(3000, 3060):
        line(seed)
    while waiting := line.http.get("/api/v1/queue", params={"station": STATION, "limit": 20}).json()[
        "results"
    ]:
        for one in waiting:
            line.http.post(f"/api/v1/results/{one['id']}/review", json={"verdict": "good"})
    page.reload()
    rate, limit = page.locator("#review-rate"), page.locator("#review-limit")
    page.locator("#bad-rate").fill("10")
    page.locator("#bad-rate").press("Enter")
    rate.fill("20")
    rate.press("Enter")
    expect(page.locator("#review-promise")).to_contain_text("% to")
    expect(page.get_by_role("button", name="Put these limits in force")).to_be_enabled()
    window = {"review_rate": 0.2, "bad_rate": 0.1}
    shown = line.http.post(address, params={"preview": True}, json=window).json()
    expect(limit).to_have_value(f"{shown['limits_after'][0]:.4g}")
    changed = sum(shown["flips"].values())
    said = f"{changed} past decisions would be" if changed else "No past decision would be"
    expect(page.locator("#said-of")).to_contain_text(said)
    # drawn below the scores of known bad parts they pass none; above all of them they would
    slider = page.get_by_role("slider", name="bad limit")
    slider.focus()
    page.keyboard.press("End")
    expect(page.locator("#bad-limit")).not_to_have_value(f"{shown['limits_after'][1]:.4g}")
    page.keyboard.press("PageDown")
    page.get_by_role("button", name="Back to the rates in force").click()
    expect(rate).to_have_value("5")
    slider = page.get_by_role("slider", name="review limit")
    box = slider.locator(".line").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] - 60, box["y"] + 100, steps=3)
    page.mouse.up()
    expect(rate).not_to_have_value("5")
    rate.fill("20")
    rate.press("Enter")
    page.locator("#bad-rate").fill("10")
    page.locator("#bad-rate").press("Enter")
    page.get_by_role("button", name="Put these limits in force").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="2", exact=True))
    expect(row).to_contain_text("in force")
    found = line(3060)
    assert (found["calibration"], found["review_limit"]) == (2, shown["limits_after"][0])
    page.get_by_role("button", name="Roll back to 1", exact=True).click()
    page.get_by_role("button", name="Roll back to 2", exact=True).wait_for()
    assert line(3061)["calibration"] == 1
    page.get_by_role("button", name="Roll back to 2", exact=True).click()
    page.get_by_role("button", name="Roll back to 1", exact=True).wait_for()
    assert line(3062)["calibration"] == 2


def test_a_lamp_that_grows_brighter_is_an_alarm_that_names_the_lamp(page, line):
    """After the test before, whose limits are watched. The lamp rises while parts still pass."""
    page.goto(f"/drift?station={STATION}")
    expect(page.locator(".state .badge").first).to_have_text("watching")
    for seed in range(4000, 4030):
        line(seed)
    light = 0.0
    for seed in range(4100, 4500):
        found = line(seed, light=light)
        light += 0.7 if found["p_value"] > 0.3 else -0.5 if found["decision"] != "good" else 0
        if seed % 10 == 0 and state(line)["phase"] == "alarm":
            break
    page.reload()
    expect(page.locator(".state .badge").first).to_have_text("alarm")
    expect(page.get_by_text("The change probably began")).to_be_visible()
    expect(page.locator(".state li").filter(has_text="mean grey rose")).to_contain_text("look at the lamp")
    page.locator("body[data-drawn]").wait_for()
    assert page.locator(".plot canvas").count() == 8
    page.locator("#evidence ~ details summary").click()
    assert page.locator("#evidence-table tbody tr").count() > 3
    expect(page.locator("#revisions tr").first).to_contain_text("%")
    page.get_by_label("The cause").fill("the lamp was turned up")
    page.get_by_role("button", name="The cause is known").click()
    expect(page.locator(".state .badge").first).to_have_text("watching")


def state(line):
    found = line.http.get("/api/v1/drift", params={"station": STATION, "points": 0}).json()["drift"]
    return next(one for one in found if one["category"] is None)
