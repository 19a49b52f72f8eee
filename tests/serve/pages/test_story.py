"""The pages in a browser: one story after the other, of one service."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from invad.serve import pages

VENDOR = Path(pages.__file__).parent / "static" / "vendor"
NAV = ["Live", "History", "Review", "Limits", "Drift", "Models", "Settings"]
DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer }));
}"""


NAMELESS = """() => {
  const isNamed = (one) => one.ariaLabel || one.labels?.length || one.type === "hidden";
  const fields = [...document.querySelectorAll("input, select, textarea")].filter((one) => !isNamed(one));
  const said = [...document.querySelectorAll("button, a, summary")];
  const mute = said.filter((one) => !one.ariaLabel && !one.textContent.trim());
  const bare = [...document.querySelectorAll("img:not([alt]), th:not([scope])")];
  return [...fields, ...mute, ...bare].map((one) => one.outerHTML);
}"""


def test_vendored_files_are_those_of_their_packages():
    listed = json.loads((VENDOR / "hashes.json").read_text())
    found = {path.name: sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    del found["hashes.json"]
    assert found == {name: one["sha256"] for name, one in listed.items()}


def test_the_bar_leads_to_every_page(page):
    page.goto("/")
    for name in NAV:
        page.get_by_role("link", name=name, exact=True).click()
        page.locator("h1").get_by_text(name).wait_for()
        assert page.locator("nav [aria-current=page]").inner_text() == name


@pytest.mark.parametrize("path", ["/", "/history", "/settings", "/docs"])
def test_a_page_fits_a_telephone_and_names_what_it_holds(path, page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(path)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= 390
    assert page.locator("h1").count() == 1
    assert page.evaluate(NAMELESS) == []


def test_a_picture_is_sent_seen_found_and_looked_at(page, ready, site, pictures):
    page.goto("/")
    name = {"name": "part-77.png", "mimeType": "image/png", "buffer": pictures[1][0]}
    page.locator("#files").set_input_files(name)
    page.locator("#judged article").get_by_text("bad", exact=True).wait_for()
    page.locator("#stations").get_by_role("link", name="part-77", exact=True).wait_for()

    page.goto("/history")
    page.get_by_label("Part", exact=True).fill("part-77")
    page.get_by_label("Decision").select_option("bad")
    page.get_by_role("button", name="Find").click()
    rows = page.locator("tbody tr")
    assert rows.count() == 1
    rows.get_by_role("link", name="part-77").click()

    page.locator("h1").get_by_text("Part part-77").wait_for()
    ready(page)
    page.wait_for_function("document.getElementById('layer').naturalWidth > 0")
    layer = page.locator("#layer")
    assert layer.is_visible()
    page.keyboard.press("m")
    assert layer.is_hidden()
    page.keyboard.press("m")
    page.locator("#opacity").fill("20")
    assert layer.evaluate("(one) => one.style.opacity") == "0.2"

    def place():
        return page.locator("#layers").evaluate("(one) => one.style.transform")

    whole = place()
    page.locator("#stage").focus()
    page.keyboard.press("+")
    page.keyboard.press("+")
    near = place()
    page.keyboard.press("ArrowRight")
    assert len({whole, near, place()}) == 3
    page.keyboard.press("0")
    assert place() == whole
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.wheel(0, -400)
    page.wait_for_function("(was) => document.getElementById('layers').style.transform !== was", arg=whole)
    page.get_by_role("button", name="Show the region").first.click()
    assert page.locator("#boxes").is_visible()

    id = page.url.rpartition("/")[2]
    with site.http() as http:
        said = http.post(f"/api/v1/results/{id}/review", json={"verdict": "bad", "note": "<b>a dent</b>"})
        assert said.status_code == 201
    page.reload()
    assert "<b>a dent</b>" in page.locator(".reviews").inner_text()


def test_what_is_dropped_is_judged_and_what_is_no_picture_is_said_in_one_line(page, pictures, encoded):
    page.goto("/")
    page.evaluate(DROP, ["dropped.png", encoded(pictures[0][1])])
    page.locator("#judged").get_by_role("link", name="dropped", exact=True).wait_for()
    page.evaluate(DROP, ["none.png", encoded(b"no picture")])
    said = page.locator("#said").get_by_text("none.png: the image: none of the formats")
    said.wait_for()
    assert "\n" not in said.inner_text()
    assert [line for line in page.complaints if "400" not in line] == []
    page.complaints.clear()  # the browser notes each refusal


def test_an_admin_makes_a_user_and_a_key_and_removes_them(page, ready):
    page.goto("/settings")
    users = page.locator("section", has=page.get_by_role("heading", name="Users"))
    users.get_by_label("Name").fill("anna")
    users.get_by_label("Password").fill("too short")
    users.get_by_role("button", name="Add").click()
    page.locator("#said").get_by_text("the password has 9 characters; give 10 to 1024").wait_for()
    page.complaints.clear()
    users.get_by_label("Password").fill("long enough for anybody")
    users.get_by_role("button", name="Add").click()
    users.get_by_role("rowheader", name="anna").wait_for()
    ready(page)
    users.get_by_label("Role of anna").select_option("viewer")
    page.locator("#said").get_by_text("anna is viewer").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    users.get_by_role("button", name="Remove anna").click()
    users.get_by_text("No users yet").wait_for()
    made = page.locator("section", has=page.get_by_role("heading", name="Keys of programs"))
    made.get_by_label("Name").fill("camera 7")
    made.get_by_role("button", name="Make a key").click()
    made.get_by_text("Shown this once: inv_").wait_for()
    page.reload()
    made.get_by_role("button", name="Revoke camera 7").click()
    row = made.get_by_role("row", name="camera 7")
    row.get_by_text("revoked").wait_for()
    assert "make key" in page.locator("section", has=page.locator("#done")).inner_text()


def test_what_is_pressed_before_the_scripts_have_come_is_not_taken_for_done(page, ready):
    held = []
    page.route("**/static/settings.js*", lambda route: held.append(route))
    page.goto("/settings", wait_until="commit")
    users = page.locator("section", has=page.get_by_role("heading", name="Users"))
    users.get_by_label("Password").wait_for()
    assert page.locator("main").get_attribute("inert") is not None
    box = users.get_by_label("Name").bounding_box()
    page.mouse.click(box["x"] + 5, box["y"] + 5)
    page.keyboard.type("early")
    page.keyboard.press("Enter")
    assert users.get_by_label("Name").input_value() == ""
    held[0].continue_()
    ready(page)
    users.get_by_label("Name").fill("late")
    assert users.get_by_label("Name").input_value() == "late"


def test_no_password_reaches_the_address_where_a_script_does_not_come(page, ready):
    page.route("**/static/settings.js*", lambda route: route.abort())
    page.goto("/settings")
    ready(page)
    users = page.locator("section", has=page.get_by_role("heading", name="Users"))
    users.get_by_label("Name").fill("early")
    users.get_by_label("Password").fill("a word of twelve letters")
    with page.expect_console_message(lambda line: "405" in line.text):
        users.get_by_role("button", name="Add").click()
    assert "letters" not in page.url
    page.complaints.clear()  # the browser notes what did not come and what was refused


def test_a_page_without_scripts_of_its_own_waits_for_none(page):
    page.route("**/static/*.js*", lambda route: route.abort())
    page.goto("/history")
    page.get_by_label("Part", exact=True).fill("part-77")
    page.get_by_role("button", name="Find").click()
    page.wait_for_url("**/history?*part-77*")
    page.complaints.clear()  # the browser notes what did not come
