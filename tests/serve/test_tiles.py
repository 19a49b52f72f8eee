"""A service over a model that cuts pictures into tiles: the same answers, in cells of the whole picture."""

import io

import pytest
from PIL import Image

from invad.serve.service import Options, Service


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_service_judges_in_tiles(tiled_detector, draw_cloth, tmp_path):
    tiled_detector.save(tmp_path / "model")
    picture = draw_cloth(300, spot=(40, 100))
    expected = tiled_detector.predict(picture)
    with Service(tiled_detector, tmp_path / "line", options=Options(reserve=0)) as service:
        found = service.inspect(png(picture), part_id="a")
        assert (found.decision, found.score) == (expected.decision, pytest.approx(expected.score))
        assert found.regions[0].x <= 104 <= found.regions[0].x + found.regions[0].width
        small = png(picture[:40])
        with pytest.raises(Exception, match="the image: 160 x 40 pixels, smaller than a tile of 64"):
            service.inspect(small, part_id="b")


def test_a_service_judges_parts_in_tiles(tiled_parts, draw_lights, served, tmp_path):
    import httpx

    pictures = draw_lights(101, (50, 90))
    expected = tiled_parts.predict_part(pictures)
    tiled_parts.save(tmp_path / "model")
    files = [(name, (f"{name}.png", png(pixels))) for name, pixels in pictures.items()]
    with (
        Service(tiled_parts, tmp_path / "line", options=Options(reserve=0)) as service,
        served(service, without_keys=True) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        found = client.post("/api/v1/stations/default/inspect", files=files).json()
        assert (found["decision"], found["seen_by"]) == (expected.decision, "light2")
        assert found["score"] == pytest.approx(expected.score)
        region = found["regions"][0]
        assert region["x"] <= 94 <= region["x"] + region["width"]
        lacking = client.post("/api/v1/stations/default/inspect", files=files[:1]).json()
        assert (lacking["decision"] != "good", lacking["reason"]) == (True, "no light2")
