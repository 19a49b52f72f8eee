"""One service and one browser for all tests of the pages."""

import base64

import pytest

WAIT_MS = 30_000


@pytest.fixture(scope="session")
def site(start, tmp_path_factory):
    """A service with keys. `site.http()` asks as a program, `site.url` is its address."""
    options = ("--audit-share", "1", "--notice-every", "1000")  # so that drift is seen within a test
    return start(tmp_path_factory.mktemp("pages") / "line", *options)


@pytest.fixture(scope="session")
def signed_in(browser, site):
    """The cookies of somebody who logged in with the first key, who may do everything."""
    context = browser.new_context(base_url=site.url)
    page = context.new_page()
    page.goto("/login")
    page.get_by_text("With a key").click()
    page.get_by_label("Key, as it was printed").fill(site.key)
    page.get_by_role("button", name="Log in with the key").click()
    page.wait_for_url("**/")
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def page(browser, site, signed_in):
    """A new tab of somebody who is logged in. It fails with what the page's scripts or its policy complained
    of, and with every request to another host."""
    context = browser.new_context(
        base_url=site.url, storage_state=signed_in, viewport={"width": 1280, "height": 900}
    )
    context.set_default_timeout(WAIT_MS)
    complaints = []
    opened = context.new_page()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    opened.on(
        "request",
        lambda request: (
            None if request.url.startswith((site.url, "blob:")) else complaints.append(request.url)
        ),
    )
    opened.complaints = complaints
    yield opened
    context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def encoded():
    """encoded(bytes): as text, for what goes into the browser."""
    return lambda content: base64.b64encode(content).decode()


@pytest.fixture(scope="session")
def ready():
    """ready(page): wait until the scripts of the document shown have run; before, it takes nothing."""
    return lambda page: page.locator("main:not([inert])").wait_for()
