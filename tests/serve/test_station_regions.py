"""A region of interest of a station's own: the model of all stations, judged by its part of the pictures."""

import json
import re
from contextlib import contextmanager
from copy import copy

import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bundles import altered
from invad.cli.app import app
from invad.data.region import Region, digest_of, read_region
from invad.detector.detector import Detector
from invad.errors import ConfigError, DataError
from invad.serve import Options, Service, versions
from invad.serve.given import Looking
from invad.serve.pictures import statistics
from invad.serve.plant.lineup import read_lineup
from invad.serve.plant.plant import Plant
from invad.serve.records import Refused
from invad.serve.store import stations
from invad.serve.store.results import Query
from invad.system.plain import from_plain
from waiting import waits

CORNER = {"frame": [64, 64], "ignore": [[[32, 32], [64, 32], [64, 64], [32, 64]]]}
LEFT = {"frame": [64, 64], "ignore": [[[0, 0], [30, 0], [30, 64], [0, 64]]]}


@pytest.fixture(scope="module")
def model(short_detector, tmp_path_factory):
    """The folder of a trained model of pictures of 64 x 64. Not to be written to."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    copy(short_detector).save(folder)
    return folder


@pytest.fixture
def place(tmp_path, model):
    """A folder with line.toml: stations `whole` and `corner` have one model, and `corner` a region."""
    text = ""
    for name, region in (("whole", ""), ("corner", 'region = "roi.json"\n')):
        (tmp_path / name).mkdir()
        text += f'[[station]]\nname = "{name}"\nmodel = "{model}"\n{region}'
        text += f'[station.source]\nkind = "folder"\npath = "{name}"\nsettle = 0.02\nrescan = 0.05\n'
    (tmp_path / "line.toml").write_text(text)
    (tmp_path / "roi.json").write_text(json.dumps(CORNER))
    return tmp_path


@contextmanager
def running(place, **options):
    """The service and plant of its line.toml."""
    path = place / "line.toml"
    with Service(read_lineup(path).models, place / "line", options=Options(reserve=0), **options) as service:
        plant = Plant(service, path)
        plant.start()
        try:
            yield service, plant
        finally:
            plant.close()


def put(folder, name, pixels):
    """As a camera that writes its files whole."""
    Image.fromarray(pixels).save(folder / f".{name}.png")
    (folder / f".{name}.png").replace(folder / f"{name}.png")


def results(service, station):
    """By part, once a source has brought them."""
    return {one.result.part_id: one.result for one in service.history(Query(station=station, limit=500))[0]}


def test_a_code_counts_at_one_station_and_not_at_the_other(place, draw, served):
    rng = np.random.default_rng(0)
    coded = draw(300)
    coded[40:60, 40:60] = rng.integers(0, 256, (20, 20, 1))
    with running(place) as (service, _):
        for name in ("whole", "corner"):
            put(place / name, "plain", draw(300))
            put(place / name, "coded", coded)
        waits(lambda: all(len(results(service, name)) == 2 for name in ("whole", "corner")))
        whole, corner = results(service, "whole"), results(service, "corner")
        assert whole["coded"].decision == "bad"
        assert corner["coded"].score == pytest.approx(corner["plain"].score, abs=1e-5)
        assert corner["coded"].decision == corner["plain"].decision
        assert all(one.y + one.height <= 32 or one.x + one.width <= 32 for one in corner["coded"].regions)
        # Its limits are those of the part that counts, and it drifts by how that part looks.
        assert corner["plain"].review_limit != whole["plain"].review_limit
        assert corner["coded"].picture == corner["plain"].picture
        assert whole["coded"].picture != whole["plain"].picture
        with service.database.read() as connection:
            made = stations.version(connection, corner["coded"].model_version)
        assert made.content["region"] == digest_of(read_region(place / "roi.json"))
        assert made.content["made_of"] == whole["coded"].model_version
        with served(service, without_keys=True) as url, httpx.Client(base_url=url, trust_env=False) as http:
            page, live = http.get("/models?station=corner").text, http.get("/").text
            said = {one["name"]: one["region"] for one in http.get("/api/v1/stations").json()["stations"]}
        assert f'made here of <code title="{made.content["made_of"]}' in page
        assert "looks at 75 % of pictures of 64 × 64" in page
        assert live.count("of a picture</a>") == 1
        assert said["whole"] is None
        assert (said["corner"]["inspected"], said["corner"]["sha256"]) == (0.75, made.content["region"])
        assert service.active("whole").detector.region is None
        held = service.active("corner").detector.calibrations[""]
        assert held.n == service.active("whole").detector.calibrations[""].n


def test_a_reload_takes_another_region_and_loses_no_part(place, draw):
    with running(place) as (service, plant):
        first = {name: service.active(name).hash for name in ("whole", "corner")}
        for i in range(40):
            put(place / "corner", f"{i:02d}", draw(310 + i % 4))
            if i == 15:
                (place / "roi.json").write_text(json.dumps(LEFT))
                plant.reload()
        waits(lambda: len(results(service, "corner")) == 40)
        second = service.active("corner").hash
        assert service.active("whole").hash == first["whole"]
        assert second != first["corner"]
        found = results(service, "corner").values()
        assert {one.model_version for one in found} <= {first["corner"], second}
        (place / "roi.json").write_text('{"frame": [64, 64]}')
        with pytest.raises(DataError, match=r"roi\.json: it ignores no pixel of the picture"):
            plant.reload()
        assert service.active("corner").hash == second
        put(place / "corner", "more", draw(330))
        waits(lambda: "more" in results(service, "corner"))
        # Without the key the station looks at all of a picture again.
        path = place / "line.toml"
        (place / "roi.json").write_text(json.dumps(CORNER))
        path.write_text(path.read_text().replace('region = "roi.json"\n', ""))
        plant.reload()
        assert service.active("corner").hash == first["whole"]


def test_a_later_start_finds_what_was_made(place, monkeypatch):
    with running(place) as (service, _):
        made = service.active("corner").hash
        assert (place / "line" / "models" / made / "config.json").exists()
    monkeypatch.setattr(Detector, "calibrate", lambda *args, **options: pytest.fail("made again"))
    with running(place) as (service, _):
        assert service.active("corner").hash == made
        assert service.active("corner").detector.region == read_region(place / "roi.json")


def test_what_a_station_cannot_look_at_is_said_in_one_line(place, model, bundle, short_detector, cloth):
    older = copy(short_detector)
    older.kept = None
    older.save(place / "older")
    kept_nothing = altered(bundle, place / "nothing", lambda plain: plain.pop("held"))
    roi = place / "roi.json"
    told = [
        (place / "older", CORNER, DataError, "the model keeps no maps of held-out images, older ones do not"),
        (
            kept_nothing,
            CORNER,
            ConfigError,
            "keeps no maps of held-out good images, .* an older invad exported",
        ),
        (model, {**CORNER, "frame": [80, 64]}, DataError, "drawn on pictures of 80 x 64 pixels, .* 64 x 64"),
        (
            model,
            {"frame": [64, 64], "ignore": [[[0, 0], [70, 0], [0, 9]]]},
            DataError,
            r"outside the picture",
        ),
        (model, {"frame": [64, 64], "ignore": [[[0, 0], [64, 0], [64, 64], [0, 64]]]}, DataError, "no pixel"),
        (model, {**CORNER, "colour": 1}, DataError, "unknown key 'colour'"),
        (model, None, DataError, "No such file"),
    ]
    for folder, plain, kind, words in told:
        roi.unlink(missing_ok=True)
        if plain is not None:
            roi.write_text(json.dumps(plain))
        with pytest.raises(kind, match=rf"roi\.json.*{words}") as refused:
            Service({"a": Looking(folder, roi)}, place / "line")
        assert "\n" not in str(refused.value)
        path = place / "line.toml"
        path.write_text(f'[[station]]\nname = "a"\nmodel = "{folder}"\nregion = "roi.json"\n')
        found = CliRunner().invoke(app, ["serve", "check", str(path)])
        first, *_ = found.output.splitlines()
        assert (found.exit_code, first[:11]) == (1, "station a: ")
        assert re.search(words, first), found.output


def test_check_says_what_counts_and_sees_pictures_of_another_size(place, draw):
    def check():
        found = CliRunner().invoke(app, ["serve", "check", str(place / "line.toml")])
        return found.exit_code, found.output

    code, said = check()
    assert (code, said) == (
        0,
        f"station corner: {place}/roi.json: 75% of pictures of 64 x 64 pixels count\n2 stations\n",
    )
    put(place / "corner", "wide", draw(0, size=(80, 64)))
    put(place / "whole", "wide", draw(0, size=(80, 64)))
    code, said = check()
    assert code == 1
    assert re.search(r"station corner: .*wide.png: 80 x 64 pixels, and the region of interest is drawn", said)
    assert "1 problem" in said


def test_a_bundle_that_has_the_region_is_judged_as_it_is(place, bundle, draw):
    ignoring = altered(bundle, place / "ignoring", lambda plain: plain.update(region=whole_of(CORNER)))
    with Service({"a": Looking(ignoring, place / "roi.json")}, place / "line") as service:
        assert service.active("a").detector.region == read_region(place / "roi.json")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_bundle_looks_at_the_region_of_a_station(
    place, model, bundle, two_categories, draw, engine, served
):
    pytest.importorskip(engine, reason=f"needs {engine}")
    path = place / "line.toml"
    path.write_text(
        path.read_text()
        .replace(str(model), str(bundle))
        .replace("[station.source]", 'category = "part"\n[station.source]')
    )
    coded = draw(300)
    coded[40:60, 40:60] = np.random.default_rng(0).integers(0, 256, (20, 20, 1))
    told = copy(two_categories)
    told.calibrate(region=read_region(place / "roi.json"))
    expected = told.predict(coded, category="part")
    with running(place, engine=engine) as (service, plant):
        for name in ("whole", "corner"):
            put(place / name, "coded", coded)
        waits(lambda: all(results(service, name) for name in ("whole", "corner")))
        whole, corner = (results(service, name)["coded"] for name in ("whole", "corner"))
        assert (whole.decision, corner.decision) == ("bad", expected.decision)
        assert corner.score == pytest.approx(expected.score, rel=1e-3)
        assert corner.p_value == pytest.approx(expected.p_value)
        assert corner.review_limit == pytest.approx(told.calibrations["part"].score_limits()[0], rel=1e-3)
        with served(service, without_keys=True) as url, httpx.Client(base_url=url, trust_env=False) as http:
            assert "looks at 75 % of pictures of 64 × 64" in http.get("/models?station=corner").text
            drawing = http.get("/region", params={"station": "corner"}).text
        assert "[32.0, 32.0]" in drawing
        assert "<code>invad calibrate BUNDLE --roi part=region.json --output next</code>" in drawing
        # Another region is drawn, and the file is read again.
        (place / "roi.json").write_text(json.dumps(LEFT))
        plant.reload()
        put(place / "corner", "left", draw(301))
        waits(lambda: "left" in results(service, "corner"))
        made = service.active("corner").hash
        assert made != corner.model_version
    assert (place / "line" / "models" / made / "bundle.json").exists()
    with running(place, engine=engine) as (service, _):  # which makes nothing anew
        assert service.active("corner").hash == made
        assert service.active("corner").detector.content_hash == made
    found = CliRunner().invoke(app, ["serve", "check", str(path)])
    assert "roi.json: 53% of pictures of 64 x 64 pixels count\n2 stations" in found.output


def whole_of(plain):
    """With all keys of a region."""
    return {"include": [], "min_cover": 0.5, **plain}


def test_a_version_without_the_region_needs_a_reason(place, model, bundle):
    with running(place) as (service, _):
        given = service.active("whole")
        with pytest.raises(Refused, match="its region of interest is not that of the version that judges"):
            versions.activate(service, "corner", given.name, given.hash, "ada")
        versions.activate(service, "corner", given.name, given.hash, "ada", "the code is gone")
        assert service.active("corner").hash == given.hash


def test_pictures_are_described_by_what_counts():
    pixels = np.full((40, 50, 3), 100, np.uint8)
    inside = np.zeros((40, 50), bool)
    inside[:20, :20] = True
    pixels[~inside] = np.random.default_rng(0).integers(0, 256, (1600, 3))
    grey, clipped, sharpness = statistics(pixels, inside)
    assert (grey, clipped, sharpness) == (pytest.approx(100 / 255), 0, 0)


@pytest.fixture(scope="module")
def of_category(two_categories, tmp_path_factory):
    """The folder of a model of which the category `part` does not look at the corner."""
    detector = copy(two_categories)
    detector.calibrate(regions={"part": from_plain(Region, CORNER, "")})
    folder = tmp_path_factory.mktemp("two") / "model"
    detector.save(folder)
    return folder


def test_a_part_is_judged_by_the_region_of_its_category(of_category, place, draw, served):
    plain, coded = draw(340), draw(340)
    coded[36:60, 36:60] = np.random.default_rng(0).integers(0, 256, (24, 24, 1))
    with Service(of_category, place / "line", options=Options(reserve=0)) as service:
        one, other = (service.inspect(pixels, category="part") for pixels in (plain, coded))
        assert other.score == pytest.approx(one.score, abs=1e-5)
        assert other.picture == one.picture
        whole = service.inspect(coded)
        assert whole.decision == "bad"
        assert service.inspect(draw(341, size=(96, 64)), category="wide").decision
        with pytest.raises(Refused, match="the region of interest is drawn on pictures of 64 x 64"):
            service.inspect(draw(341, size=(96, 64)), category="part")
        with served(service, without_keys=True) as url, httpx.Client(base_url=url, trust_env=False) as http:
            (station,) = http.get("/api/v1/stations").json()["stations"]
            assert (station["region"], station["regions"]["part"]["inspected"]) == (None, 0.75)
            region = http.get("/api/v1/stations/default/region", params={"category": "part"}).json()
            assert region == whole_of(CORNER)
            assert http.get("/api/v1/stations/default/region").status_code == 404
            assert http.get("/api/v1/stations/default/region?category=none").status_code == 404
            assert http.get(f"/parts/{other.id}/ignored").status_code == 200
            assert http.get(f"/parts/{whole.id}/ignored").status_code == 404
            assert "Of parts of the category part it looks at 75 %" in http.get("/models").text
            drawing = http.get("/region", params={"part": other.id}).text
            assert "--roi part=region.json" in drawing
            assert "[32.0, 32.0]" in drawing


def test_the_region_of_a_station_is_that_of_all_its_categories(of_category, place, draw):
    (place / "roi.json").write_text(json.dumps(LEFT))
    looking = Looking(of_category, place / "roi.json")
    with Service({"a": looking, "b": of_category}, place / "line", options=Options(reserve=0)) as service:
        detector = service.active("a").detector
        region = read_region(place / "roi.json")
        assert (detector.region, detector.regions) == (region, {"part": region})
        assert list(service.active("b").detector.regions) == ["part"]
        coded = draw(340)
        coded[:, :28] = np.random.default_rng(0).integers(0, 256, (64, 28, 1))
        scores = [
            service.inspect(pixels, station="a", category="part").score for pixels in (draw(340), coded)
        ]
        assert scores[1] == pytest.approx(scores[0], abs=1e-5)


def test_a_model_of_tiles_looks_at_the_region_of_a_station(tiled_detector, place, draw_cloth):
    copy(tiled_detector).save(place / "tiles")
    left = {"frame": [160, 120], "ignore": [[[0, 0], [60, 0], [60, 120], [0, 120]]]}
    (place / "roi.json").write_text(json.dumps(left))
    looking = Looking(place / "tiles", place / "roi.json")
    with Service({"a": looking}, place / "line", options=Options(reserve=0)) as service:
        assert service.active("a").detector.region == read_region(place / "roi.json")
        here, there = (service.inspect(draw_cloth(900, at), station="a") for at in ((50, 20), (50, 110)))
        assert there.score > here.score
