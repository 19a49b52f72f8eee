"""Outputs on the live page: their names, what waits, and what is wrong, on a telephone and on a screen."""

import time

import pytest

from greys import Greys, png
from invad.serve import Options, Service
from invad.serve.plant import making
from invad.serve.plant.lineup import Station
from invad.serve.plant.outputs import CsvOutput, WebhookOutput

STATION = "press-1"


@pytest.mark.parametrize("width", [390, 1280])
def test_two_outputs_one_of_them_down(browser, served, tmp_path, width):
    folder = tmp_path / ("results-" + 90 * "x")
    outputs = (
        CsvOutput(kind="csv", path=str(folder)),
        WebhookOutput(kind="webhook", url="http://127.0.0.1:1/" + 90 * "y"),
    )
    with (
        Service({STATION: Greys()}, tmp_path / "line", options=Options(reserve=0)) as service,
        served(service, without_keys=True) as address,
    ):
        station = Station(name=STATION, model="m", output=outputs)
        for output in outputs:
            service.deliveries.add(making.route(station, output), making.made_sink(STATION, output, service))
        service.inspect(png(5), station=STATION, part_id="one")
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(address)
        until = time.monotonic() + 60
        while not page.get_by_role("alert").filter(has_text="1 waiting").count():
            assert time.monotonic() < until
            page.wait_for_timeout(100)
        (said,) = page.get_by_role("alert").all_text_contents()
        assert said.startswith("press-1/webhook takes no results – http://127.0.0.1:1/yyy")
        assert "Connection refused" in said
        assert page.get_by_text(f"csv {folder}").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.close()
