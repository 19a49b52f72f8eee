"""Who may do what. A key comes as `Authorization: Bearer KEY` or `X-API-Key: KEY`."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from invad.serve.records import Refused
from invad.serve.service import Service
from invad.serve.store.keys import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """name: for the audit table. stations: where the caller may look and infer; None is everywhere."""

    name: str
    stations: tuple[str, ...] | None = None

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
            return Caller(name="nobody")
        secret = _sent(request)
        # Nearly always known already; a thread costs more than that.
        key = await run_in_threadpool(self.service.keyring.owner, secret) if secret else None
        if key is None:
            self.service.metrics.rejected.labels("key").inc()
            text = "this key is not known, was revoked or has expired" if secret else "send a key"
            raise Refused(f"{text}; as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'", 401)
        request.scope.setdefault("state", {})["key"] = key.id
        return _allowed(key, scope)

    def needs(self, scope: str) -> Callable[[Request], "object"]:
        """A dependency of FastAPI that gives the caller, if the key has this scope."""

        async def dependency(request: Request) -> Caller:
            return await self.caller(request, scope)

        return dependency


def _sent(request: Request) -> str:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key", "").strip()


def _allowed(key: Key, scope: str) -> Caller:
    if not key.may(scope):
        raise Refused(f"this key has the scopes {', '.join(key.scopes)}; it needs {scope}", 403)
    return Caller(name=f"key {key.id} ({key.name})", stations=key.stations)
