"""What goes wrong, as `{"error": text}` with a status."""

import logging
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from invad.errors import ConfigError, DataError, InvadError
from invad.serve.records import Refused
from invad.serve.store.database import said

LOG = logging.getLogger("invad.serve")
LATER = 5
"""Seconds after which a database may be back."""

UNREAD = (408, 413)
"""Answers that leave a part of the request unread, so that nothing can follow it."""


def problem(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer to a request that is not done."""
    return JSONResponse({"error": text}, status, headers)


def install(app: FastAPI) -> None:
    """Answer every exception of a handler in this form."""

    async def refused(_: Request, error: Any) -> JSONResponse:
        later = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        if error.status in UNREAD:
            later["Connection"] = "close"
        if error.status == 401:
            later["WWW-Authenticate"] = "Bearer"
        return problem(error.status, str(error), later)

    async def http(_: Request, error: Any) -> JSONResponse:
        return problem(error.status_code, str(error.detail), dict(error.headers or {}))

    async def invalid(_: Request, error: Any) -> JSONResponse:
        said_of = (f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        return problem(422, "; ".join(said_of))

    async def config(_: Request, error: Any) -> JSONResponse:
        return problem(400, str(error))

    async def failed(_: Request, error: Any) -> JSONResponse:
        LOG.error("a request failed: %s", error)
        return problem(500, str(error))

    async def database(_: Request, error: Any) -> JSONResponse:
        LOG.error("the database failed: %s", said(error))
        text = f"the database does not answer ({said(error)}); try again"
        return problem(503, text, {"Retry-After": str(LATER)})

    async def unexpected(_: Request, error: Any) -> JSONResponse:
        return problem(500, "the service failed; its log says why")

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ConfigError, config)
    app.add_exception_handler(DataError, failed)
    app.add_exception_handler(InvadError, failed)
    app.add_exception_handler(SQLAlchemyError, database)
    app.add_exception_handler(Exception, unexpected)
