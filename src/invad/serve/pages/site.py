"""All pages, and the files that they load."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from invad.serve.pages import drift, entry, history, limits, live, models, part, region, review, settings
from invad.serve.pages.frame import Frame
from invad.serve.pages.reference import reference_page

PAGES = (entry, live, history, part, review, limits, drift, models, region, settings)


class Fresh(StaticFiles):
    """Files that a browser asks for anew each time, which costs a 304: modules name each other without a
    version, and one loaded under two names would run twice."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        answer = super().file_response(*arguments, **options)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def install(app: FastAPI, frame: Frame) -> None:
    """Add them to the application."""
    for page in PAGES:
        app.include_router(page.router(frame))
    app.mount("/static", Fresh(directory=Path(__file__).with_name("static")), name="static")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(reference_page(app.openapi(), frame.prefix))
