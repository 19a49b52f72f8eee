"""People of the page: who gets in, how long, and what each may do. Over the application, behind its guard."""

import json

import httpx
import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient
from typer.testing import CliRunner

from invad.cli.app import app as commands
from invad.serve import Service
from invad.serve.app import application
from invad.serve.store import passwords, users
from invad.serve.store.database import Database
from invad.serve.store.schema import audit, page_session

PASSWORD = "correct horse battery"
SITE = "https://line.example"
PAGE = {"Accept": "text/html,*/*"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The parameters of scrypt are written in each digest; these take a millisecond."""
    monkeypatch.setattr(passwords, "LOG_N", 8)


@pytest.fixture(scope="module")
def service(bundle, tmp_path_factory):
    with Service(bundle, tmp_path_factory.mktemp("people") / "line", threads=1) as opened:
        yield opened


@pytest.fixture
def people(service):
    """Anna, Vic and Root, and nobody who was there before."""
    with service.database.write() as connection:
        for one in users.users(connection):
            users.remove(connection, one.name)
        for table in ("login_failure", "page_session"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        for name, role in (("anna", "reviewer"), ("vic", "viewer"), ("root", "admin")):
            users.add(connection, name, passwords.digest(PASSWORD), role)


def client(service, prefix="", site=SITE):
    return TestClient(
        application(service, prefix=prefix), base_url=site, headers=PAGE, follow_redirects=False
    )


def log_in(http, name="anna", password=PASSWORD, prefix="", **more):
    return http.post(f"{prefix}/login", data={"name": name, "password": password, **more})


def token(http, path="/"):
    page = http.get(path).text
    return {"X-CSRF-Token": page.partition('name="csrf-token" content="')[2].partition('"')[0]}


@pytest.fixture
def anna(service, people):
    with client(service) as http:
        assert log_in(http).status_code == 303
        yield http


def test_nobody_sees_a_page_without_logging_in(service, people):
    with client(service) as http:
        asked = http.get("/history?decision=bad")
        assert (asked.status_code, asked.headers["location"]) == (
            303,
            "/login?next=%2Fhistory%3Fdecision%3Dbad",
        )
        form = http.get(asked.headers["location"])
        assert 'value="/history?decision=bad"' in form.text
        entered = log_in(http, next="/history?decision=bad")
        assert (entered.status_code, entered.headers["location"]) == (303, "/history?decision=bad")
        assert http.get("/history").status_code == 200
        piece = httpx.Headers({"HX-Request": "true"})
        http.cookies.clear()
        assert http.get("/live/stations", headers=piece).headers["hx-redirect"] == "/login"


def test_a_cookie_is_kept_from_scripts_and_from_the_database(service, people):
    with client(service) as http:
        cookie = log_in(http).headers["set-cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=lax", "Secure", "Path=/"))
        secret = http.cookies["invad_session"]
    with service.database.read() as connection:
        kept = connection.execute(select(page_session)).one()
    assert kept.sha256 == users.digest(secret)
    assert secret not in str(kept)
    with client(service, site="http://127.0.0.1") as http:
        assert "Secure" not in log_in(http).headers["set-cookie"]


def test_behind_a_prefix_everything_stays_below_it(service, people):
    with client(service, prefix="/inspection") as http:
        asked = http.get("/inspection/history")
        assert asked.headers["location"] == "/inspection/login?next=%2Fhistory"
        entered = log_in(http, prefix="/inspection", next="/history")
        assert entered.headers["location"] == "/inspection/history"
        assert "Path=/inspection/" in entered.headers["set-cookie"]
        page = http.get("/inspection/history").text
        links = [piece.partition('"')[0] for piece in page.split('href="')[1:] if piece[0] != "#"]
        assert [link for link in links if not link.startswith("/inspection/")] == []


def test_what_changes_something_needs_the_token_of_the_page(anna):
    answers = [
        anna.post("/api/v1/results/none/review", json={"verdict": "good"}, headers=headers).status_code
        for headers in ({}, {"X-CSRF-Token": "0" * 64}, {"X-CSRF-Token": "ÿ".encode("latin-1")})
    ]
    assert answers == [403, 403, 403]
    known = anna.post("/api/v1/results/none/review", json={"verdict": "good"}, headers=token(anna))
    assert known.status_code == 404  # there is no such part: the token was taken
    assert anna.get("/api/v1/results").status_code == 200


def test_roles_say_what_each_may_do(service, people):
    calls = [("GET", "/api/v1/results"), ("GET", "/api/v1/queue"), ("GET", "/api/v1/users")]
    found = {}
    for name in ("vic", "anna", "root"):
        with client(service) as http:
            log_in(http, name)
            found[name] = [http.request(verb, path).status_code for verb, path in calls]
            found[name].append("/review" in http.get("/").text)
            found[name].append("Choose pictures" in http.get("/").text)
            found[name].append("What was done" in http.get("/settings").text)
    assert found["vic"] == [200, 403, 403, False, False, False]
    assert found["anna"] == [200, 200, 403, True, True, False]
    assert found["root"] == [200, 200, 200, True, True, True]


def test_a_session_ends_by_logging_out_by_time_and_with_its_user(service, people):
    def alive(http):
        return http.get("/api/v1/results").status_code == 200

    with client(service) as http, client(service) as boss:
        log_in(boss, "root")
        sent = token(boss)
        log_in(http)
        stolen = http.cookies["invad_session"]
        assert http.post("/logout", data={"token": "none"}).status_code == 403
        assert http.post("/logout", data={"token": token(http)["X-CSRF-Token"]}).status_code == 303
        http.cookies.set("invad_session", stolen)
        assert not alive(http)
        for past in ({"used": 0}, {"created": 0}):
            http.cookies.clear()
            log_in(http)
            assert alive(http)
            with service.database.write() as connection:
                connection.execute(update(page_session).where(page_session.c.user == "anna").values(**past))
            assert not alive(http)
        for verb, body in (("PATCH", {"password": "another one, longer"}), ("DELETE", None)):
            http.cookies.clear()
            log_in(http, password=PASSWORD if verb == "PATCH" else "another one, longer")
            assert alive(http)
            assert boss.request(verb, "/api/v1/users/anna", json=body, headers=sent).status_code < 300
            assert not alive(http)


def test_a_role_counts_from_the_next_request_on(service, anna):
    assert anna.get("/api/v1/queue").status_code == 200
    with service.database.write() as connection:
        users.change(connection, "anna", role="viewer")
    assert anna.get("/api/v1/queue").status_code == 403


def test_a_key_opens_the_page_until_it_is_revoked(service, people):
    with client(service) as boss, client(service) as http:
        log_in(boss, "root")
        wanted = {"name": "wall", "scopes": ["read"], "stations": ["default"]}
        made = boss.post("/api/v1/keys", json=wanted, headers=token(boss)).json()
        assert http.post("/login", data={"key": "inv_a_b"}).status_code == 401
        assert http.post("/login", data={"key": made["secret"]}).status_code == 303
        assert http.get("/").status_code == 200
        assert http.get("/?station=other").status_code == 403
        assert boss.delete(f"/api/v1/keys/{made['id']}", headers=token(boss)).status_code == 204
        assert http.get("/").status_code == 303


def test_wrong_passwords_cost_waiting_and_a_restart_forgets_none(service, people, monkeypatch):
    now = users.now_ms()
    monkeypatch.setattr(users, "now_ms", lambda: now)  # a busy machine must not let the waits pass
    with client(service) as http:
        for name in ("anna", "nobody"):
            answers = [log_in(http, name, "wrong").status_code for _ in range(6)]
            assert answers == [401] * 5 + [429]
        waiting = log_in(http)
        assert waiting.status_code == 429
        assert "try again in" in waiting.text
        assert 0 < int(waiting.headers["retry-after"]) <= 2
    again = Database(service.folder, beside=True)  # as another process sees it
    with again.read() as connection:
        assert users.seconds_to_wait(connection, "anna", "elsewhere") > 0
        assert users.seconds_to_wait(connection, "vic", "elsewhere") == 0
    again.close()
    with service.database.write() as connection:
        for _ in range(30):
            users.note_failure(connection, "vic", "10.0.0.9")
        assert users.seconds_to_wait(connection, "vic", "elsewhere") == 15 * 60
        assert users.seconds_to_wait(connection, "", "10.0.0.9") > 60
        users.note_success(connection, "vic")
        assert users.seconds_to_wait(connection, "vic", "elsewhere") == 0
        notes = [(row.who, row.action) for row in connection.execute(select(audit))]
    assert ("user anna", "log in failed") in notes


@pytest.mark.parametrize(
    "after", ["//evil.example", "https://evil.example", "/\\evil.example", "x", "/a\r\nb"]
)
def test_nobody_is_led_to_another_site(after, service, people):
    with client(service) as http:
        assert log_in(http, next=after).headers["location"] == "/"


def test_the_page_of_another_site_logs_nobody_in(service, people):
    with client(service) as http:
        sent = {"name": "anna", "password": PASSWORD}
        answer = http.post("/login", data=sent, headers={"Sec-Fetch-Site": "cross-site"})
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"name": "anna"}, 400, "give a name and a password"),
        ({"name": "anna", "password": "no"}, 401, "the name or the password is wrong"),
        ({"name": "\x00", "password": "no"}, 401, "the name or the password is wrong"),
        ({"name": "a" * 999, "password": "b" * 5000}, 401, "the name or the password is wrong"),
        ({"key": "inv_x_y"}, 401, "this key is not known"),
    ],
)
def test_a_form_says_in_one_line_what_is_wrong(given, status, words, service, people):
    with client(service) as http:
        answer = http.post("/login", data=given)
        alert = answer.text.partition('role="alert">')[2].partition("<")[0]
        assert (answer.status_code, words in alert, "\n" in alert) == (status, True, False)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("since=yesterday", "from = &#39;yesterday&#39;: give an ISO date"),
        ("least=much", "score from = much: give a number"),
        ("decision=maybe", "decision maybe: give one of good, review, bad"),
        ("verdict=%3Cb%3E", "verdict &lt;b&gt;: give one of"),
        ("station=none", "no station"),
    ],
)
def test_a_history_that_cannot_be_asked_for(query, words, anna):
    page = anna.get(f"/history?{query}")
    assert page.status_code in (400, 404)
    assert words in page.text.partition('role="alert">')[2].partition("</p>")[0]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"name": "anna", "password": PASSWORD}, "user anna is there already"),
        ({"name": "../x", "password": PASSWORD}, "give up to 64 letters"),
        ({"name": "bob", "password": "short"}, "the password has 5 characters; give 10 to 1024"),
        ({"name": "bob", "password": PASSWORD, "role": "king"}, "give one of viewer, reviewer, admin"),
    ],
)
def test_users_that_cannot_be(wanted, words, service, people):
    with client(service) as boss:
        log_in(boss, "root")
        answer = boss.post("/api/v1/users", json=wanted, headers=token(boss))
        assert (answer.status_code, words in answer.json()["error"]) == (400, True)


def test_a_user_changes_the_own_password(service, anna):
    call = ("/api/v1/password", token(anna))
    wrong = anna.put(call[0], json={"current": "no", "new": "a new one, longer"}, headers=call[1])
    assert (wrong.status_code, "is another" in wrong.json()["error"]) == (400, True)
    right = anna.put(call[0], json={"current": PASSWORD, "new": "a new one, longer"}, headers=call[1])
    assert right.status_code == 204
    assert anna.get("/").status_code == 303
    assert log_in(anna, password="a new one, longer").status_code == 303


def test_users_by_the_command_line(service, people):
    def run(*words, password=None):
        arguments = ["serve", "user", *words, "--data", str(service.folder)]
        done = CliRunner().invoke(commands, arguments, input=password)
        return done.exit_code, done.output

    assert run("add", "bob", "--role", "viewer", password=f"{PASSWORD}\n") == (0, "bob is viewer\n")
    assert run("add", "bob", password=f"{PASSWORD}\n")[0] == 2
    assert run("password", "bob", password="another one, longer\n")[0] == 0
    status, told = run("list", "--json", "-")
    plain = json.loads(told[told.index("{") :])
    assert (status, [one["name"] for one in plain["users"]]) == (0, ["anna", "bob", "root", "vic"])
    with client(service) as http:
        assert log_in(http, "bob", "another one, longer").status_code == 303
        assert run("remove", "bob")[0] == 0
        assert http.get("/").status_code == 303
    status, told = run("remove", "bob")
    assert (status, "no user bob" in told) == (2, True)
