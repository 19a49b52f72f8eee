"""All pages, and the files that they load."""

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from invad.serve.pages import drift, entry, history, limits, live, models, part, review, settings
from invad.serve.pages.frame import Frame
from invad.serve.pages.reference import reference_page

PAGES = (entry, live, history, part, review, limits, drift, models, settings)


def install(app: FastAPI, frame: Frame) -> None:
    """Add them to the application."""
    for page in PAGES:
        app.include_router(page.router(frame))
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")), name="static")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(reference_page(app.openapi(), frame.prefix))
