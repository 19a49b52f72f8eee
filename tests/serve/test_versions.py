"""Versions of a model: uploaded over real HTTP, shadowed, activated, rolled back, and what is refused."""

import io
import json
import re
import shutil
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from bundles import altered, zipped
from greys import LIMITS, Greys, png
from invad.cli.app import app
from invad.data.images import read_image
from invad.errors import ArtifactError
from invad.runtime.bundle import BUNDLE
from invad.runtime.certificate import PROBES
from invad.serve import Client, Options, Refused, Service, arriving, versions
from invad.serve.archives import NoArchive, unpack
from invad.serve.records import Part
from invad.serve.store import stations
from invad.serve.store.backup import backup, check, restore
from invad.serve.store.schema import audit, shadow
from waiting import waits

INSPECT = "/api/v1/stations/default/inspect"
ZIP = {"Content-Type": "application/zip"}


def tarred(folder):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.add(folder, "some folder")
    return stream.getvalue()


@pytest.fixture(scope="module")
def second(bundle, tmp_path_factory):
    return altered(bundle, tmp_path_factory.mktemp("second") / "next")


@pytest.fixture(scope="module")
def line(bundle, served, tmp_path_factory):
    """(service, http with a key for everything): a real bundle, in this process, on a real port."""
    folder = tmp_path_factory.mktemp("versions") / "line"
    options = Options(reserve=0, max_model=64 << 20)
    with Service(bundle, folder, options=options, threads=1) as service, served(service) as url:
        key = {"Authorization": f"Bearer {service.first_key()}"}
        with httpx.Client(base_url=url, headers=key, timeout=120, trust_env=False) as http:
            yield service, http


def audited(service):
    with service.database.read() as connection:
        return list(connection.scalars(select(audit.c.action).order_by(audit.c.id)))


def test_a_second_version_shadows_judges_and_goes_again(line, bundle, second, pictures):
    service, http = line
    first = service.active().hash
    path = f"/api/v1/models/{bundle.name}/versions"
    made = http.post(path, content=zipped(second), headers=ZIP)
    assert made.status_code == 201
    version = made.json()
    assert (version["state"], version["model"], version["stations"]) == ("candidate", bundle.name, [])
    assert version["proved"]["passed"]
    assert version["proved"]["probes"] > 0
    assert version["content"]["preset"]
    assert version["by"].startswith("key ")
    again = http.post(path, content=tarred(second), headers={"Content-Type": "application/gzip"})
    assert (again.status_code, again.json()) == (200, version)
    assert http.post(INSPECT, files={"image": pictures[0][0]}).json()["model_version"] == first

    there = f"{path}/{version['hash']}"
    assert http.post(f"{there}:shadow", json={}).json()["state"] == "shadow"
    sent = [http.post(INSPECT, files={"image": one}).json() for one in (*pictures[0][:3], *pictures[1])]
    sent.append(service.inspect(read_image(pictures[0][3])).plain())  # pixels are shadowed as files are
    assert {one["model_version"] for one in sent} == {first}
    found = waits(
        lambda: (c := http.get("/api/v1/stations/default/shadow").json())["parts"] == len(sent) and c
    )
    assert found["correlation"] == pytest.approx(1)
    assert (found["flips"], found["differing"]) == ({}, [])
    assert found["flagged"][0] == found["flagged"][1] > 0
    assert f'version="{version["hash"]}"' in http.get("/metrics").text

    refused = http.post(f"{there}:activate", json={})
    assert refused.status_code == 409
    assert "6 parts were shadowed, 500 are asked; give a reason" in refused.json()["error"]
    assert http.post(f"{there}:activate", json={"reason": "a trial"}).json()["state"] == "active"
    result = http.post(INSPECT, files={"image": pictures[1][0]}).json()
    assert result["model_version"] == version["hash"]
    assert [result[name] for name in ("score", "p_value", "decision")] == [
        sent[3][name] for name in ("score", "p_value", "decision")
    ]
    assert result["calibration"] > sent[3]["calibration"]  # a revision of its own
    assert http.get("/api/v1/stations/default/shadow").status_code == 404  # it shadows itself no more
    figures = http.get("/metrics").text
    assert re.search(rf'invad_model\{{.*hash="{version["hash"]}".*\}} 1', figures)
    assert first not in re.findall(r"invad_model\{.*", figures)[0]
    assert re.search(rf'invad_parts_total\{{.*version="{version["hash"]}"\}} 1', figures)

    # the Open Inference Protocol follows
    assert http.get(f"/v2/models/{bundle.name}").json()["versions"] == [version["hash"]]
    assert http.get(f"/v2/models/{bundle.name}/versions/{first}/ready").status_code == 404
    assert http.get(f"/v2/models/{bundle.name}/versions/{version['hash']}/ready").status_code == 200

    back = http.post("/api/v1/stations/default/version:rollback", json={"reason": "no better"}).json()
    assert (back["hash"], back["state"]) == (first, "active")
    result = http.post(INSPECT, files={"image": pictures[1][0]}).json()
    assert (result["model_version"], result["calibration"]) == (first, sent[3]["calibration"])
    assert http.post(f"{path}/{first}:retire", json={}).status_code == 409
    assert http.post(f"{there}:retire", json={"reason": "too slow"}).json()["state"] == "retired"
    assert not service.models.path(version["hash"]).exists()
    assert "is retired" in http.post(f"{there}:shadow", json={}).json()["error"]
    steps = ["add version", "shadow", "activate", "roll back version", "retire version"]
    assert [one for one in audited(service) if one in steps] == steps
    with service.database.read() as connection:
        (told,) = connection.scalars(select(audit.c.content).where(audit.c.action == "retire version"))
    assert json.loads(told)["reason"] == "too slow"
    assert http.post(path, content=zipped(second), headers=ZIP).status_code == 201  # it may come back


def broken(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])


def told_otherwise(folder, plain):
    path = folder / PROBES / "expected.json"
    expected = json.loads(path.read_text())
    expected["probes"][0]["score"] += 5
    path.write_text(json.dumps(expected))


def test_what_is_no_version_is_refused_in_one_line(line, bundle, tmp_path):
    service, http = line
    before = sorted(path.name for path in service.models.folder.iterdir())
    path = f"/api/v1/models/{bundle.name}/versions"

    def refused(content, status, words, to=path):
        answer = http.post(to, content=content, headers=ZIP)
        text = answer.json()["error"]
        assert (answer.status_code, "\n" in text, str(service.folder) in text) == (status, False, False), text
        assert words in text

    refused(b"no archive", 400, "is no .zip, .tar or .tar.gz file")
    refused(b"", 400, "is no .zip")
    form = http.post(path, files={"bundle": b"x"})
    assert (form.status_code, "send the archive itself" in form.json()["error"]) == (415, True)
    refused(of_zip(("notes.txt", "nothing")), 400, "is missing, this is not a complete model")
    graph = shutil.copytree(bundle, tmp_path / "graph")
    broken(graph, json.loads((graph / BUNDLE).read_text())["graph"])
    refused(zipped(graph), 400, "altered or truncated since it was written")
    outside = altered(bundle, tmp_path / "outside", lambda plain: plain.update(graph="../../../x"))
    refused(zipped(outside), 400, "is no file of it")
    grid = altered(bundle, tmp_path / "grid", lambda plain: plain.update(grid_hw=[9, 9]))
    refused(zipped(grid), 409, "grid_hw is 9 x 9, versions of")
    pickled = altered(bundle, tmp_path / "pickled", lambda plain: plain.update(format="torch"))
    refused(zipped(pickled), 400, "may run code of its own")
    score = altered(bundle, tmp_path / "score", lambda plain: told_otherwise(tmp_path / "score", plain))
    refused(zipped(score), 422, "differs from PyTorch: probe")
    refused(zipped(bundle), 409, "of model", to="/api/v1/models/another/versions")
    refused(b"x" * (65 << 20), 413, "larger than the limit")
    assert sorted(path.name for path in service.models.folder.iterdir()) == before
    unknown = http.post(f"{path}/{'0' * 64}:activate", json={})
    assert (unknown.status_code, "has no version" in unknown.json()["error"]) == (404, True)


def test_only_an_admin_changes_what_judges(line, bundle, second):
    service, http = line
    reader = http.post("/api/v1/keys", json={"name": "r", "scopes": ["read", "review", "infer"]}).json()
    headers = {"Authorization": f"Bearer {reader['secret']}", **ZIP}
    path = f"/api/v1/models/{bundle.name}/versions"
    assert http.get(path, headers=headers).status_code == 200
    for verb, address in (
        ("POST", path),
        ("POST", f"{path}/{service.active().hash}:activate"),
        ("POST", f"{path}/{service.active().hash}:shadow"),
        ("POST", f"{path}/{service.active().hash}:retire"),
        ("POST", "/api/v1/stations/default/version:rollback"),
        ("DELETE", "/api/v1/stations/default/shadow"),
    ):
        assert http.request(verb, address, headers=headers).status_code == 403, address


def test_client_and_command_line(line, bundle, tmp_path):
    _, http = line
    url, key = str(http.base_url), http.headers["authorization"].split()[1]
    third = altered(bundle, tmp_path / "third")

    def run(*words):
        done = CliRunner().invoke(
            app, ["serve", "versions", *map(str, words), "--server", url], env={"INVAD_KEY": key}
        )
        assert "Traceback" not in done.output
        return done

    said = run("add", third, "--name", bundle.name)
    assert said.exit_code == 0, said.output
    digits = said.stdout.split()[0]
    assert f"{digits}  candidate" in run("list").stdout
    assert "shadows at station default" in run("shadow", digits).stdout
    assert "0 parts by both, 500 are asked" in run("compare").stdout
    assert run("activate", digits).exit_code == 1
    assert "judges at station default" in run("activate", digits, "--reason", "a trial").stdout
    with Client(url, key=key) as client:
        assert next(one for one in client.versions(bundle.name) if one["state"] == "active")[
            "hash"
        ].startswith(digits)
        before = client.roll_back(reason="enough")
        assert before["state"] == "active"
        (whole,) = [one["hash"] for one in client.versions() if one["hash"].startswith(digits)]
        assert client.shadow(bundle.name, whole)["shadows"] == ["default"]
        assert client.comparison()["shadow"] == whole
        client.end_shadow()
        with pytest.raises(Refused, match="no shadow"):
            client.comparison()
    assert "retired" in run("retire", digits).stdout
    assert run("activate", "none").exit_code != 0


# ---------------------------------------------------------------------- after a restart


def test_what_was_activated_judges_after_a_kill_and_a_restart(bundle, second, tmp_path, pictures):
    data = tmp_path / "line"
    archive = tmp_path / "next.zip"
    archive.write_bytes(zipped(second))

    def opened():
        return Service(bundle, data, options=Options(reserve=0), threads=1)

    with opened() as service:
        first = service.active().hash
        with arriving.room_for_upload(service, 0) as folder:
            shutil.copy(archive, folder / "archive")
            made, is_new = arriving.add(service, bundle.name, folder / "archive", "test")
        assert is_new
        versions.activate(service, "default", bundle.name, made.hash, "test", "a trial")
        versions.put_shadow(service, "default", bundle.name, first, "test")
    (data / "models/unfinished-1").mkdir()  # as a kill leaves it
    with opened() as service:
        assert service.active().hash == made.hash
        shadowing = service.models.shadow("default")
        assert shadowing is not None
        assert shadowing.hash == first
        assert service.inspect(pictures[0][0]).model_version == made.hash
        assert not (data / "models/unfinished-1").exists()
    backup(data, tmp_path / "copy")
    restore(tmp_path / "copy", tmp_path / "again")
    with Service(bundle, tmp_path / "again", options=Options(reserve=0), threads=1) as service:
        assert service.active().hash == made.hash
    # Another model than at the last start takes over.
    with Service(second, data, options=Options(reserve=0), threads=1) as service:
        assert service.active().hash == made.hash
    with opened() as service:
        assert service.active().hash == first
        versions.roll_back(service, "default", "test")
        assert service.active().hash == made.hash
    graph = data / "models" / made.hash / "model.onnx"
    graph.chmod(0o644)
    graph.write_bytes(b"nothing")
    (line,) = check(data).damaged
    assert "altered or truncated" in line
    with pytest.raises(ArtifactError, match="altered or truncated"):
        opened()


# ---------------------------------------------------------------------- shadow, with grey levels as scores


class Other(Greys):
    """Grey levels plus 3, so that some decisions differ."""

    content_hash = "1" * 64

    def judge(self, pixels, category=None):
        return [replace(one, score=one.score + 3) for one in super().judge(pixels, category)]


@pytest.fixture
def two(tmp_path):
    """(service, its detector, the one that shadows it)."""
    active, other = Greys(), Other()
    with Service(active, tmp_path / "line", options=Options(reserve=0, batch=4, shadow=8)) as service:
        service.models.hold("model", other)
        with service.database.write() as connection:
            stations.add_version(connection, other.content_hash, "model", {"engine": "greys"})
        versions.put_shadow(service, "default", "model", other.content_hash, "test")
        yield service, active, other
        active.gate.set()
        other.gate.set()


def shadowed(service):
    with service.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(shadow))


def test_a_comparison_names_the_parts_that_differ(two):
    service, *_ = two
    made = [service.inspect(png(level)) for level in (1, 20, 36, 38, 60)]
    waits(lambda: shadowed(service) == 5)
    found = versions.compare(service, "default", 1)
    assert LIMITS.score_limits()[0] == 38
    assert found.flips == {"good > review": 2}
    assert (found.parts, found.flagged, found.correlation) == (5, (0.2, 0.6), pytest.approx(1))
    (newest,) = found.differing
    assert (newest.id, newest.score, newest.shadow_score) == (made[3].id, 38, 41)
    assert (newest.decision, newest.shadow_decision) == ("good", "review")


def test_a_shadow_that_hangs_delays_no_answer_and_what_does_not_fit_is_counted(two):
    service, _, other = two
    other.gate.clear()
    service.inspect(png(1))
    waits(lambda: other.entered == 1)
    for level in range(2, 14):
        assert service.inspect(png(level)).score == level
    waits(
        lambda: b'invad_shadow_dropped_total{reason="full",station="default"} 4.0' in service.metrics.text()
    )
    assert (service.shadow.waiting, shadowed(service)) == (8, 0)
    other.gate.set()
    waits(lambda: shadowed(service) == 9)


def test_a_shadow_runs_only_where_no_part_is_under_way(two):
    service, active, other = two
    other.gate.clear()
    service.inspect(png(1))
    waits(lambda: other.entered == 1)
    service.inspect(png(2))  # which waits for the shadow
    active.gate.clear()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(service.inspect(png(5))))
    thread.start()
    waits(lambda: active.entered == 3)
    other.gate.set()
    time.sleep(0.2)
    assert other.entered == 1
    active.gate.set()
    thread.join(60)
    waits(lambda: other.entered == 3)
    assert answers


def test_parts_under_way_are_judged_by_the_version_and_limits_they_came_under(two):
    service, active, other = two
    active.gate.clear()
    part = Part(body=png(37), station="default")
    first = service.submit(part)
    waits(lambda: active.entered == 1)
    strict = replace(LIMITS, scores=tuple(i / 100 for i in range(40)))
    other.calibrations = {"": strict, "part": strict}
    versions.end_shadow(service, "default", "test")
    versions.activate(service, "default", "model", other.content_hash, "test", "now")
    second = service.submit(part)
    active.gate.set()
    before, after = first.result(60), second.result(60)
    assert (before.model_version, before.score, before.decision) == (active.content_hash, 37, "good")
    assert (after.model_version, after.score) == (other.content_hash, 40)
    assert before.calibration != after.calibration


def test_a_version_without_limits_of_a_category_is_not_activated_by_chance(two):
    service, _, other = two
    del other.calibrations["part"]
    with pytest.raises(Refused, match="it has no limits for category part"):
        versions.activate(service, "default", "model", other.content_hash, "test")
    with pytest.raises(Refused, match="has had no other version"):
        versions.roll_back(service, "default", "test")


# ---------------------------------------------------------------------- archives


def of_zip(*entries):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


def link_in_zip():
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    return of_zip((info, "/etc/passwd"))


def of_tar(kind=tarfile.REGTYPE, name="file", content=b"", **headers):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname, member.pax_headers = kind, len(content), "file", headers
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (of_zip(("../out", "x")), "leads outside"),
        (of_zip(("/out", "x")), "leads outside"),
        (of_zip(("a\\..\\out", "x")), "leads outside"),
        (of_zip(("c:out", "x")), "leads outside"),
        (of_zip(("a/b/c/d/e", "x")), "too deep"),
        (of_zip(("a", "x"), ("A", "x")), "is there twice"),
        (of_zip(("a", b"\0" * 3_000_000)), "more than the 1000000 bytes"),
        (of_zip(*((str(i), "") for i in range(300))), "more than 200 files"),
        (link_in_zip(), "is a link or device"),
        (of_tar(tarfile.SYMTYPE), "is a link or device"),
        (of_tar(tarfile.LNKTYPE), "is a link or device"),
        (of_tar(tarfile.CHRTYPE), "is a link or device"),
        (of_tar(name="../out", content=b"x"), "leads outside"),
        (of_tar(content=b"\0" * 3_000_000), "more than the 1000000 bytes"),
        (of_tar(comment="x" * 9_000_000), "too large"),
        (of_tar(content=bytes(range(256)) * 300)[:-40], "ends too early"),
        (b"PK\3\4 nothing", "is no .zip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "archive",
)
def test_an_archive_is_not_trusted(content, words, tmp_path):
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(NoArchive, match=re.escape(words)):
        unpack(tmp_path / "archive", tmp_path / "folder", 1_000_000)
    assert {path.name for path in Path(tmp_path).iterdir()} <= {"archive", "folder"}
