"""To log in and out: forms that need no script."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from invad.serve.pages.frame import PRIVATE, Frame
from invad.serve.pages.rendering import render
from invad.serve.records import Refused
from invad.serve.store.users import LASTS_MS
from invad.serve.web.auth import COOKIE, require_token

FIELDS = ("name", "password", "key", "next")


def router(frame: Frame) -> APIRouter:
    """These pages."""
    api = APIRouter(include_in_schema=False)
    home = f"{frame.prefix}/"

    def form(status: int, text: str, after: str, name: str = "", later: int | None = None) -> Response:
        page = render("login.html", title="Log in", text=text, after=after, name=name, **frame.shared(None))
        waits = {} if later is None else {"Retry-After": str(later)}
        return HTMLResponse(page, status, {**PRIVATE, **waits})

    @api.get("/login")
    def ask(request: Request, next: Annotated[str, Query()] = "/") -> Response:
        if frame.gate.without_keys:
            return RedirectResponse(home, 303)
        return form(200, "", _inside(next))

    @api.post("/login")
    async def log_in(request: Request) -> Response:
        _require_own_page(request)
        given = await _fields(request)
        after, address = _inside(given["next"]), request.client.host if request.client else "?"
        accounts = frame.service.accounts
        try:
            if given["key"]:
                secret = await run_in_threadpool(accounts.log_in_with_key, given["key"].strip(), address)
            elif given["name"] and given["password"]:
                secret = await run_in_threadpool(
                    accounts.log_in, given["name"].strip(), given["password"], address
                )
            else:
                return form(400, "give a name and a password, or a key", after, given["name"])
        except Refused as error:
            return form(error.status, str(error), after, given["name"], error.retry_after)
        answer = RedirectResponse(frame.prefix + after, 303)
        answer.set_cookie(
            COOKIE,
            secret,
            max_age=LASTS_MS // 1000,
            path=home,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )
        return answer

    @api.post("/logout")
    async def log_out(request: Request) -> Response:
        secret = request.cookies.get(COOKIE, "")
        answer = RedirectResponse(f"{frame.prefix}/login", 303)
        if secret:
            given = await request.form()
            require_token(str(given.get("token", "")), secret)
            await run_in_threadpool(frame.service.accounts.log_out, secret)
        answer.delete_cookie(COOKIE, path=home)
        return answer

    return api


def _require_own_page(request: Request) -> None:
    """Nobody is logged in by the page of another site. Raises Refused (403)."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused("this form was sent by the page of another site", 403)


async def _fields(request: Request) -> dict[str, str]:
    given = await request.form()
    found = {name: given.get(name, "") for name in FIELDS}
    return {name: value if isinstance(value, str) else "" for name, value in found.items()}


def _inside(path: str) -> str:
    """A path of this site, as somebody asked for it before logging in; no other site."""
    is_path = path.startswith("/") and path.isprintable() and not path.startswith(("//", "/\\"))
    return path if is_path and "\\" not in path else "/"
