"""What all pages share: who looks at them, the bar above, the station that was chosen, what is said of a
mistake."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from invad.serve.pages.rendering import render
from invad.serve.service import Service
from invad.serve.store import results
from invad.serve.web.auth import Caller, Gate
from invad.system.version import __version__

NAV = (
    ("/", "Live", "read"),
    ("/history", "History", "read"),
    ("/review", "Review", "review"),
    ("/limits", "Limits", "read"),
    ("/drift", "Drift", "read"),
    ("/models", "Models", "read"),
    ("/settings", "Settings", "read"),
)
"""Address, name, and the scope that it needs."""

PROGRAMS = ("/api/", "/v2", "/metrics", "/healthz", "/readyz", "/openapi.json", "/static/")
"""Where programs ask, which get their mistakes as JSON."""

PRIVATE = {"Cache-Control": "private, no-cache"}


@dataclass(frozen=True, slots=True)
class Frame:
    """prefix: path that a proxy puts before all others."""

    service: Service
    gate: Gate
    prefix: str

    def needs(self, scope: str) -> Callable[[Request], "object"]:
        """A dependency of FastAPI that gives the caller; who is not logged in is led to the form."""
        return self.gate.needs(scope)

    def stations(self, caller: Caller) -> list[str]:
        """The names of those that the caller may see."""
        found = self.service.stations()
        return [one.name for one in found if caller.stations is None or one.name in caller.stations]

    def station(self, caller: Caller, name: str | None) -> str | None:
        """The one that was asked for; None is all. Raises Refused for one that is not there."""
        if not name:
            return None
        caller.require(name)
        self.service.require_station(name)
        return name

    def one_station(self, caller: Caller, name: str | None) -> str:
        """The same for a page that shows one at a time: the first where none was asked for."""
        mine = self.stations(caller)
        return self.station(caller, name) or (mine[0] if mine else "default")

    def usual_category(self, station: str) -> str:
        """Of the last part there, "" where it has none: what a page shows first that shows one at a time."""
        with self.service.database.read() as connection:
            last, _ = results.page(connection, results.Query(station=station, limit=1))
        return (last[0].result.category or "") if last else ""

    def html(
        self,
        request: Request,
        caller: Caller,
        template: str,
        *,
        title: str,
        station: str | None = None,
        all_stations: bool = True,
        status: int = 200,
        **values: Any,
    ) -> Response:
        """A page. station: the one that was chosen, which the bar keeps. all_stations: whether the page may
        show all at a time. values: of the template."""
        here = request.url.path.removeprefix(self.prefix) or "/"
        kept = f"?{urlencode({'station': station})}" if station else ""
        nav = [
            {"href": f"{self.prefix}{path}{kept}", "name": name, "current": path == here}
            for path, name, scope in NAV
            if caller.may(scope)
        ]
        text = render(
            template,
            title=title,
            nav=nav,
            here=f"{self.prefix}{here}",
            station=station,
            stations=self.stations(caller),
            all_stations=all_stations,
            **self.shared(caller),
            **values,
        )
        return HTMLResponse(text, status, PRIVATE)

    def text(self, caller: Caller, template: str, **values: Any) -> str:
        """A piece of HTML."""
        return render(template, **self.shared(caller), **values)

    def part_of_page(self, caller: Caller, template: str, **values: Any) -> Response:
        """A piece of HTML that a script puts into a page."""
        return HTMLResponse(self.text(caller, template, **values), headers=PRIVATE)

    def shared(self, caller: Caller | None) -> dict[str, Any]:
        """What every template may use."""
        return {
            "prefix": self.prefix,
            "version": __version__,
            "caller": caller,
            "token": caller.token if caller else "",
        }

    def mistake(self, request: Request, status: int, text: str, headers: dict[str, str]) -> Response | None:
        """What a browser shows in place of a page; None for a program."""
        path = request.url.path.removeprefix(self.prefix)
        is_piece = request.headers.get("hx-request") == "true"
        if path.startswith(PROGRAMS) or (
            "text/html" not in request.headers.get("accept", "") and not is_piece
        ):
            return None
        if status == 401:
            log_in = f"{self.prefix}/login"
            if is_piece:
                return Response(status_code=204, headers={"HX-Redirect": log_in})
            if request.method == "GET":
                asked = path + (f"?{request.url.query}" if request.url.query else "")
                return RedirectResponse(f"{log_in}?next={quote(asked, safe='')}", 303)
        page = render("mistake.html", title="Not done", status=status, text=text, **self.shared(None))
        return HTMLResponse(page, status, {**PRIVATE, **headers})
