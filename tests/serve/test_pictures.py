"""Pictures elsewhere: in a shared folder, and in an object store that may be away."""

import time

import pytest

from greys import Greys, png
from invad.errors import ArtifactError, ConfigError, DataError
from invad.serve import Options, Refused, Service
from invad.serve.models import Models, Opening
from invad.serve.options import Retention
from invad.serve.store import backup, retention
from invad.serve.store.database import now_ms
from invad.serve.store.files import Files
from invad.serve.store.objects import Objects, open_pictures
from waiting import waits


class S3:
    """An S3 server on this machine, which may go away and come back under its address."""

    def __init__(self):
        self.port, self._server = 0, None
        self.start()

    def start(self):
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        _, self.port = self._server.get_host_and_port()

    def stop(self):
        self._server.stop()


@pytest.fixture
def s3(monkeypatch):
    pytest.importorskip("moto.server", reason="needs moto[server]")
    fsspec = pytest.importorskip("fsspec", reason="needs invad[object-store]")
    pytest.importorskip("s3fs", reason="needs invad[object-store]")
    server = S3()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("invad.serve.store.objects.AWAY_SECONDS", 0.3)
    monkeypatch.setattr("invad.serve.store.objects.LOOKED_SECONDS", 0.1)
    bucket = f"pictures-{time.time_ns()}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
    server.url = f"s3://{bucket}/line 1"
    yield server
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    """The address of a place for pictures."""
    if request.param == "folder":
        return f"{(tmp_path / 'share').as_uri()}"
    return request.getfixturevalue("s3").url


def test_what_is_put_there_comes_back_until_it_is_removed(place):
    pictures = open_pictures(None, place)
    digest = pictures.put("image", b"content")
    assert pictures.put("image", b"content", anew=True) == digest
    assert pictures.get("image", digest) == b"content"
    assert list(pictures.names()) == [("image", digest)]
    assert pictures.get("map", digest) is None
    pictures.remove("image", digest)
    pictures.remove("image", digest)
    assert pictures.get("image", digest) is None
    assert pictures.identity() == open_pictures(None, place).identity()
    assert list(pictures.names()) == []
    assert pictures.problem() is None


def test_a_service_keeps_its_pictures_there_and_deletes_what_expires(place, tmp_path):
    short = Retention(good=0, review=365, bad=365)
    with Service(
        Greys(), tmp_path / "line", pictures=place, options=Options(reserve=0, retention=short)
    ) as service:
        good, bad = service.inspect(png(1)), service.inspect(png(250))
        assert (good.image_kept, bad.map_kept) == (True, True)
        assert service.picture(service.result(bad.id), "image") == png(250)
        time.sleep(0.002)
        swept = retention.sweep(service.database, service.files, short, now_ms(), lambda: False)
        assert (swept.images, swept.files) == (1, 2)
        assert len(list(service.files.names())) == 2
        assert service.readiness().checks == {
            "model": "ok",
            "database": "ok",
            "pictures": "ok",
            "line": "ok",
        }
    assert not (tmp_path / "line" / "files").exists()
    copied = backup.backup(tmp_path / "line", tmp_path / "copy", place)
    assert (copied.results, copied.files, copied.missing) == (2, 2, 0)
    found = backup.check(tmp_path / "line", None, place)
    assert (found.results, found.files, found.damaged, found.lost, found.unnamed) == (2, 2, (), (), ())
    there = f"{(tmp_path / 'again').as_uri()}"
    restored = backup.restore(tmp_path / "copy", tmp_path / "new", there)
    assert (restored.files, len(list(open_pictures(None, there).names()))) == (2, 2)


def test_a_store_that_is_away_costs_pictures_and_no_results_and_comes_back(s3, tmp_path):
    with Service(Greys(), tmp_path / "line", pictures=s3.url, options=Options(reserve=0)) as service:
        kept = service.inspect(png(1))
        s3.stop()
        without = service.inspect(png(2))
        assert (without.image_kept, without.map_kept) == (False, False)
        waits(lambda: not service.readiness().ready)
        (said,) = (text for text in service.readiness().checks.values() if text != "ok")
        assert said.startswith(f"{s3.url}: ")
        assert "\n" not in said
        with pytest.raises(DataError, match="s3://"):
            service.picture(service.result(kept.id), "image")
        with pytest.raises(DataError, match="s3://"):  # and nothing is called removed
            retention.remove_expired(service.database, service.files)
        s3.start()  # the server keeps buckets in memory of this process
        waits(lambda: service.readiness().ready)
        assert service.inspect(png(3)).image_kept
        assert service.picture(service.result(kept.id), "image") == png(1)


def test_while_a_store_is_away_parts_do_not_wait_for_it(s3, monkeypatch):
    monkeypatch.setattr("invad.serve.store.objects.AWAY_SECONDS", 60)
    pictures = Objects(s3.url)
    s3.stop()
    with pytest.raises(DataError):
        pictures.put("image", b"a")
    started = time.monotonic()
    for _ in range(50):
        with pytest.raises(DataError):
            pictures.put("image", b"a")
    assert time.monotonic() - started < 10  # each try of the store would take a part of a second


def test_a_share_that_is_gone_costs_pictures_and_no_results(tmp_path):
    share = tmp_path / "share"
    options = Options(reserve=0)
    with Service(Greys(), tmp_path / "line", pictures=share.as_uri(), options=options) as service:
        share.rename(tmp_path / "away")
        assert not service.inspect(png(1)).image_kept
        assert "is gone" in service._look().checks["pictures"]
        (tmp_path / "away").rename(share)
        assert service.inspect(png(2)).image_kept
        assert service._look().ready


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://key:secret@bucket/x", "without a password"),
        ("s3://bucket/x?key=secret", "without a password"),
        ("a folder", "give an address such as"),
        ("file://host/share", "give file:/// and the whole path"),
        ("nonsense://bucket", "nonsense"),
    ],
)
def test_addresses_that_cannot_be_are_named(url, words):
    pytest.importorskip("fsspec", reason="needs invad[object-store]")
    with pytest.raises(ConfigError, match=words) as caught:
        open_pictures(None, url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- between services


def test_services_that_keep_pictures_elsewhere_are_refused(new_database, tmp_path):
    def begin(name, place):
        return Service(Greys(), tmp_path / name, database=new_database, pictures=place)

    share = (tmp_path / "share").as_uri()
    with begin("a", share) as first:
        with pytest.raises(DataError, match="keep pictures elsewhere; start all with the same --pictures"):
            begin("b", None)
        with begin("b", share) as second:
            found = first.inspect(png(1))
            assert second.picture(second.result(found.id), "image") == png(1)
    begin("b", None).close()  # alone it may


def test_a_picture_that_another_service_deletes_meanwhile_is_written_again(new_database, tmp_path):
    """The sweep of one comes between the file and the row of the other."""
    share, options = (tmp_path / "share").as_uri(), Options(reserve=0)
    detector = Greys()
    with (
        Service(Greys(), tmp_path / "a", database=new_database, pictures=share, options=options) as first,
        Service(detector, tmp_path / "b", database=new_database, pictures=share, options=options) as second,
    ):
        old = first.inspect(png(5))
        detector.gate.clear()
        answer = second.line.submit(first_part(png(5)))
        waits(lambda: detector.entered)  # its image was found to be there
        later = now_ms() + 1000
        retention.sweep(first.database, first.files, Retention(good=0), later, lambda: False)
        assert first.files.get("image", old.image_sha256) is None
        detector.gate.set()
        found = answer.result(60)
        assert found.image_sha256 == old.image_sha256
        assert second.picture(second.result(found.id), "image") == png(5)
        assert second.picture(second.result(found.id), "map")
        assert retention.remove_expired(first.database, first.files) == 0


def first_part(body):
    from invad.serve.records import Part

    return Part(body=body, station="default")


def test_a_version_that_one_service_has_the_others_fetch(own_bundle, tmp_path):
    share = Files(tmp_path / "share", shared=True)
    first, second, third = (
        Models(tmp_path / name, Options(), Opening(threads=1), shared)
        for name, shared in (("a", share), ("b", share), ("c", None))
    )
    hash = first.give(own_bundle).hash
    with pytest.raises(ArtifactError, match="is gone"):
        second.open(hash, "model")
    first.share(hash)
    assert second.open(hash, "model").hash == hash
    assert [one.name for one in (tmp_path / "b").iterdir()] == [hash]
    with pytest.raises(ArtifactError, match="is gone"):
        third.open(hash, "model")
    share.save(f"model/{'1' * 64}.zip", share.folder / "model" / f"{hash}.zip")
    with pytest.raises(ArtifactError, match="holds another version as 111111111111"):
        second.open("1" * 64, "model")
    first.remove(hash)
    assert not share.has(f"model/{hash}.zip")


def test_a_service_follows_to_a_version_that_it_does_not_have(bundle, new_database, tmp_path, monkeypatch):
    monkeypatch.setattr("invad.serve.following.LOOK_SECONDS", 0.05)
    share = (tmp_path / "share").as_uri()
    common = {"database": new_database, "pictures": share, "options": Options(reserve=0), "threads": 1}
    with (
        Service(Greys(), tmp_path / "a", **common) as first,
        Service(bundle, tmp_path / "b", **common) as second,  # which judges at all from now on
    ):
        wanted = second.active().hash
        waits(lambda: first.active().hash == wanted)
        try:
            assert first.inspect(png(9, (64, 64)), category="part").model_version == wanted
        except Refused as error:
            pytest.fail(str(error))
