"""Rows and files: what is made, recognised, kept and let go."""

import json
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from invad.errors import ArtifactError, ConfigError, DataError
from invad.scoring.calibration import Calibration
from invad.scoring.regions import Region
from invad.serve.ids import Ids
from invad.serve.options import DAY_MS, Retention
from invad.serve.records import SCHEMA, Milliseconds, Picture, Result, milliseconds, utc
from invad.serve.store import backup, keys, outbox, results, retention, reviews, shadows, stations, users
from invad.serve.store.database import FILE, Database, migrations, now_ms
from invad.serve.store.files import Files
from invad.serve.store.reviews import Review
from invad.serve.store.schema import audit, expired_file, metadata, region, result
from waiting import waits

IDS = Ids()
FIRST = {
    *("id", "station", "time", "part_id", "lot", "category", "source", "request_id", "image_sha256", "width"),
    *("image_kept", "map_sha256", "map_kept", "height", "model", "model_version", "calibration", "score"),
    *("peak", "p_value", "decision", "review_limit", "bad_limit", "map_review_limit", "map_bad_limit"),
    *("ms_queue", "ms_decode", "ms_infer", "ms_store"),
}
"""Columns of a result after the first step."""

LIMITS = Calibration(scores=(1.0, 2.0, 3.0), peaks=(1.0, 2.0, 3.0))


@pytest.fixture
def database(tmp_path, database_url):
    opened = Database(tmp_path, database_url)
    with opened.write() as connection:
        stations.add_version(connection, "hash", "model", {"engine": "none"})
        stations.activate(connection, "default", "hash", {"": LIMITS})
    yield opened
    opened.close()


REGION = Region(
    **{"x": 1, "y": 2, "width": 3, "height": 4, "area": 5, "peak": 6.5, "mean": 0.1 + 0.2},
    **{"centroid_x": 1 / 3, "centroid_y": 2 / 3, "length_px": 2**0.5, "width_px": 3**0.5},
    **{"cell_px": 16.0, "share_of_limit": 6.5 / 1.5},
)


def row(decision="good", time=0, image="a", map="b", **changed):
    record = Result(
        schema=SCHEMA,
        id=IDS.new(),
        station="default",
        time=utc(time),
        part_id=None,
        lot=None,
        category=None,
        source="http",
        request_id=None,
        image_sha256=sha256(image.encode()).hexdigest(),
        width=4,
        height=3,
        model="model",
        model_version="hash",
        calibration=1,
        score=0.1 + 0.2,
        peak=1e-300,
        p_value=1 / 3,
        decision=decision,
        review_limit=2.5,
        bad_limit=3.5,
        regions=(REGION,),
        image_kept=True,
        map_kept=True,
        audit=False,
        late=False,
        verdict=None,
        picture=Picture(grey=0.5, clipped=0.25, sharpness=0.125),
        ms=Milliseconds(queue=1.5, decode=2.5, infer=3.5, store=4.5),
    )
    return results.Stored(
        result=replace(record, **changed), map_sha256=sha256(map.encode()).hexdigest(), map_limits=(1.5, 2.5)
    )


def nobody(result):
    return ()


def add(database, *rows, sinks=()):
    with database.write() as connection:
        results.insert(connection, rows, lambda result: sinks)
    return rows


def test_the_steps_make_the_tables_of_the_schema(database):
    with database.reader.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_result_comes_back_to_the_bit(database):
    (stored,) = add(database, row(part_id="Teil ß", request_id="r"))
    with database.read() as connection:
        assert results.by_id(connection, stored.result.id) == stored
        assert results.by_request(connection, "default", "r") == stored
        assert results.by_request(connection, "other", "r") is None
    again = Result.of_plain(json.loads(json.dumps({**stored.result.plain(), "later": 1})))
    assert again == stored.result


def test_of_a_transaction_all_is_stored_or_nothing(database):
    first = row()
    add(database, first)
    with pytest.raises(IntegrityError, match=r"(?i)unique"):
        add(database, row(), row(id=first.result.id))
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(result)) == 1
        assert connection.scalar(select(func.count()).select_from(region)) == 1


def test_pages_go_by_the_order_of_storing(database):
    rows = add(database, *(row("bad" if i % 3 == 0 else "good", time=1000 - i) for i in range(10)))
    ids = [one.result.id for one in rows]
    with database.read() as connection:

        def page(**query):
            return [one.result.id for one in results.page(connection, results.Query(**query))[0]]

        assert page() == ids[::-1]
        assert page(limit=3) + page(limit=100, before=ids[7]) == ids[::-1]
        assert page(decision="bad") == [ids[9], ids[6], ids[3], ids[0]]
        assert page(since=995, until=998) == [ids[5], ids[4], ids[3]]
        assert page(stations=("other",)) == []
        assert results.newest_id(connection) == ids[-1]


def plans(database, ask):
    """How SQLite finds the rows of each statement that `ask(connection)` runs."""
    found = []

    def explain(connection, cursor, statement, parameters, context, many):
        if statement.startswith("SELECT"):
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found.extend(row[3] for row in cursor.fetchall())

    for engine in (database.reader, database.writer):
        event.listen(engine, "before_cursor_execute", explain)
    with database.write() as connection:
        ask(connection)
    for engine in (database.reader, database.writer):
        event.remove(engine, "before_cursor_execute", explain)
    return found


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: results.page(c, results.Query()),
        lambda c: results.page(c, results.Query(station="default")),
        lambda c: results.page(c, results.Query(decision="bad", before="0" * 26)),
        lambda c: results.page(c, results.Query(station="default", since=10**12)),
        lambda c: results.page(c, results.Query(part_id="7")),
        lambda c: results.page(c, results.Query(lot="L")),
        lambda c: results.page(c, results.Query(verdict="bad")),
        lambda c: results.page(c, results.Query(until=10**12)),
        lambda c: results.page(c, results.Query(station="default", least=9, most=10)),
        lambda c: results.count_since(c, "default", 10**12),
        lambda c: results.by_request(c, "default", "r"),
        lambda c: results.newest_id(c),
        lambda c: reviews.claim_next(c, "a", 5, "default"),
        lambda c: reviews.waiting(c),
        lambda c: outbox.due(c, "webhook", 5, 9),
    ],
)
def test_a_long_history_is_not_read_through(tmp_path, ask):
    """The plans of SQLite: each search goes by an index, so ten million rows take as long as ten thousand."""
    database = Database(tmp_path)
    with database.write() as connection:
        stations.add_version(connection, "hash", "model", {"engine": "none"})
        stations.activate(connection, "default", "hash", {"": LIMITS})
        results.insert(connection, [row() for _ in range(200)], nobody)
    found = plans(database, ask)
    database.close()
    bounded = ("SCAN newest", "SCAN nearest")  # results of an inner search, which has a limit
    scans = [line for line in found if line.startswith("SCAN") and "INDEX" not in line]
    scans = [line for line in scans if line not in bounded]
    assert found
    assert scans == []


def test_dates_without_an_offset_are_utc():
    assert milliseconds("2026-11-28T06:00:00Z") == milliseconds("2026-11-28T07:00:00+01:00")
    assert milliseconds("2026-11-28") == milliseconds("2026-11-28T00:00:00Z")
    assert utc(milliseconds("2026-11-28T06:00:00.042Z")) == "2026-11-28T06:00:00.042Z"


def test_a_revision_decides_for_the_version_it_was_made_for(database):
    other = Calibration(scores=(5.0, 6.0), peaks=(5.0, 6.0))
    with database.write() as connection:
        second = stations.add_revision(connection, "default", "", "hash", other, "window")
        assert [one.revision for one in stations.deciding(connection)] == [1]
        stations.put_in_force(connection, second)
        assert stations.deciding(connection) == [second]
        stations.add_version(connection, "new", "model", {"engine": "none"})
        stations.activate(connection, "default", "new", {"": LIMITS})
        assert [one.revision for one in stations.deciding(connection)] == [3]
        stations.activate(connection, "default", "hash", {"": LIMITS})  # back again: what decided decides
        assert stations.deciding(connection) == [second]


def test_keys_are_kept_as_digests_and_know_their_limits(database):
    with database.write() as connection:
        secret, key = keys.make(connection, "camera", ("infer",), ("default",))
        gone, other = keys.make(connection, "old", ("admin",), expires=1)
        with pytest.raises(ConfigError, match="scopes fly"):
            keys.make(connection, "x", ("fly",))
    ring = keys.Keyring(database)
    assert ring.owner(secret).id == key.id
    assert (key.may("infer"), key.may("read"), other.may("read")) == (True, False, True)
    wrong = secret[:-1] + ("a" if secret[-1] != "a" else "b")
    assert [ring.owner(bad) for bad in (wrong, gone, "", "inv_x_y", "\udcff")] == [None] * 5
    with database.read() as connection:
        assert secret not in str(keys.keys(connection))
    with database.write() as connection:
        assert keys.revoke(connection, key.id)
        assert not keys.revoke(connection, key.id)
    ring.forget()
    assert ring.owner(secret) is None


def test_users_sessions_and_failures(database):
    with database.write() as connection:
        users.add(connection, "anna", "digest", "viewer")
        secret = users.begin(connection, user="anna")
        other = users.begin(connection, user="anna")
        found = users.session(connection, secret)
        assert (found.user.name, found.user.role, found.api_key) == ("anna", "viewer", None)
        assert found.user.last_login
        users.touch(connection, found)
        users.end(connection, other)
        assert users.session(connection, other) is None
        for _ in range(7):
            users.note_failure(connection, "anna", "10.0.0.1")
        assert 3 <= users.seconds_to_wait(connection, "anna", "10.0.0.2") <= 4
        assert users.seconds_to_wait(connection, "vic", "10.0.0.1") == 0
        users.change(connection, "anna", role="admin")
        assert users.session(connection, secret).user.role == "admin"
        users.change(connection, "anna", password="another digest")
        assert users.session(connection, secret) is None
        secret = users.begin(connection, user="anna")
        users.remove(connection, "anna")
        assert users.session(connection, secret) is None


def test_scores_and_verdicts_of_a_page(database, monkeypatch):
    rows = add(database, *(row(score=float(i)) for i in range(6)))
    ids = [one.result.id for one in rows]
    verdict = {"time": 1, "who": "a", "defect": None, "note": None, "mask": None}
    with database.write() as connection:
        for id, word in ((ids[1], "bad"), (ids[2], "good")):
            reviews.add(connection, Review(result=id, verdict=word, **verdict))

        def page(**query):
            found, further = results.page(connection, results.Query(**query))
            return [one.result.id for one in found], further

        assert page(verdict="bad") == ([ids[1]], None)
        assert page(least=1, most=3) == ([ids[3], ids[2], ids[1]], None)
        assert page(least=1, most=3, limit=2) == ([ids[3], ids[2]], ids[2])
        monkeypatch.setattr(results, "LOOKED_AT", 3)
        assert page(most=1) == ([], ids[3])  # nothing among the newest three; there is more behind them
        assert page(most=1, before=ids[3]) == ([ids[1], ids[0]], ids[0])
        assert page(most=1, before=ids[0]) == ([], None)


def test_an_outbox_row_goes_when_the_sink_has_it(database):
    first, second = add(database, row(time=1), row(time=2), sinks=["a", "b"])
    with database.write() as connection:
        assert [one.result for one in outbox.due(connection, "a", 10, 9)] == [first.result, second.result]
        outbox.delivered(connection, "a", [first.result.id])
        outbox.failed(connection, "a", second.result.id, 1000)
        assert outbox.due(connection, "a", 999, 9) == []
        assert [one.attempts for one in outbox.due(connection, "a", 1000, 9)] == [1]
        waiting = outbox.pending(connection)
    assert (waiting["a"].count, waiting["a"].oldest, waiting["b"].count) == (1, 2, 2)


def test_what_waits_for_a_sink_does_not_wait_for_a_clock_that_was_set_back(database):
    first, second = add(database, row(time=10**12), row(time=10**12), sinks=["a"])
    now = 10**12 - 24 * 3600 * 1000
    with database.write() as connection:
        outbox.failed(connection, "a", second.result.id, 10**12 + 5000)
        assert [one.result for one in outbox.due(connection, "a", now, 9)] == [first.result, second.result]
        assert outbox.count_due(connection, "a", now, 9) == 2
        assert outbox.count_due(connection, "a", 10**12, 9) == 1


def test_people_get_different_parts_and_the_latest_verdict_counts(database, monkeypatch):
    good, first, second, drawn = add(
        database, row(), row("review"), row("bad", category="part"), row(audit=True)
    )
    said = {"time": 5, "who": "Ada", "defect": None, "note": None, "mask": None}
    with database.write() as connection:
        ids = {who: [one.result.id for one in reviews.claim_next(connection, who, 1)] for who in "ab"}
        assert ids == {"a": [first.result.id], "b": [second.result.id]}
        assert [one.result.id for one in reviews.claim_next(connection, "a", 9)] == [
            first.result.id,
            drawn.result.id,
        ]
        assert reviews.claim_next(connection, "c", 9) == []
        assert reviews.waiting(connection) == (3, 0)
        reviews.add(connection, Review(result=first.result.id, verdict="good", **said))
        masked = Review(result=first.result.id, verdict="bad", **{**said, "mask": (4, 2, 6)})
        reviews.add(connection, masked)
        assert [one.verdict for one in reviews.of_result(connection, first.result.id)] == ["bad", "good"]
        assert reviews.of_result(connection, first.result.id)[0] == masked
        kept = results.by_id(connection, first.result.id).result
        assert (kept.verdict, kept.decision) == ("bad", "review")
        judged, _ = results.page(connection, results.Query(reviewed=True))
        assert [one.result.id for one in judged] == [first.result.id]
        window = reviews.window(connection, "default", "", "hash", 0, 1, 9)
        assert [one.id for one in window] == [drawn.result.id, first.result.id, good.result.id]
        assert [one.id for one in reviews.known_bad(connection, "default", "", "hash", 9)] == [
            first.result.id
        ]
    later = now_ms() + reviews.CLAIM_MS + 1
    monkeypatch.setattr(reviews, "now_ms", lambda: later)
    with database.write() as connection:
        assert len(reviews.claim_next(connection, "c", 9)) == 2  # nobody has looked for five minutes


# ---------------------------------------------------------------------- retention


def kept_names(database):
    with database.read() as connection:
        return set(connection.scalars(select(result.c.id).where(result.c.image_kept)))


def test_pictures_go_by_decision_and_only_when_no_row_keeps_them(database, tmp_path):
    files, now = Files(tmp_path / "files"), 100 * DAY_MS
    for name in ("a", "b", "shared"):
        files.put("image", name.encode())
        files.put("map", name.encode())
    unnamed = files.put("image", b"nobody's")
    old_good, old_bad, shared, new = add(
        database,
        row("good", 0, "a", "a"),
        row("bad", 0, "b", "b"),
        row("good", 0, "shared", "shared"),
        row("good", now, "shared", "shared"),
    )
    swept = retention.sweep(database, files, Retention(good=7, rows=365), now, lambda: False)
    assert (swept.images, swept.rows, swept.files) == (2, 0, 2)
    assert kept_names(database) == {old_bad.result.id, new.result.id}
    there = set(files.names())
    assert ("image", old_good.result.image_sha256) not in there
    assert ("map", old_good.map_sha256) not in there
    assert {("image", shared.result.image_sha256), ("image", unnamed)} <= there
    # when the other row has expired, too, the picture that both shared goes
    swept = retention.sweep(database, files, Retention(good=7, rows=365), now + 8 * DAY_MS, lambda: False)
    assert (swept.images, swept.files) == (1, 2)
    assert set(files.names()) == {("image", old_bad.result.image_sha256), ("map", old_bad.map_sha256)} | {
        ("image", unnamed)
    }


def listed(database):
    with database.read() as connection:
        return connection.execute(select(expired_file.c.kind, expired_file.c.removed)).all()


def test_a_picture_that_comes_again_while_it_expires_is_written_anew(database, tmp_path, monkeypatch):
    """Somebody who has seen the file, and names it in a row only after it was deleted, is told."""
    files = Files(tmp_path / "files")
    digest = files.put("image", b"a")
    add(database, row("good", 0, "a"))
    with database.write() as connection:
        assert retention.want(connection, [("image", digest)]) == set()  # which is no news
    retention.sweep(database, files, Retention(good=0), DAY_MS, lambda: False)
    assert files.get("image", digest) is None
    assert {kind for kind, removed in listed(database) if removed} == {"image", "map"}
    with database.write() as connection:
        assert retention.want(connection, [("image", digest), ("map", "0" * 64)]) == {("image", digest)}
        files.put("image", b"a", anew=True)
        results.insert(connection, [row("good", 2 * DAY_MS, "a")], nobody)
    assert retention.remove_expired(database, files) == 0
    assert files.get("image", digest) == b"a"
    later = now_ms() + 2 * retention.REMOVED_MS
    monkeypatch.setattr(retention, "now_ms", lambda: later)
    retention.remove_expired(database, files)
    assert listed(database) == []


def test_a_new_place_has_all_its_folders_and_one_that_is_gone_is_made_again(tmp_path):
    files = Files(tmp_path / "files")
    folders = {path.name for path in (tmp_path / "files" / "image").iterdir()}
    assert folders == {f"{number:02x}" for number in range(256)}
    digest = sha256(b"picture").hexdigest()
    files.path("image", digest).parent.rmdir()
    assert files.put("image", b"picture") == digest
    assert Files(tmp_path / "files").get("image", digest) == b"picture"


def test_a_picture_that_is_named_again_before_it_was_deleted_stays(database, tmp_path, monkeypatch):
    files = Files(tmp_path / "files")
    digest = files.put("image", b"a")
    add(database, row("good", 0, "a"))
    with monkeypatch.context() as first:  # only named
        first.setattr(retention, "remove_expired", lambda *all: 0)
        retention.sweep(database, files, Retention(good=0), DAY_MS, lambda: False)
    add(database, row("good", 2 * DAY_MS, "a"))
    retention.remove_expired(database, files)
    assert files.get("image", digest) == b"a"
    assert listed(database) == []


def test_rows_go_when_no_sink_waits_for_them(database, tmp_path):
    (waiting,) = add(database, row(), sinks=["a"])
    add(database, row())
    short = Retention(good=0, review=0, bad=0, rows=1)
    retention.sweep(database, Files(tmp_path / "files"), short, 2 * DAY_MS, lambda: False)
    with database.read() as connection:
        assert list(connection.scalars(select(result.c.id))) == [waiting.result.id]


def test_the_file_shrinks_when_rows_go(tmp_path):
    database = Database(tmp_path)
    with database.write() as connection:
        stations.add_version(connection, "hash", "model", {"engine": "none"})
        stations.activate(connection, "default", "hash", {"": LIMITS})
    add(database, *(row(part_id="x" * 200) for _ in range(1500)))

    def size():
        with database.read() as connection:
            return connection.exec_driver_sql("PRAGMA page_count").scalar()

    before = size()
    short = Retention(good=0, review=0, bad=0, rows=1)
    swept = retention.sweep(database, Files(tmp_path / "files"), short, 2 * DAY_MS, lambda: False)
    assert swept.rows == 1500
    assert size() < before / 3
    database.close()


def test_rows_are_not_kept_shorter_than_pictures():
    with pytest.raises(ConfigError, match="keep rows at least as long"):
        Retention(good=30, review=30, bad=30, rows=7)


# ---------------------------------------------------------------------- files


def test_a_file_is_written_once_and_whole(tmp_path):
    files = Files(tmp_path)
    digest = files.put("image", b"content")
    before = files.path("image", digest).stat().st_mtime_ns
    assert files.put("image", b"content") == digest == sha256(b"content").hexdigest()
    assert files.path("image", digest).stat().st_mtime_ns == before
    assert list(files.unfinished.iterdir()) == []
    assert files.get("image", "0" * 64) is None
    assert list(files.names()) == [("image", digest)]


def test_what_was_begun_and_not_finished_is_forgotten(tmp_path):
    files = Files(tmp_path)
    (files.unfinished / "1-1").write_bytes(b"half")
    shared = Files(tmp_path, shared=True)
    shared.begin()
    assert len(list(files.unfinished.iterdir())) == 1  # another service may be writing it
    files.begin()
    assert list(files.unfinished.iterdir()) == []


# ---------------------------------------------------------------------- what is not a database of ours


def spoiled(folder, spoil):
    Database(folder).close()
    spoil(folder / FILE)
    with pytest.raises(ArtifactError) as caught:
        Database(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_damaged_database_is_recognised(tmp_path):
    def overwrite(path):
        path.write_bytes(b"\xff" * path.stat().st_size)

    def cut(path):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    for number, spoil in enumerate((overwrite, cut)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert "restore a backup with 'invad serve restore'" in spoiled(folder, spoil)


def test_a_database_of_another_program_is_left_alone(tmp_path):
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(ArtifactError, match=r"tables of another program \(theirs\)"):
        Database(tmp_path)
    assert (tmp_path / FILE).read_bytes()[:16] == before[:16]


def test_a_database_of_a_newer_invad_is_recognised(tmp_path):
    def age(path):
        connection = sqlite3.connect(path)
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
        connection.close()

    assert "of a newer invad (step 9999" in spoiled(tmp_path, age)


def test_an_older_database_is_kept_and_brought_up_to_date(tmp_path):
    """With the rows that a service of the first step wrote."""
    engine = create_engine(f"sqlite:///{tmp_path / FILE}")
    with engine.begin() as connection:
        steps = migrations()
        steps.attributes["connection"] = connection
        command.upgrade(steps, "0001")
        connection.execute(text("INSERT INTO model_version VALUES ('hash', 'model', 1, '{}')"))
        connection.execute(text("INSERT INTO station VALUES ('default', 1, 'hash')"))
        columns = [column.name for column in result.c if column.name in FIRST]
        values = row().result.plain() | {"map_sha256": None, "map_review_limit": 1, "map_bad_limit": 2}
        values |= {f"ms_{name}": value for name, value in values["ms"].items()} | {"time": 5}
        names = ", ".join(f":{name}" for name in columns)
        given = {name: values[name] for name in columns}
        connection.execute(text(f"INSERT INTO result ({', '.join(columns)}) VALUES ({names})"), given)
    engine.dispose()
    database = Database(tmp_path)
    with database.read() as connection:
        ((found,), _) = results.page(connection, results.Query())
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert [row.action for row in connection.execute(select(audit))] == ["migrate"]
    assert (found.result.id, found.result.audit, found.result.verdict) == (values["id"], False, None)
    database.close()
    (copy,) = tmp_path.glob(f"{FILE}.before-*")
    old = sqlite3.connect(copy)
    assert old.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    old.close()


def test_a_database_that_is_taken_away_takes_no_rows(tmp_path):
    database = Database(tmp_path)
    shutil.move(tmp_path / FILE, tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is gone or another file"), database.write():
        pass
    assert "is gone" in database.problem()
    shutil.move(tmp_path / "elsewhere", tmp_path / FILE)
    assert database.problem() is None
    database.close()


def test_a_locked_database_is_waited_for_and_then_told(tmp_path, monkeypatch):
    monkeypatch.setattr("invad.serve.store.database.BUSY_MS", 100)
    database = Database(tmp_path)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"), database.write():
        pass
    assert "locked" in database.problem()
    other.execute("ROLLBACK")
    assert database.problem() is None
    other.close()
    database.close()


def test_sqlite_survives_a_power_cut_by_its_settings(tmp_path):
    database = Database(tmp_path)
    with database.write() as connection:
        found = [
            connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]  # 2 is FULL
    database.close()


def test_a_server_has_several_services_but_none_while_it_is_checked(tmp_path, postgres, monkeypatch):
    monkeypatch.setattr("invad.serve.store.leases.JOIN_SECONDS", 0.3)
    address = f"{postgres}/postgres"
    first, second = Database(tmp_path, address), Database(tmp_path, address)
    with pytest.raises(DataError, match="another service uses this database"):
        Database(tmp_path, address, alone=True)
    first.close()
    second.close()
    alone = Database(tmp_path, address, alone=True)
    with pytest.raises(DataError, match="another service uses this database"):
        Database(tmp_path, address)
    alone.close()
    Database(tmp_path, address).close()


def test_of_several_services_one_writes_at_a_time(tmp_path, postgres):
    """What both read before they write is then still so: here each adds one to a number."""
    address = f"{postgres}/postgres"
    both = [Database(tmp_path, address) for _ in range(2)]
    with both[0].write() as connection:
        connection.execute(text("CREATE TABLE number (is_now INTEGER)"))
        connection.execute(text("INSERT INTO number VALUES (0)"))

    def add_some(database):
        for _ in range(20):
            with database.write() as connection:
                now = connection.execute(text("SELECT is_now FROM number")).scalar()
                connection.execute(text(f"UPDATE number SET is_now = {now + 1}"))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add_some, both))
    with both[0].write() as connection:
        assert connection.execute(text("SELECT is_now FROM number")).scalar() == 40
        connection.execute(text("DROP TABLE number"))
    for one in both:
        one.close()


def test_services_that_start_at_once_make_the_tables_once(tmp_path, new_database):
    with ThreadPoolExecutor(3) as pool:
        opened = list(pool.map(lambda _: Database(tmp_path, new_database), range(3)))
    assert sorted(one.is_new for one in opened) == [False, False, True]
    for one in opened:
        one.close()


def test_a_name_is_held_by_one_service_and_goes_on_when_its_session_ends(tmp_path, new_database):
    opened = [Database(tmp_path, new_database) for _ in range(2)]
    first, second = (one.leases for one in opened)
    first.want("a")
    second.want("a")
    second.want("b")
    assert (first.has("a"), second.has("a"), first.has("b"), second.has("b")) == (True, False, False, True)
    first.give_up("a")
    second.renew()
    assert second.has("a")
    with first.engine.connect() as connection:  # what the server does when it finds a machine cut off
        ended = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
        connection.execute(text(ended))
    first.want("a")
    waits(lambda: first.renew() or first.has("a"))  # the server ends a session a moment after it says so
    with pytest.raises(DataError, match="does not answer"):
        second.renew()
    assert second.states() == {"a": False, "b": False}
    second.renew()  # it comes back by itself
    assert second.states() == {"a": False, "b": True}
    for one in opened:
        one.close()


def test_a_file_has_one_service_which_holds_everything(tmp_path):
    database = Database(tmp_path)
    database.leases.want("a")
    database.leases.renew()
    assert database.leases.states() == {"a": True}
    database.close()


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("postgresql+psycopg://x:secret@127.0.0.1:1/none", DataError, "is the server running?"),
        ("mysql://host/name", ConfigError, "postgresql+psycopg://USER@HOST/NAME"),
        ("nonsense", ConfigError, "is no address"),
    ],
)
def test_addresses_that_lead_nowhere(url, error, words, tmp_path):
    pytest.importorskip("psycopg", reason="needs invad[postgres]")
    with pytest.raises(error) as caught:
        Database(tmp_path, url)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- backup


def test_a_backup_is_taken_while_the_database_is_open_and_comes_back(tmp_path):
    files = Files(tmp_path / "line" / "files")
    database = Database(tmp_path / "line")
    with database.write() as connection:
        stations.add_version(connection, "hash", "model", {"engine": "none"})
        stations.activate(connection, "default", "hash", {"": LIMITS})
    for content in (b"a", b"b"):
        files.put("image", content)
        files.put("map", content)
    add(database, row(image="a", map="b"), row(image="b", map="gone"))
    files.put("image", b"not named")
    copied = backup.backup(tmp_path / "line", tmp_path / "copy")
    assert (copied.results, copied.files, copied.missing) == (2, 3, 1)
    database.close()
    restored = backup.restore(tmp_path / "copy", tmp_path / "again")
    assert (restored.results, restored.files) == (2, 3)
    found = backup.check(tmp_path / "again")
    assert (found.results, found.files, found.damaged, len(found.lost), found.unnamed) == (2, 3, (), 1, ())
    assert len(backup.check(tmp_path / "line").unnamed) == 2  # b"b" as a map, and what was not named
    with pytest.raises(DataError, match="is not empty"):
        backup.restore(tmp_path / "copy", tmp_path / "again")
    with pytest.raises(DataError, match=f"holds no {FILE}"):
        backup.backup(tmp_path, tmp_path / "x")


def test_a_check_finds_an_altered_file_and_a_damaged_backup_is_refused(tmp_path):
    database, files = Database(tmp_path), Files(tmp_path / "files")
    database.close()
    digest = files.put("image", b"a")
    files.path("image", digest).write_bytes(b"b")
    assert backup.check(tmp_path).damaged == (f"image {digest} is altered",)
    content = bytearray((tmp_path / FILE).read_bytes())
    content[5000:9000] = b"\xff" * 4000
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match="take another backup"):
        backup.restore(tmp_path, tmp_path / "new")


def test_versions_shadow_follow_each_other_and_retire(database, tmp_path):
    with database.write() as connection:
        assert stations.give(connection, "hash")  # no start was given one before
        assert not stations.give(connection, "hash")
        stations.add_version(connection, "new", "model", {"engine": "none"})
        stations.put_shadow(connection, "default", "new", {"": LIMITS})
        (station,) = stations.stations(connection)
        assert (station.active, station.shadow) == ("hash", "new")
        one = row(decision="good")
        one = replace(one, result=replace(one.result, model_version="hash"))
        results.insert(connection, [one], nobody)
        said = shadows.Shadowed(
            result=one.result.id,
            model_version="new",
            station="default",
            calibration=2,
            score=9.0,
            p_value=0.1,
            decision="bad",
            ms_infer=1.0,
        )
        shadows.add(connection, [said, replace(said, result="0" * 26)])
        shadows.add(connection, [said])  # which was said
        assert shadows.count(connection, "default", "new") == 1
        (pair,) = shadows.pairs(connection, "default", "hash", "new", 10)
        assert (pair.decision, pair.shadow_decision, pair.shadow_score) == ("good", "bad", 9.0)
        assert {(one.model_version, one.revision) for one in stations.in_force_of(connection, ["new"])} == {
            ("new", 2)
        }
        stations.activate(connection, "default", "new", {"": LIMITS}, "somebody", "a trial")
        assert stations.activated(connection, "default") == ["new", "hash"]
        (station,) = stations.stations(connection)
        assert (station.active, station.shadow) == ("new", None)
        stations.retire(connection, "hash")
        assert stations.version(connection, "hash").retired
        stations.add_version(connection, "hash", "model", {})  # it has come back
        assert stations.version(connection, "hash").retired is None
    retention.sweep(database, Files(tmp_path / "files"), Retention(), 10**15, lambda: False)
    with database.read() as connection:
        assert shadows.count(connection, "default", "new") == 0  # it went with its result


def test_regions_from_before_they_were_measured_stay_readable(database):
    (stored,) = add(database, row())
    names = ("mean", "centroid_x", "centroid_y", "length_px", "width_px", "cell_px")
    with database.write() as connection:
        connection.execute(region.update().values(dict.fromkeys(names)))
    with database.read() as connection:
        (place,) = results.by_id(connection, stored.result.id).result.regions
    assert {getattr(place, name) for name in names} == {None}
    assert (place.peak, place.share_of_limit) == (6.5, 6.5 / 1.5)
