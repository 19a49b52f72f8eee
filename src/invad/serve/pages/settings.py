"""The page /settings: one's own password; of an administrator users, keys, stations and what was done.

What is kept and where the service listens is shown: it is set where the service is started.
"""

import json
from typing import Annotated

from fastapi import APIRouter, Depends
from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response

from invad.serve.pages.frame import Frame
from invad.serve.records import utc
from invad.serve.store import keys, users
from invad.serve.store.schema import audit
from invad.serve.web.auth import Caller

SHOWN = 30
"""Rows of the audit table."""


def router(frame: Frame) -> APIRouter:
    """It, and what it loads."""
    api = APIRouter(include_in_schema=False)
    allowed = Annotated[Caller, Depends(frame.needs("read"))]
    service = frame.service

    @api.get("/settings")
    def page(request: Request, caller: allowed, station: str | None = None) -> Response:
        chosen = frame.station(caller, station)
        options = service.options
        is_admin = caller.may("admin")
        with service.database.read() as connection:
            shown = {
                "users": [(one, _when(one.last_login)) for one in users.users(connection)],
                "keys": [
                    (one, _when(one.last_used), _when(one.expires)) for one in reversed(keys.keys(connection))
                ],
                "notes": _notes(connection),
            }
        return frame.html(
            request,
            caller,
            "settings.html",
            title="Settings",
            station=chosen,
            is_admin=is_admin,
            admin=shown if is_admin else None,
            roles=list(users.ROLES),
            scopes=keys.SCOPES,
            options=options,
            free=service.free_bytes(),
            folder=service.folder.resolve(),
            database=service.database.name,
            address=str(request.base_url).rstrip("/"),
            engines=sorted({one.engine for one in service.models.all_active().values()}),
            checks=service.readiness().checks,
        )

    return api


def _when(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else utc(milliseconds)


def _notes(connection: Connection) -> list[tuple[str, str, str, str]]:
    """(time, who, what, further) of the newest rows of the audit table."""
    rows = connection.execute(select(audit).order_by(audit.c.id.desc()).limit(SHOWN))
    return [
        (
            utc(row.time),
            row.who,
            row.action,
            ", ".join(f"{name} {_word(value)}" for name, value in json.loads(row.content).items()),
        )
        for row in rows
    ]


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
