"""What goes wrong, as `{"error": text}` with a status."""

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from invad.errors import ConfigError, DataError, InvadError
from invad.serve.records import Refused
from invad.serve.store.database import said

LOG = logging.getLogger("invad.serve")
LATER = 5
"""Seconds after which a database may be back."""

UNREAD = (408, 413)
"""Answers that leave a part of the request unread, so that nothing can follow it."""


def told(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer to a request that is not done."""
    return JSONResponse({"error": text}, status, headers)


def install(app: FastAPI, shown: Callable[[Request, int, str, dict[str, str]], Response | None]) -> None:
    """Answer every exception of a handler in this form. shown: gives a page in its place where a person
    looks, and None for a program."""

    def problem(request: Request, status: int, text: str, headers: dict[str, str] | None = None) -> Response:
        page = shown(request, status, text, headers or {})
        return page if page is not None else told(status, text, headers)

    async def refused(request: Request, error: Any) -> Response:
        later = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        if error.status in UNREAD:
            later["Connection"] = "close"
        if error.status == 401:
            later["WWW-Authenticate"] = "Bearer"
        return problem(request, error.status, str(error), later)

    async def http(request: Request, error: Any) -> Response:
        return problem(request, error.status_code, str(error.detail), dict(error.headers or {}))

    async def invalid(request: Request, error: Any) -> Response:
        said_of = (f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        return problem(request, 422, "; ".join(said_of))

    async def config(request: Request, error: Any) -> Response:
        return problem(request, 400, str(error))

    async def failed(request: Request, error: Any) -> Response:
        LOG.error("a request failed: %s", error)
        return problem(request, 500, str(error))

    async def database(request: Request, error: Any) -> Response:
        LOG.error("the database failed: %s", said(error))
        text = f"the database does not answer ({said(error)}); try again"
        return problem(request, 503, text, {"Retry-After": str(LATER)})

    async def unexpected(request: Request, error: Any) -> Response:
        return problem(request, 500, "the service failed; its log says why")

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ConfigError, config)
    app.add_exception_handler(DataError, failed)
    app.add_exception_handler(InvadError, failed)
    app.add_exception_handler(SQLAlchemyError, database)
    app.add_exception_handler(Exception, unexpected)
