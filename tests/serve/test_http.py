"""A service as its users meet it: a process, a port, and whatever they send."""

import base64
import importlib
import io
import json
import re
import socket
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from invad import runtime
from invad.serve.pictures import decode_map
from waiting import waits

INSPECT = "/api/v1/stations/default/inspect"


def send(http, body, path=INSPECT, kind="image/png", **words):
    return http.post(path, content=body, headers={"Content-Type": kind}, params=words or None)


def error(answer):
    """The one line of a refusal."""
    text = answer.json()["error"]
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def exported(bundle):
    return runtime.load(bundle, threads=1)


def test_a_part_is_judged_kept_and_found_again(http, pictures, exported):
    (good, *_), (bad, *_) = pictures
    answer = send(http, bad, part_id="7", lot="L 1")
    found = answer.json()
    expected = exported.predict(bad)
    assert answer.status_code == 200
    assert (found["score"], found["p_value"], found["decision"]) == (
        expected.score,
        expected.p_value,
        expected.decision,
    )
    assert found["schema"] == 1
    assert [found[name] for name in ("station", "part_id", "lot", "source")] == [
        "default",
        "7",
        "L 1",
        "http",
    ]
    assert found["model_version"] == exported.content_hash
    assert found["peak"] == expected.anomaly_map.max()
    assert found["regions"][0]["peak"] == found["peak"]
    assert set(found["ms"]) == {"queue", "decode", "infer", "store"}
    again = http.get(f"/api/v1/results/{found['id']}").json()
    assert again == found
    form = http.post(INSPECT, files={"image": ("any name.png", good)}).json()
    assert form["score"] == exported.predict(good).score
    listed = http.get("/api/v1/results", params={"station": "default", "limit": 2}).json()
    assert [one["id"] for one in listed["results"]] == [form["id"], found["id"]]
    page = http.get("/api/v1/results", params={"limit": 1, "cursor": listed["results"][0]["id"]}).json()
    assert page["results"] == [found]
    assert http.get("/api/v1/results", params={"lot": "L 1"}).json() == {"results": [found], "next": None}


@pytest.mark.parametrize("kind", ["uint16", "jpeg", "grey", "dicom"])
def test_a_score_is_that_of_the_file(kind, http, exported, draw, tmp_path):
    pixels, stream = draw(700, defect=True, size=(80, 60)), io.BytesIO()
    if kind == "uint16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257 + 3).save(stream, "PNG")
    elif kind == "jpeg":
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    elif kind == "dicom":
        pytest.importorskip("pydicom", reason="needs invad[dicom]")
        stream.write(importlib.import_module("dicoms").dicom(pixels[..., 0].astype(np.int16) - 90))
    else:
        Image.fromarray(pixels[..., 0]).save(stream, "TIFF")
    (tmp_path / "file").write_bytes(stream.getvalue())
    expected = exported.predict(tmp_path / "file")
    found = send(http, stream.getvalue(), kind="application/octet-stream").json()
    assert (found["score"], found["p_value"], found["decision"]) == (
        expected.score,
        expected.p_value,
        expected.decision,
    )


def test_pictures_of_a_result(http, pictures, exported):
    bad = pictures[1][0]
    found = send(http, bad, map="png16").json()
    whole = exported.predict(bad).anomaly_map
    address = f"/api/v1/results/{found['id']}"
    image = http.get(f"{address}/image")
    assert image.content == bad
    assert image.headers["content-disposition"].startswith("attachment")
    unchanged = http.get(f"{address}/image", headers={"If-None-Match": image.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    map_png = http.get(f"{address}/map").content
    assert base64.b64decode(found["map"]) == map_png
    assert np.abs(decode_map(map_png) - whole).max() <= np.ptp(whole) / 65535
    for name in ("overlay", "image?form=png"):
        with Image.open(io.BytesIO(http.get(f"{address}/{name}").content)) as drawn:
            assert (drawn.format, drawn.size) == ("PNG", (64, 64))
    for name, mode, size in (("image?side=32", "RGB", (32, 32)), ("map?form=layer", "RGBA", (64, 64))):
        with Image.open(io.BytesIO(http.get(f"{address}/{name}").content)) as drawn:
            assert (drawn.mode, drawn.size) == (mode, size)
    assert http.get(f"{address}/overlay?side=5").status_code == 422
    assert send(http, bad, map="url").json()["map"].startswith("/api/v1/results/")
    assert "map" not in send(http, bad).json()


def test_one_request_id_is_stored_once(http, pictures):
    first, second, *_ = pictures[0]
    one, two = (send(http, first, request_id="a-1").json() for _ in range(2))
    assert one == two
    refused = send(http, second, request_id="a-1")
    assert (refused.status_code, "another image" in error(refused)) == (409, True)


def test_what_the_line_knows_of_itself(http, bundle, exported):
    (station,) = http.get("/api/v1/stations").json()["stations"]
    assert (station["name"], station["active"]) == ("default", exported.content_hash)
    (version,) = http.get(f"/api/v1/models/{bundle.name}/versions").json()["versions"]
    assert (version["hash"], version["stations"]) == (exported.content_hash, ["default"])
    assert http.get("/api/v1/models/none/versions").status_code == 404
    found = http.get("/api/v1/stations/default/calibrations").json()["calibrations"]
    pooled = next(one for one in found if one["category"] is None)
    calibration = exported.calibrations[""]
    assert (pooled["review_limit"], pooled["bad_limit"]) == calibration.score_limits()
    assert (pooled["n"], pooled["revision"], pooled["in_force"]) == (calibration.n, 1, True)
    assert pooled["warnings"] == list(calibration.warnings())


def test_health_readiness_and_figures(http):
    assert http.get("/healthz").json()["status"] == "alive"
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    figures = http.get("/metrics").text
    assert re.search(r'^invad_parts_total\{.*decision="bad".*\} [1-9]', figures, re.MULTILINE)
    assert "\ninvad_ready 1.0\n" in figures
    assert "\ninvad_queue_parts 0.0\n" in figures


def test_the_reference_page_needs_nothing_else(service, http):
    page = http.get("/docs", headers={"Authorization": ""})
    assert page.status_code == 200
    assert "inspect" in page.text
    for link in re.findall(r'(?:href|src)="([^"#]+)"', page.text):
        assert link.startswith("/")
        assert http.get(link).status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    described = http.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/v1/stations/{station}/inspect",
        "/api/v1/results",
        "/api/v1/results/{id}",
        "/api/v1/results/{id}/image",
        "/api/v1/results/{id}/map",
        "/api/v1/results/{id}/overlay",
        "/api/v1/results/{id}/review",
        "/api/v1/results/{id}/reviews",
        "/api/v1/queue",
        "/api/v1/drift",
        "/api/v1/stations/{station}/drift:acknowledge",
        "/api/v1/stations/{station}/trends",
        "/api/v1/stations/{station}/region",
        "/api/v1/stations/{station}/calibrations/{revision}:activate",
        "/api/v1/stations",
        "/api/v1/stations/{station}/calibrations",
        "/api/v1/models",
        "/api/v1/models/{name}/versions",
        "/api/v1/models/{name}/versions/{version}:activate",
        "/api/v1/models/{name}/versions/{version}:retire",
        "/api/v1/models/{name}/versions/{version}:shadow",
        "/api/v1/stations/{station}/shadow",
        "/api/v1/stations/{station}/version:rollback",
        "/api/v1/keys",
        "/api/v1/keys/{id}",
        "/api/v1/users",
        "/api/v1/users/{name}",
        "/api/v1/password",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{name}",
        "/v2/models/{name}/versions/{version}",
        "/v2/models/{name}/ready",
        "/v2/models/{name}/versions/{version}/ready",
        "/v2/models/{name}/infer",
        "/v2/models/{name}/versions/{version}/infer",
        "/api/v1/schema/result.json",
        "/healthz",
        "/readyz",
        "/metrics",
    }


# ---------------------------------------------------------------------- keys


def test_keys_open_what_they_are_for_and_nothing_else(service, http, pictures):
    picture = pictures[0][0]
    http.post("/api/v1/stations", json={"name": "second"})
    assert http.post("/api/v1/stations", json={"name": "second"}).status_code == 409
    assert http.post("/api/v1/stations", json={"name": "../x"}).status_code == 400
    wanted = {"name": "camera", "scopes": ["infer"], "stations": ["second"]}
    made = http.post("/api/v1/keys", json=wanted)
    assert made.status_code == 201
    with service.http(made.json()["secret"]) as camera:
        assert send(camera, picture, "/api/v1/stations/second/inspect").status_code == 200
        refused = send(camera, picture)
        assert (refused.status_code, "not for station default" in error(refused)) == (403, True)
        assert "it needs read" in error(camera.get("/api/v1/results"))
        assert camera.get("/api/v1/keys").status_code == 403
        listed = http.get("/api/v1/keys").json()["keys"]
        assert [one["secret"] for one in listed] == [None] * len(listed)
        assert next(one for one in listed if one["name"] == "camera")["last_used"]
        assert http.delete(f"/api/v1/keys/{made.json()['id']}").status_code == 204
        assert send(camera, picture, "/api/v1/stations/second/inspect").status_code == 401
    reader = http.post("/api/v1/keys", json={**wanted, "scopes": ["read"]}).json()["secret"]
    with service.http(reader) as client:
        found = client.get("/api/v1/results").json()["results"]
        assert {one["station"] for one in found} == {"second"}
        other = http.get("/api/v1/results", params={"station": "default"}).json()["results"][0]["id"]
        assert client.get(f"/api/v1/results/{other}").status_code == 404
        assert [one["name"] for one in client.get("/api/v1/stations").json()["stations"]] == ["second"]
    assert http.post("/api/v1/keys", json={**wanted, "scopes": ["fly"]}).status_code == 400


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer inv_a_b"}, {"X-API-Key": "ÿ".encode("latin-1")}]
)
def test_without_a_known_key_nothing_is_done(header, http, pictures):
    headers = {"Authorization": "", **header}
    for verb, path in (("POST", INSPECT), ("GET", "/api/v1/results"), ("GET", "/metrics")):
        answer = http.request(verb, path, headers=headers, content=pictures[0][0])
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


# ---------------------------------------------------------------------- what nobody should send


def huge_png(width, height):
    """A header that promises many pixels, and nothing behind it."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the image is empty"),
        (b"<svg onload=alert(1)>", "none of the formats"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "the image"),
        (huge_png(60_000, 60_000), "over the limit of 200000000"),
        (b"GIF89a" + b"\xff" * 40, "the image"),
    ],
    ids=["empty", "svg", "broken", "bomb", "gif"],
)
def test_pictures_that_are_none(body, words, http):
    answer = send(http, body)
    assert (answer.status_code, words in error(answer)) == (400, True), answer.text


def test_what_nobody_reads_is_refused_at_every_call(http):
    limits = "/api/v1/stations/default/calibrations"
    for answer, what in (
        (http.get("/api/v1/results?desicion=bad"), "the word of the address 'desicion' is unknown"),
        (
            http.post(f"{limits}?previev=true", json={"since": "2026-01-01"}),
            "the word of the address 'previev'",
        ),
        (
            http.post(f"{limits}?preview=true", json={"review_rates": 0.1}),
            "the field 'review_rates' is unknown",
        ),
        (http.post("/api/v1/results/x/review", json={"verdict": "good", "notes": ""}), "the field 'notes'"),
        (http.post("/api/v1/stations", json={"name": "other", "model": "m"}), "the field 'model' is unknown"),
    ):
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(what)


def test_a_form_may_say_what_the_address_may(http, pictures):
    def post(address="", file="image", **words):
        return http.post(f"{INSPECT}{address}", files={file: pictures[0][0]}, data=words)

    words = {"part_id": "form-7", "lot": "L", "category": "part", "request_id": "form-7"}
    answer = post(**words).json()
    assert {name: answer[name] for name in words} == words
    assert post("?request_id=form-7&part_id=form-7", lot="L").json()["id"] == answer["id"]
    refused = {
        "part_id is 'a' in the address and 'b' in the form": post("?part_id=a", part_id="b"),
        "the form field 'part' is unknown; known are image, part_id": post(part="7"),
        "the word of the address 'partid' is unknown; known are part_id": post("?partid=7"),
    }
    for said, found in refused.items():
        assert found.status_code == 400
        assert found.json()["error"].startswith(said), found.text
    two = http.post(INSPECT, files={"image": pictures[0][0], "lot": pictures[0][1]})
    assert two.status_code == 400


def test_forms_and_types_that_are_none(http, pictures):
    picture = pictures[0][0]
    for kind, status in (("text/html", 415), ("", 415), ("multipart/form-data", 400)):
        assert send(http, picture, kind=kind).status_code == status, kind
    assert http.post(INSPECT, files={"other": picture}).status_code == 400
    assert "Too many files" in error(http.post(INSPECT, files=[("image", picture), ("image", picture)]))
    assert http.post(INSPECT, data={"image": "text"}).status_code == 415
    cut = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + picture
    assert send(http, cut, kind="multipart/form-data; boundary=x").status_code == 400


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/stations/none/inspect", 404),
        (f"{INSPECT}?category=none", 400),
        (f"{INSPECT}?part_id={'x' * 201}", 400),
        (f"{INSPECT}?part_id=a%00b", 400),
        (f"{INSPECT}?request_id=%0a", 400),
        (f"{INSPECT}?map=jpeg", 422),
        ("/api/v1/nowhere", 404),
        ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404),
    ],
)
def test_requests_that_lead_nowhere(path, status, http, pictures):
    answer = send(http, pictures[0][0], path) if "inspect" in path else http.get(path)
    assert answer.status_code == status
    assert error(answer)


def test_queries_that_lead_nowhere(http):
    for query in ({"limit": 0}, {"limit": 10**9}, {"decision": "fine"}):
        assert http.get("/api/v1/results", params=query).status_code == 422
    assert "give an ISO date" in error(http.get("/api/v1/results", params={"since": "yesterday"}))
    assert http.get("/api/v1/results", params={"station": "none"}).status_code == 404
    assert http.get("/api/v1/results/none").status_code == 404
    assert http.get("/api/v1/results/none/image").status_code == 404
    assert http.get("/api/v1/results", params={"cursor": "'; DROP TABLE result; --"}).json()["next"] is None


def raw(service, content, wait=5.0, pause=0.0):
    """What a service answers to bytes on a connection."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        for piece in content if isinstance(content, list) else [content]:
            connection.sendall(piece)
            time.sleep(pause)
        found = b""
        try:
            while piece := connection.recv(65536):
                found += piece
        except (TimeoutError, ConnectionResetError):
            pass
        return found


def head(service, length, kind="image/png"):
    return (
        f"POST {INSPECT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


@pytest.fixture(scope="module")
def narrow(start, tmp_path_factory):
    """A service with a limit of one megabyte."""
    return start(tmp_path_factory.mktemp("narrow") / "line", "--max-body", "1")


def test_a_body_over_the_limit_is_refused_before_it_is_read(narrow, pictures):
    promised = raw(narrow, head(narrow, 10**12), wait=8)
    assert promised.startswith(b"HTTP/1.1 413")
    with narrow.http() as http:
        large = send(http, b"\0" * (3 << 20))
        assert (large.status_code, "larger than the limit of 1048576 bytes" in error(large)) == (413, True)

        def pieces():
            for _ in range(40):
                yield b"\0" * 65536

        chunked = send(http, pieces())
        assert chunked.status_code == 413
        assert send(http, pictures[0][0]).status_code == 200


def test_half_a_body_is_no_part(narrow, pictures):
    picture = pictures[0][1]
    host, port = narrow.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head(narrow, len(picture)) + picture[: len(picture) // 2])
    with narrow.http() as http:
        before = http.get("/api/v1/results").json()["results"]
        assert all(one["image_sha256"] != picture for one in before)
        assert http.get("/healthz").status_code == 200
        assert "\ninvad_queue_parts 0.0\n" in http.get("/metrics").text


def test_what_is_no_http_is_answered_and_forgotten(narrow):
    assert raw(narrow, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")
    endless = b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000 + b"\r\n\r\n"
    assert raw(narrow, endless)[:10] in (b"HTTP/1.1 4", b"")  # or the connection was cut
    with narrow.http() as http:
        assert http.get("/healthz").status_code == 200


def test_without_keys_only_this_machine_and_its_own_pages_are_heard(start, tmp_path, pictures):
    service = start(tmp_path / "line", "--no-auth")
    assert service.key is None
    with service.http() as http:
        assert send(http, pictures[0][0]).status_code == 200
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
            answer = http.post(INSPECT, content=pictures[0][0], headers=headers)
            assert answer.status_code == 403, headers
        own = {"Origin": service.url, "Content-Type": "image/png"}
        assert http.post(INSPECT, content=pictures[0][0], headers=own).status_code == 200


def test_the_log_is_an_object_a_line(narrow):
    with narrow.http() as http:
        http.get("/readyz")

    def logged():
        lines = [json.loads(line) for line in narrow.words().splitlines()]
        return [line for line in lines if line.get("path") == "/readyz"]

    assert waits(logged)[0]["status"] == 200
    assert narrow.key not in narrow.words()


def test_many_at_a_time_get_their_own_answers(service, pictures, exported):
    bodies = [*pictures[0], *pictures[1]]
    expected = [exported.predict(body).score for body in bodies]
    found = {}

    def ask(number):
        with service.http() as http:
            found[number] = [send(http, body).json()["score"] for body in bodies]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 4
