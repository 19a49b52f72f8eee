"""Figures and text as people read them."""

import httpx
import numpy as np
import pytest
from PIL import Image

from greys import Greys, png
from invad.report.colours import OPACITY_AT_BAD, layer, overlay
from invad.serve import Options, Service
from invad.serve.pages.rendering import code
from invad.serve.pages.words import bytes_, number, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (3.14159, "3.14"),
        (1234.5, "1234"),
        (0.00012, "0.00012"),
        (2.5e-7, "2.50e-07"),
    ],
)
def test_figures_are_short(value, text):
    assert number(value) == text


def test_shares_and_sizes():
    assert (percent(0.05), percent(0.1234), percent(None)) == ("5 %", "12 %", "–")
    assert (bytes_(900), bytes_(3 << 20), bytes_(5 << 40)) == ("900 bytes", "3 MiB", "5 TiB")


def test_words_between_backticks_are_code_and_nothing_else_is_markup():
    assert code("a `b<c>` <d>") == "a <code>b&lt;c&gt;</code> &lt;d&gt;"
    assert code("a ` b") == "a ` b"


def test_a_layer_over_its_image_is_the_overlay():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    values = rng.random((40, 50)).astype(np.float32)
    limits = (0.5, 0.9)
    drawn = layer(values, limits).astype(np.float64)
    opacity = drawn[..., 3:] / 255 * OPACITY_AT_BAD
    laid = pixels + (drawn[..., :3] - pixels) * opacity
    outlined = (drawn[..., :3] == (110, 0, 24)).all(axis=2)
    assert np.abs(laid - overlay(pixels, values, limits))[~outlined].max() <= 1.5
    assert Image.fromarray(layer(values, limits)).mode == "RGBA"


def test_pages_of_one_category_begin_with_that_of_the_last_part(served, tmp_path):
    with (
        Service(Greys(), tmp_path / "line", options=Options(reserve=0)) as service,
        served(service, without_keys=True) as url,
    ):
        for page in ("limits", "drift"):
            assert '<option value="" selected>over all' in httpx.get(f"{url}/{page}").text
        service.inspect(png(120), category="part")
        for page in ("limits", "drift"):
            assert '<option value="part" selected>' in httpx.get(f"{url}/{page}").text
