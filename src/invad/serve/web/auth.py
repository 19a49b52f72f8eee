"""Who may do what. A key comes as `Authorization: Bearer KEY` or `X-API-Key: KEY`, a session of the page as a
cookie; what a session changes needs its token as `X-CSRF-Token`, too."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from invad.serve.records import Refused
from invad.serve.service import Service
from invad.serve.store.keys import Key

COOKIE, TOKEN = "invad_session", "X-CSRF-Token"
CHANGES_NOTHING = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """name: for the audit table. stations: where the caller may look and infer; None is everywhere. token: of
    the session, where there is one. user: who is logged in by name."""

    name: str
    scopes: tuple[str, ...]
    stations: tuple[str, ...] | None = None
    token: str = ""
    user: str | None = None

    def may(self, scope: str) -> bool:
        """Whether the caller has a scope; admin has all."""
        return scope in self.scopes or "admin" in self.scopes

    def require_scope(self, scope: str) -> None:
        """Raises Refused (403) for a caller without it."""
        if not self.may(scope):
            raise Refused(f"this key has the scopes {', '.join(self.scopes)}; it needs {scope}", 403)

    def require(self, station: str) -> None:
        """Raises Refused for a station that the key is not for."""
        if self.stations is not None and station not in self.stations:
            raise Refused(f"this key is not for station {station}", 403)


class Gate:
    """Says who calls. without_keys: everybody may do everything."""

    def __init__(self, service: Service, without_keys: bool):
        self.service, self.without_keys = service, without_keys

    async def caller(self, request: Request, scope: str) -> Caller:
        """Raises Refused (401, 403)."""
        if self.without_keys:
            return Caller(name="nobody", scopes=("admin",))
        secret = sent_key(request)
        if not secret and (cookie := request.cookies.get(COOKIE)):
            return await run_in_threadpool(self._of_session, request, cookie, scope)
        # Nearly always known already; a thread costs more than that.
        key = await run_in_threadpool(self.service.keyring.owner, secret) if secret else None
        if key is None:
            self.service.metrics.rejected.labels("key").inc()
            raise no_key("this key is not known, was revoked or has expired" if secret else "send a key")
        request.scope.setdefault("state", {})["key"] = key.id
        return _allowed(key, scope)

    def _of_session(self, request: Request, cookie: str, scope: str) -> Caller:
        account = self.service.accounts.account(cookie)
        if account is None:
            raise Refused("the session has ended; log in again", 401)
        token = token_of(cookie)
        if request.method not in CHANGES_NOTHING:
            require_token(request.headers.get(TOKEN, ""), cookie)
        request.scope.setdefault("state", {})["key"] = account.api_key or account.name
        caller = Caller(
            name=account.name,
            scopes=account.scopes,
            stations=account.stations,
            token=token,
            user=account.user,
        )
        if not caller.may(scope):
            has = ", ".join(account.scopes)
            raise Refused(f"{account.name} has the scopes {has}; this needs {scope}", 403)
        return caller

    def needs(self, scope: str) -> Callable[[Request], "object"]:
        """A dependency of FastAPI that gives the caller, if the key has this scope."""

        async def dependency(request: Request) -> Caller:
            return await self.caller(request, scope)

        return dependency


def no_key(text: str) -> Refused:
    """The refusal of a request without a key that is known."""
    return Refused(f"{text}; as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'", 401)


def token_of(cookie: str) -> str:
    """What a page of a session sends along with what it changes; another site cannot know it."""
    return sha256(b"token of " + cookie.encode("utf-8", "replace")).hexdigest()


def require_token(token: str, cookie: str) -> None:
    """Raises Refused (403) for a token that is not that of the session."""
    if not hmac.compare_digest(token.encode("utf-8", "replace"), token_of(cookie).encode()):
        raise Refused(f"send the page's token as {TOKEN}; load the page again", 403)


def sent_key(request: Request) -> str:
    """What a request has as its key; an empty text without one."""
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key", "").strip()


def _allowed(key: Key, scope: str) -> Caller:
    if not key.may(scope):
        raise Refused(f"this key has the scopes {', '.join(key.scopes)}; it needs {scope}", 403)
    return Caller(name=f"key {key.id} ({key.name})", scopes=key.scopes, stations=key.stations)
