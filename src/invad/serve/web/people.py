"""Users of the page."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from invad.serve.records import Refused, utc
from invad.serve.service import Service
from invad.serve.store import passwords, users
from invad.serve.store.database import note
from invad.serve.web.answers import NO_KEY, NOT_THERE, ONLY_KNOWN, Responses, error
from invad.serve.web.auth import Caller, Gate


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """role: viewer, reviewer or admin. password: of ten characters at least."""

    name: str
    password: str
    role: str = "reviewer"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChange:
    """What is to be another; a new password logs the user out."""

    role: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPassword:
    """current: the one that is."""

    current: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRecord:
    """last_login: None where there was none."""

    name: str
    role: str
    created: str
    last_login: str | None


def router(service: Service, gate: Gate) -> APIRouter:
    """These calls."""
    api = APIRouter(prefix="/api/v1", responses=NO_KEY, dependencies=ONLY_KNOWN)
    reading = Annotated[Caller, Depends(gate.needs("read"))]
    administering = Annotated[Caller, Depends(gate.needs("admin"))]
    wrong: Responses = {400: error("An impossible name, role or password.")}

    def require(name: str) -> None:
        with service.database.read() as connection:
            if users.password_of(connection, name) is None:
                raise Refused(f"no user {name}", 404)

    def record(name: str) -> UserRecord:
        with service.database.read() as connection:
            (found,) = (one for one in users.users(connection) if one.name == name)
        return _record(found)

    @api.get("/users", summary="The users of the page.")
    def list_users(caller: administering) -> dict[str, list[UserRecord]]:
        """By name."""
        with service.database.read() as connection:
            return {"users": [_record(one) for one in users.users(connection)]}

    @api.post("/users", summary="Let somebody use the page.", status_code=201, responses=wrong)
    def add_user(caller: administering, wanted: NewUser) -> UserRecord:
        """viewer looks; reviewer also sends pictures and judges; admin does everything."""
        with service.database.read() as connection:
            users.require_new(connection, wanted.name, wanted.role)
        digest = passwords.digest(wanted.password)
        with service.database.write() as connection:
            users.add(connection, wanted.name, digest, wanted.role)
            note(connection, caller.name, "add user", {"user": wanted.name, "role": wanted.role})
        return record(wanted.name)

    @api.patch("/users/{name}", summary="Change a user.", responses={**NOT_THERE, **wrong})
    def change_user(caller: administering, name: str, wanted: UserChange) -> UserRecord:
        """Another role counts from the next request on."""
        require(name)
        digest = None if wanted.password is None else passwords.digest(wanted.password)
        with service.database.write() as connection:
            if digest is not None:
                users.change(connection, name, password=digest)
                users.note_success(connection, name)
                note(connection, caller.name, "change password", {"user": name})
            if wanted.role is not None:
                users.change(connection, name, role=wanted.role)
                note(connection, caller.name, "change role", {"user": name, "role": wanted.role})
        return record(name)

    @api.delete("/users/{name}", summary="Remove a user.", status_code=204, responses=NOT_THERE)
    def remove_user(caller: administering, name: str) -> Response:
        """Who is logged out at once; what the user judged stays."""
        require(name)
        with service.database.write() as connection:
            users.remove(connection, name)
            note(connection, caller.name, "remove user", {"user": name})
        return Response(status_code=204)

    @api.put("/password", summary="Change one's own password.", status_code=204, responses=wrong)
    def own_password(request: Request, caller: reading, given: OwnPassword) -> Response:
        """Of a user who is logged in; other sessions of the user end, and this one, too."""
        if caller.user is None:
            raise Refused("a key has no password; log in with a name", 400)
        address = request.client.host if request.client else "?"
        service.accounts.change_password(caller.user, given.current, given.new, address)
        return Response(status_code=204)

    return api


def _record(one: users.User) -> UserRecord:
    last = None if one.last_login is None else utc(one.last_login)
    return UserRecord(name=one.name, role=one.role, created=utc(one.created), last_login=last)
