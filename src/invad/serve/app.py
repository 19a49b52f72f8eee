"""The application: interface, pages, health, figures."""

from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from invad.serve.pages import site
from invad.serve.pages.frame import Frame
from invad.serve.payload import SCHEMA_PATH, schema
from invad.serve.service import Service
from invad.serve.web import (
    administration,
    drifting,
    inferring,
    inspection,
    oip,
    people,
    problems,
    reviewing,
    versions,
)
from invad.serve.web.auth import Caller, Gate
from invad.serve.web.guard import Guard
from invad.system.version import __version__


def application(service: Service, *, without_keys: bool = False, prefix: str = "") -> ASGIApp:
    """The service as an ASGI application; whoever made the service closes it.

    without_keys: everybody may do everything, from this machine alone. prefix: path that a proxy puts before
    all others, such as `/inspection`.
    """

    app = FastAPI(
        title="invad",
        version=__version__,
        description="Inspect parts, and find what came of them.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    gate = Gate(service, without_keys)
    frame = Frame(service, gate, prefix)
    problems.install(app, frame.mistake)
    app.include_router(inspection.router(service, gate, prefix))
    app.include_router(inspection.history_router(service, gate))
    app.include_router(administration.router(service, gate))
    app.include_router(versions.router(service, gate))
    app.include_router(people.router(service, gate))
    app.include_router(reviewing.router(service, gate))
    app.include_router(drifting.router(service, gate))
    app.include_router(oip.router(inferring.PartsOfTheLine(service), gate.needs("infer")))
    site.install(app, frame)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(app.openapi())

    @app.get(SCHEMA_PATH, summary="The JSON schema of a result.")
    def result_schema() -> Response:
        """Of the messages that outputs send; it is no secret."""
        return JSONResponse(schema(), media_type="application/schema+json")

    @app.get("/healthz", summary="Whether the process answers.")
    async def healthz() -> dict[str, str]:
        """Nothing else is looked at."""
        return {"status": "alive", "version": __version__}

    @app.get("/readyz", summary="Whether parts are taken and kept.")
    async def readyz() -> Response:
        """200 or 503, with what was looked at: model, database, disk, line. `reload` is there while the
        file of stations could not be read again; the service is ready then, with the stations it had."""
        found = await run_in_threadpool(service.readiness)
        plain = {"ready": found.ready, "checks": dict(found.checks)}
        return JSONResponse(plain, 200 if found.ready else 503)

    @app.get("/metrics", summary="Figures for Prometheus.", response_class=Response)
    def metrics(caller: Annotated[Caller, Depends(gate.needs("read"))]) -> Response:
        """In its text form."""
        service.refresh_metrics()
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def placed(scope: Scope, receive: Receive, send: Send) -> None:
        """A proxy may take its prefix away or pass it on."""
        scope["root_path"] = prefix
        await app(scope, receive, send)

    return Guard(
        placed,
        max_body=service.options.max_body,
        body_seconds=service.options.body_seconds,
        uploads=versions.UPLOAD_PATH,
        max_upload=service.options.max_model,
        held=service.options.memory,
        rejected=lambda reason: service.metrics.rejected.labels(reason).inc(),
        only_loopback=without_keys,
    )
