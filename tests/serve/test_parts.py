"""A station whose parts have several pictures: one request, one result, all pictures kept."""

import base64
import csv
import io
import json
import re
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from invad.serve import Client, Options, Refused, Service
from invad.serve.store import shadows
from invad.serve.store.results import Query
from waiting import waits

INSPECT = "/api/v1/stations/default/inspect"


def picture(seed, light, defect=False, size=64):
    """PNG of a disc under one of two lights; the defect shows under the second."""
    rng = np.random.default_rng([seed, light])
    y, x = np.mgrid[:size, :size] / size
    grey = 60 + 50 * (np.hypot(x - 0.5, y - 0.5) < 0.35) + 30 * (x, y)[light - 1]
    grey = grey + rng.normal(0, 3, (size, size))
    if defect and light == 2:
        grey[30:40, 30:40] = 255
    file = io.BytesIO()
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def part(seed, defect=False):
    return {f"light{light}": picture(seed, light, defect) for light in (1, 2)}


def form(pictures):
    """Files of a form. pictures: by member, or pairs of a member and a picture."""
    pairs = pictures.items() if isinstance(pictures, dict) else pictures
    return [(name, (f"{name}.png", content)) for name, content in pairs]


@pytest.fixture(scope="module")
def fitted(tiny_preset, make_backbone, tmp_path_factory):
    """fitted(fusion): a detector of parts."""
    from invad.detector.detector import Detector

    folder = tmp_path_factory.mktemp("parts")
    for seed in range(24):
        for name, content in part(seed).items():
            (folder / f"part{seed:03d}_{name}.png").write_bytes(content)
    preset = replace(
        tiny_preset, scales=(1.0,), denoiser=None, fine=None, top_fractions=None, second_space=None
    )

    def fit(fusion):
        options = {"preset": preset, "backbone": make_backbone(), "device": "cpu"}
        return Detector.fit(folder, parts="names", fusion=fusion, **options)

    return fit


@pytest.fixture(scope="module")
def of_parts(fitted, tmp_path_factory):
    """The folder of a bundle of parts."""
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
    from invad.export import ExportConfig, export

    folder = tmp_path_factory.mktemp("bundle") / "plates"
    export(fitted("scores"), folder, ExportConfig())
    return folder


@pytest.fixture(scope="module")
def line(of_parts, tmp_path_factory):
    with Service(of_parts, tmp_path_factory.mktemp("line"), options=Options(reserve=0)) as service:
        yield service


@pytest.fixture(scope="module")
def http(line, served):
    import httpx

    with (
        served(line, without_keys=True) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        yield client


def test_a_process_without_torch_judges_a_part_by_both_pictures(of_parts, start, tmp_path):
    from invad.runtime import load

    (tmp_path / "torch.py").write_text("raise ImportError('there is no torch here')")
    import invad

    paths = f"{tmp_path}:{invad.__path__[0]}/.."
    running = start(tmp_path / "line", "--engine", "onnxruntime", model=of_parts, PYTHONPATH=paths)
    own = load(of_parts, "onnxruntime", threads=1)
    with running.http() as client:
        for pictures, decision in ((part(100), "good"), (part(101, defect=True), "bad")):
            expected = own.predict_part(pictures)
            found = client.post(INSPECT, files=form(pictures), data={"part_id": "A"}).json()
            assert (found["decision"], found["part_id"]) == (decision, "A")
            assert found["score"] == pytest.approx(expected.score)
            assert found["p_value"] == pytest.approx(expected.p_value)
            assert found["seen_by"] == expected.seen_by
            assert [one["member"] for one in found["members"]] == ["light1", "light2"]
            for one in found["members"]:
                assert one["p_value"] == pytest.approx(expected.members[one["member"]].p_value)
                assert one["above"] == pytest.approx(expected.above[one["member"]])
            assert client.get(f"/api/v1/results/{found['id']}").json() == found
    assert running.stop() == 0


def test_all_pictures_are_kept_and_the_one_that_lies_highest_is_shown(http):
    pictures = part(110, defect=True)
    found = http.post(INSPECT, files=form(pictures), params={"map": "url"}).json()
    assert (found["seen_by"], found["reason"]) == ("light2", None)
    address = f"/api/v1/results/{found['id']}"
    for number, name in enumerate(("light1", "light2")):
        assert http.get(f"{address}/image", params={"number": number}).content == pictures[name]
    shown = http.get(f"{address}/image")
    assert shown.content == pictures["light2"]
    assert shown.headers["etag"] != http.get(f"{address}/image?number=0").headers["etag"]
    assert http.get(f"{address}/image?number=2").status_code == 404
    for drawn in ("image?form=png&side=32", "map?form=layer", "overlay"):
        assert http.get(f"{address}/{drawn}").headers["content-type"] == "image/png"
    y, x = found["regions"][0]["centroid_y"], found["regions"][0]["centroid_x"]
    assert 20 < x < 50
    assert 20 < y < 50
    page = http.get(f"/parts/{found['id']}").text
    assert "Shown is light2" in page
    assert "image?number=0" in page


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda own: own[:1], "no light2"),
        (lambda own: [*own, own[0]], "light1 is there twice"),
        (lambda own: [*own, ("light9", own[0][1])], "light9 is unknown, the model has light1, light2"),
        (lambda own: [own[0], ("light2", b"no picture")], "light2: "),
    ],
    ids=["missing", "doubled", "unknown", "unreadable"],
)
def test_a_part_with_something_wrong_is_never_good(http, change, reason):
    sent = change(list(part(120).items()))
    answer = http.post(INSPECT, files=form(sent))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["decision"] == "review"
    assert reason in found["reason"]
    kept = [
        http.get(f"/api/v1/results/{found['id']}/image?number={n}").content
        for n in range(len(found["members"]))
    ]
    assert sorted(kept) == sorted(content for _, content in sent)
    assert reason in http.get(f"/parts/{found['id']}").text


def test_pages_fit_a_telephone_and_tell_which_picture_of_a_part_is_shown(http, browser):
    found = http.post(
        INSPECT, files=form(part(115, defect=True)), data={"part_id": 3 * "HOUSING-7742-"}
    ).json()
    context = browser.new_context(base_url=str(http.base_url), viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(f"/parts/{found['id']}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = (
        "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth).length"
    )
    assert page.evaluate("document.querySelectorAll('.scroll').length") == 2
    assert page.evaluate(wide) == 0
    page.goto("/review")
    page.locator("#facts a").get_by_text(re.compile(r"^light\d, of \d$")).click()
    page.get_by_role("heading", name="Pictures").wait_for()
    context.close()


def test_a_part_with_a_defect_stays_bad_without_the_other_picture(http):
    found = http.post(INSPECT, files=form(list(part(121, defect=True).items())[1:])).json()
    assert (found["decision"], found["reason"]) == ("bad", "no light1")


def test_a_request_that_is_sent_again_gives_the_same_result(http):
    pictures, name = part(130), {"request_id": "r-130"}
    first = http.post(INSPECT, files=form(pictures), params=name).json()
    turned = form(list(pictures.items())[::-1])  # the order of a form says nothing
    assert http.post(INSPECT, files=turned, params=name).json() == first
    for other in (part(131), list(pictures.items())[:1]):
        assert http.post(INSPECT, files=form(other), params=name).status_code == 409


def test_what_is_no_part_of_several_pictures_is_refused_in_one_line(http):
    one = picture(140, 1)
    answer = http.post(INSPECT, files={"image": one})
    assert answer.status_code == 400
    assert "image is unknown, the model has light1, light2" in answer.json()["error"]
    raw = http.post(INSPECT, content=one, headers={"content-type": "image/png"})
    assert raw.status_code == 415
    assert http.post(INSPECT, data={"part_id": "A"}, files=form([])).status_code in (400, 415)
    odd = http.post(INSPECT, files=form(part(140)), data={"colour": "red"})
    assert (odd.status_code, "colour" in odd.json()["error"]) == (400, True)


def test_the_bytes_of_a_part_are_those_of_all_its_pictures(of_parts, served, tmp_path):
    import httpx

    own = part(150)
    most = len(own["light1"]) + 1200  # one fits with its form, two do not
    options = Options(reserve=0, max_body=most)
    with (
        Service(of_parts, tmp_path / "line", options=options) as service,
        served(service, without_keys=True) as url,
    ):
        answer = httpx.post(f"{url}{INSPECT}", files=form(own), timeout=60, trust_env=False)
        assert answer.status_code == 413
        assert httpx.post(f"{url}{INSPECT}", files=form(list(own.items())[:1]), timeout=60).status_code == 200


def test_in_python_and_by_a_client(line, served):
    pictures = part(160, defect=True)
    found = line.inspect(pictures, request_id="r-160")
    with served(line, without_keys=True) as url, Client(url) as client:
        assert client.inspect(pictures, request_id="r-160") == found
    with pytest.raises(Refused, match="judges parts by several pictures; send one form"):
        line.inspect(pictures["light1"])


def of_a_folder(of_parts, tmp_path, **keys):
    """A line.toml with one watched folder, `in`."""
    (tmp_path / "in").mkdir()
    source = {"kind": "folder", "path": "in", "settle": 0.05, "rescan": 0.2, "done": "done", **keys}
    said = "".join(f"{key} = {value!r}\n" for key, value in source.items())
    path = tmp_path / "line.toml"
    path.write_text(f"[[station]]\nname = 'a'\nmodel = '{of_parts}'\n[station.source]\n{said}")
    return path


def test_a_process_that_is_killed_loses_no_part_of_a_folder_and_doubles_none(of_parts, start, tmp_path):
    """And files score as the pictures do that `predict_part` is given."""
    from invad.runtime import load

    path = of_a_folder(of_parts, tmp_path, missing_after=1.0)
    contents = {f"p{seed}": part(200 + seed, defect=seed % 5 == 0) for seed in range(30)}
    del contents["p7"]["light2"]
    for member in ("light2", "light1"):
        for name, own in contents.items():
            if member in own:
                (tmp_path / "in" / f"{name}_{member}.png").write_bytes(own[member])

    def judged(client):
        found = client.get("/api/v1/results", params={"station": "a", "limit": 200}).json()["results"]
        return sorted((one["part_id"], one["decision"], one["score"], one["reason"]) for one in found)

    first = start(tmp_path / "line", "--no-auth", model=path)
    with first.http() as client:
        waits(lambda: len(judged(client)) >= 5, 120)
    first.kill()
    again = start(tmp_path / "line", "--no-auth", model=path)
    with again.http() as client:
        waits(lambda: not list((tmp_path / "in").iterdir()), 120)
        own = load(of_parts, threads=1)
        expected = {name: own.predict_part(pictures) for name, pictures in contents.items()}
        assert judged(client) == [
            (name, one.decision, pytest.approx(one.score), one.reason or None)
            for name, one in sorted(expected.items())
        ]
    assert len(list((tmp_path / "done").iterdir())) == 59
    assert again.stop() == 0


def test_check_says_what_a_part_is_and_what_a_folder_lacks(fitted, of_parts, tmp_path):
    from invad.serve.plant.checking import problems
    from invad.serve.plant.lineup import read_lineup

    told = []
    path = of_a_folder(of_parts, tmp_path)
    assert list(problems(read_lineup(path), told.append)) == []
    line = "a part is light1, light2 by 'names'; one that lacks a picture goes to review after 10 s"
    assert told == [f"station a: {line}"]
    path.write_text(path.read_text().replace("[station.source]", "category = 'light1'\n[station.source]"))
    (said,) = problems(read_lineup(path))
    assert said == "station a: category = 'light1': a model of parts has limits of whole parts; leave it out"
    detector = fitted("scores")
    detector.fusion = replace(detector.fusion, rule="views")
    detector.save(tmp_path / "views")
    path.write_text(path.read_text().replace("category = 'light1'", "").replace(str(of_parts), "views"))
    (said,) = problems(read_lineup(path))
    assert said == "station a: the model has a folder for each part (views); give its source recursive = true"


def test_the_open_inference_protocol_gives_one_picture_and_is_told_so(http):
    coded = base64.b64encode(picture(165, 1)).decode()
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [coded]}
    answer = http.post("/v2/models/plates/infer", json={"inputs": [image]})
    assert answer.status_code == 400
    assert "judges parts by several pictures" in answer.json()["error"]


def test_versions_of_one_picture_and_of_several_do_not_mix(of_parts, bundle, tmp_path):
    from invad.serve.versions import activate, put_shadow

    with Service({"one": bundle, "two": of_parts}, tmp_path / "line", options=Options(reserve=0)) as service:
        single, several = service.active("one"), service.active("two")
        for station, other in (("one", several), ("two", single)):
            with pytest.raises(Refused, match=r"one picture.*; a shadow is shown the same pictures"):
                put_shadow(service, station, other.name, other.hash, "test")
            with pytest.raises(Refused, match="start the service with the model that is to judge"):
                activate(service, station, other.name, other.hash, "test", "because")
        with pytest.raises(Refused, match="judges one picture of each part"):
            service.inspect(part(166), station="one")
        assert service.inspect(part(166), station="two").decision == "good"


def test_a_shadow_scores_parts_by_all_their_pictures(of_parts, fitted, tmp_path):
    from invad.serve.versions import compare, put_shadow

    detector = fitted("cells")
    detector.save(tmp_path / "cells")
    stations = {"one": of_parts, "two": detector}
    with Service(stations, tmp_path / "line", options=Options(reserve=0)) as service:
        other = service.active("two")
        put_shadow(service, "one", other.name, other.hash, "test")
        judged = [part(180), part(181, defect=True), {"light2": picture(182, 2)}]
        for pictures in judged:
            service.inspect(pictures, station="one")
        waits(lambda: compare(service, "one", 5).parts == 3)
        with service.database.read() as connection:
            found = shadows.pairs(connection, "one", service.active("one").hash, other.hash, 9)[::-1]
        assert [one.shadow_decision for one in found] == ["good", "bad", "review"]
        expected = [detector.predict_part(pictures).score for pictures in judged]
        assert [one.shadow_score for one in found] == pytest.approx(expected)


def test_pictures_of_one_frame_have_one_map(fitted, tmp_path):
    detector = fitted("cells")
    detector.save(tmp_path / "model")
    pictures = part(170, defect=True)
    expected = detector.predict_part(pictures)
    with Service(detector, tmp_path / "line", options=Options(reserve=0)) as service:
        found = service.inspect(pictures)
        assert (found.decision, found.score) == ("bad", pytest.approx(expected.score))
        assert found.peak == pytest.approx(float(expected.anomaly_map.max()))
        assert service.result(found.id).map_limits == detector.fusion.calibration.map_limits()


@contextmanager
def on_line(service):
    """A client of a service in this process."""
    from starlette.testclient import TestClient

    from invad.serve.app import application

    with Client("http://127.0.0.1") as client:
        client._http = TestClient(application(service, without_keys=True), base_url="http://127.0.0.1")
        yield client


def test_what_people_said_of_parts_is_read_back_with_all_pictures(fitted, tmp_path):
    from typer.testing import CliRunner

    from invad.cli.app import app
    from invad.data.datasets import read_dataset
    from invad.data.members import Rule, split_by_part
    from invad.serve import reviewing

    detector = fitted("scores")
    detector.save(tmp_path / "model")
    mask = np.zeros((64, 64), bool)
    mask[30:40, 30:40] = True
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[False], mask.ravel(), [False]]))), prepend=0)
    runs = [*runs.tolist(), 64 * 64 - int(runs.sum())]
    with Service(detector, tmp_path / "line", options=Options(reserve=0), threads=1) as service:
        good = [service.inspect(part(seed)) for seed in range(200, 216)]
        bad = service.inspect(part(230, defect=True))
        lacking = service.inspect({"light1": picture(231, 1)})
        for one in good[:2]:
            reviewing.review(service, one.id, "good", "somebody")
        reviewing.review(service, bad.id, "bad", "somebody", defect="spot", mask=runs)
        reviewing.review(service, lacking.id, "good", "somebody")

        def run(*words):
            done = CliRunner().invoke(app, [str(word) for word in words])
            assert done.exit_code == 0, done.output
            return done

        said = run("serve", "verdicts", "--data", service.folder, "--output", tmp_path / "set")
        with on_line(service) as client:
            written = client.export_verdicts(tmp_path / "there")
    files = {path.relative_to(tmp_path / "set").as_posix(): path for path in (tmp_path / "set").rglob("*.*")}
    there = {path.relative_to(tmp_path / "there").as_posix() for path in (tmp_path / "there").rglob("*.*")}
    assert set(files) == there
    own = part(230, defect=True)
    for light in ("light1", "light2"):
        assert files[f"default/test/spot/{bad.id}_{light}.png"].read_bytes() == own[light]
    drawn = Image.open(files[f"default/ground_truth/spot/{bad.id}_{bad.seen_by}_mask.png"])
    assert np.array_equal(np.asarray(drawn) == 255, mask)
    assert f"{lacking.id}: no light2" in said.stderr
    assert f"{lacking.id}: no light2" in written.left_out
    assert "are read by --parts names" in said.stdout
    assert (written.good, written.bad, written.masks, written.parts) == (2, 1, 1, "names")
    # What `train --parts names` reads: whole parts, good ones that nobody judged to learn from.
    split = split_by_part(read_dataset(tmp_path / "set"), Rule.parse(written.parts))
    passed = [one for one in good[2:] if one.decision == "good"]
    assert len(split.train) == 2 * len(passed)
    assert {one.sample_id.rpartition("/")[2] for one in split.train} == {one.id for one in passed}
    assert {(one.member, one.defect) for one in split.test} == {
        (light, kind) for light in ("light1", "light2") for kind in ("good", "spot")
    }
    assert [one.member for one in split.test if one.mask_path] == [bad.seen_by]
    told = run("calibrate", tmp_path / "model", tmp_path / "set", "--device", "cpu")
    assert f"Calibrated on {len(passed)} good parts" in told.stdout
    measured = run(
        "evaluate", tmp_path / "model", tmp_path / "set", "--device", "cpu", "--csv", tmp_path / "e.csv"
    )
    assert "Defects that were found show most: 0 in light1, 1 in light2." in " ".join(measured.stdout.split())


def asked(url, *words):
    from typer.testing import CliRunner

    from invad.cli.app import app

    return CliRunner().invoke(app, ["predict", "--server", url, *map(str, words)])


def test_the_command_sends_all_pictures_of_a_part_to_a_service_that_wants_them(line, served, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, defect in ((300, False), (301, True), (302, False)):
        for name, content in part(seed, defect).items():
            (folder / f"p{seed}_{name}.png").write_bytes(content)
    (folder / "p302_light2.png").write_bytes(b"no picture")
    (folder / "p303_light1.png").write_bytes(picture(303, 1))
    (folder / "notes.png").write_bytes(picture(304, 1))
    files = ["--json", tmp_path / "p.json", "--csv", tmp_path / "p.csv"]
    with served(line, without_keys=True) as url:
        told = asked(url, folder, *files)
        strict = asked(url, folder / "p303_light1.png", "--strict")
    assert told.exit_code == 0, told.output
    rows = {row["part"]: row for row in json.loads((tmp_path / "p.json").read_text())["parts"]}
    assert "finds no part and member" in rows[str(folder / "notes.png")]["error"]
    own = line.active().detector
    for seed, decision in ((300, "good"), (301, "bad")):
        row, expected = rows[f"p{seed}"], own.predict_part(part(seed, seed == 301))
        assert (row["decision"], row["seen_by"], row["reason"]) == (decision, expected.seen_by, "")
        assert row["score"] == pytest.approx(expected.score)
        assert row["members"]["light2"]["path"] == str(folder / f"p{seed}_light2.png")
        assert row["members"]["light2"]["p_value"] == pytest.approx(expected.members["light2"].p_value)
    assert rows["p302"]["decision"] == "review"
    assert rows["p302"]["reason"].startswith("light2: ")
    assert rows["p303"]["reason"] == "no light2"
    with (tmp_path / "p.csv").open(newline="") as file:
        table = {row["part"]: row for row in csv.DictReader(file)}
    assert float(table["p301"]["light2_p_value"]) == rows["p301"]["members"]["light2"]["p_value"]
    assert {one.result.part_id for one in line.history(Query(limit=5))[0]} == {"p300", "p301", "p302", "p303"}
    assert "5 parts: " in told.stdout
    assert strict.exit_code == 1
    assert strict.stderr.strip().splitlines()[-1].endswith("p303: no light2")


def test_pages_and_pictures_that_are_there_twice_are_sent_as_they_can_be(line, served, tmp_path):
    import tifffile

    grey = [np.asarray(Image.open(io.BytesIO(content))) for content in part(310).values()]
    tifffile.imwrite(tmp_path / "p310.tif", np.stack(grey), photometric="minisblack")
    with served(line, without_keys=True) as url:
        told = asked(url, tmp_path / "p310.tif", "--parts", "pages", "--json", "-")
        double = tmp_path / "double"
        double.mkdir()
        for name in ("x_light1.png", "x_light1.copy.png"):
            (double / name).write_bytes(picture(311, 1))
        (double / "x_light2.png").write_bytes(picture(311, 2))
        rule = r"(?P<part>x)_(?P<member>light\d)"
        twice = asked(url, double, "--parts", rule, "--json", "-")
    # The pages are of no member that the model knows, and it says so.
    assert told.exit_code == 1
    assert "page1 is unknown, the model has light1, light2" in told.output
    (row,) = json.loads(twice.stdout)["parts"]
    assert row["decision"] == "review"
    assert row["reason"].startswith("no light1; light1 is there twice")


def test_a_service_of_single_pictures_takes_no_parts(bundle, served, tmp_path):
    (tmp_path / "a_1.png").write_bytes(picture(320, 1))
    with (
        Service(bundle, tmp_path / "line", options=Options(reserve=0)) as service,
        served(service, without_keys=True) as url,
    ):
        refused = asked(url, tmp_path / "a_1.png", "--parts", "names")
        assert "station default judges single pictures; leave it away" in " ".join(refused.stderr.split())
        assert asked(url, tmp_path / "a_1.png").exit_code == 0
