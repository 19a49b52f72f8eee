"""A runtime that keeps nothing: one model behind the Open Inference Protocol, as KServe starts it.

from invad.serve.stateless import Runtime, application, opened
app = application(Runtime(opened("bundle")))  # an ASGI application, for uvicorn, Ray Serve, ...
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from invad.errors import ConfigError, InvadError
from invad.records import Prediction
from invad.runtime.predictor import Pixels
from invad.scoring.calibration import known_category
from invad.serve.listening import Address, ended_by_signals, open_port, server_for, url_of
from invad.serve.metrics import RunMetrics
from invad.serve.models import Loaded, Opening, open_alone, require_single
from invad.serve.options import Options, is_loopback
from invad.serve.parts import Budget, Queue, decoded, judged, since
from invad.serve.records import Refused
from invad.serve.web import oip, problems
from invad.serve.web.auth import Caller
from invad.serve.web.guard import Guard
from invad.serve.web.keyfile import KeyFile
from invad.system.version import __version__

LOG = logging.getLogger("invad.serve")
CLOSE_SECONDS = 2.0
"""For images whose connections were cut."""

DEFAULT = Options()


@dataclass(slots=True, eq=False)
class _Job:
    """An image under way; times are those of a clock that only rises."""

    image: oip.Image
    key: str
    answer: "Future[oip.Judged]" = field(default_factory=Future)
    pixels: Pixels | None = None
    held: int = 0
    queued: float = 0.0


class Runtime(oip.Judge):
    """Judges images by one model, by the limits that it came with. `close` ends it."""

    keeps = False
    map_note = "only when it is named in outputs"

    def __init__(self, model: Loaded, options: Options = DEFAULT):
        """options: queue, batch, delay_ms, streams, decoders, memory, max_body and the times of a request."""
        self.model, self.options, self.metrics = model, options, RunMetrics()
        self.metrics.model.labels(model.name, model.hash, model.engine).set(1)
        self._queue: Queue[_Job] = Queue()
        self._pixels = Budget(options.memory)
        self._idle = threading.Condition()
        self._under_way, self._closing = 0, False
        self._decoders = ThreadPoolExecutor(options.decoders, thread_name_prefix="invad-decode")
        self._runs = [
            threading.Thread(target=self._run, name=f"invad-run-{i}", daemon=True)
            for i in range(options.streams)
        ]
        for thread in self._runs:
            thread.start()

    def is_ready(self) -> bool:
        """Until it ends."""
        return not self._closing

    def active(self) -> Sequence[Loaded]:
        """The one model."""
        return [self.model]

    def chosen(self, caller: Caller, name: str, version: str | None, words: Mapping[str, str]) -> Loaded:
        """The one model, if the request is for it. Raises Refused."""
        (found,) = oip.fitting([self.model], name, version)
        return found

    async def judge(
        self, model: Loaded, images: Sequence[oip.Image], category: str | None, words: Mapping[str, str]
    ) -> Sequence[oip.Judged]:
        """All images are taken or none is. Raises Refused, ConfigError, InvadError when the engine fails."""
        answers = self.submit(images, category)
        found = await asyncio.gather(*(asyncio.wrap_future(one) for one in answers), return_exceptions=True)
        for one in found:
            if isinstance(one, InvadError):
                raise one
            if isinstance(one, BaseException):  # it is in the log already
                raise InvadError("the engine failed; the log of the runtime says why")
        return [one for one in found if isinstance(one, oip.Judged)]

    def submit(self, images: Sequence[oip.Image], category: str | None) -> "list[Future[oip.Judged]]":
        """Admit images. A request alone may have as many as its body; beside others the queue bounds."""
        key = known_category(self.model.detector.calibrations, category)
        jobs = [_Job(image=image, key=key) for image in images]
        with self._idle:
            if self._closing:
                self._refuse("stopping", "the runtime is stopping; send it again", retry_after=5)
            if self._under_way and self._under_way + len(jobs) > self.options.queue:
                self._refuse("full", f"{self._under_way} images wait already; send it again", retry_after=1)
            self._under_way += len(jobs)
            self.metrics.queue.set(self._under_way)
        for job in jobs:
            job.answer.set_running_or_notify_cancel()  # who stops waiting does not stop the image
            self._decoders.submit(self._prepare, job)
        return [job.answer for job in jobs]

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Take no more images, and wait until all are answered; returns whether they were in time."""
        with self._idle:
            self._closing = True
            done = self._idle.wait_for(lambda: not self._under_way, seconds)
        self._queue.close()
        self._decoders.shutdown(wait=done, cancel_futures=True)
        if done:
            for thread in self._runs:
                thread.join()
        return done

    def _refuse(self, reason: str, message: str, retry_after: int) -> None:
        self.metrics.rejected.labels(reason).inc()
        raise Refused(message, 503, retry_after)

    def _prepare(self, job: _Job) -> None:
        """Decode the image and put it in the queue."""
        try:
            detector, started = self.model.detector, time.monotonic()
            pixels = decoded(detector, job.image, self.metrics, job.key or None)
            self.metrics.stage.labels("decode").observe(since(started) / 1000)
            # The map, float32, will be held as long as they are.
            job.held = pixels.nbytes + 4 * pixels.shape[0] * pixels.shape[1]
            self._pixels.take(job.held)
            job.pixels, job.queued = pixels, time.monotonic()
            self._queue.put((detector.kind(pixels), job.key), job)
        except BaseException as error:
            if not isinstance(error, InvadError):
                self.metrics.errors.labels("decode").inc()
                LOG.exception("an image could not be prepared")
            self._finish(job, error)

    def _run(self) -> None:
        while jobs := self._queue.take(lambda job: self.model.batch, self.options.delay_ms / 1000):
            started = time.monotonic()
            for job in jobs:
                self.metrics.stage.labels("queue").observe(started - job.queued)
            self.metrics.batch.observe(len(jobs))
            pixels = [job.pixels for job in jobs if job.pixels is not None]
            found = judged(self.model.detector, pixels, jobs[0].key or None, self.metrics)
            self.metrics.stage.labels("infer").observe(since(started) / 1000)
            for job, outcome in zip(jobs, found, strict=True):
                self._finish(job, outcome)

    def _finish(self, job: _Job, outcome: Prediction | BaseException) -> None:
        """Answer an image, which then is under way no more."""
        if job.pixels is not None:
            self._pixels.give(job.held)
            job.pixels = None
        with self._idle:
            self._under_way -= 1
            self.metrics.queue.set(self._under_way)
            self._idle.notify_all()
        if isinstance(outcome, BaseException):
            job.answer.set_exception(outcome)
            return
        self.metrics.parts.labels("", outcome.decision, "oip", self.model.hash).inc()
        self.metrics.p_value.labels("").observe(outcome.p_value)
        job.answer.set_result(self._said(outcome))

    def _said(self, one: Prediction) -> oip.Judged:
        height, width = one.anomaly_map.shape
        return oip.Judged(
            model=self.model.name,
            version=self.model.hash,
            score=one.score,
            p_value=one.p_value,
            decision=one.decision,
            size_hw=(height, width),
            anomaly_map=lambda: one.anomaly_map,
        )


def opened(
    folder: str | Path, name: str | None = None, options: Options = DEFAULT, opening: Opening | None = None
) -> Loaded:
    """The model or bundle of a folder, ready to run. name: it is asked for by it, by default the folder's.

    Raises ArtifactError for a damaged one, NotCalibratedError without limits, ConfigError for a name that no
    address can have.
    """
    called = Path(folder).resolve().name or "model" if name is None else name
    if not called or "/" in called:
        raise ConfigError(f"model name {called!r}: give one without a slash, since it is a part of addresses")
    model = open_alone(Path(folder), called, options, opening or Opening())
    require_single(model, "a runtime that keeps nothing")
    return model


def application(
    runtime: Runtime, *, keys: KeyFile | None = None, only_loopback: bool = False, prefix: str = ""
) -> ASGIApp:
    """The runtime as an ASGI application; whoever made the runtime closes it.

    keys: who may infer and read the figures, None for everybody. only_loopback: answer requests of this
    machine and its own pages alone. prefix: path that a proxy puts before all others.
    """

    async def everybody(request: Request) -> Caller:
        return Caller(name="nobody", scopes=("infer", "read"))

    known = everybody if keys is None else keys.caller
    app = FastAPI(title="invad", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    problems.install(app, lambda *_: None)
    app.include_router(oip.router(runtime, known))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive", "version": __version__}

    @app.get("/readyz")
    async def readyz() -> Response:
        ready = runtime.is_ready()
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    @app.get("/metrics", dependencies=[Depends(known)])
    async def metrics() -> Response:
        runtime.metrics.ready.set(runtime.is_ready())
        return Response(runtime.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def placed(scope: Scope, receive: Receive, send: Send) -> None:
        """A proxy may take its prefix away or pass it on; Ray Serve has one of its own."""
        await app({**scope, "root_path": prefix or scope.get("root_path", "")}, receive, send)

    return Guard(
        placed,
        max_body=runtime.options.max_body,
        body_seconds=runtime.options.body_seconds,
        held=runtime.options.memory,
        rejected=lambda reason: runtime.metrics.rejected.labels(reason).inc(),
        only_loopback=only_loopback,
    )


def run(runtime: Runtime, address: Address, said: Callable[[str], None], keys: KeyFile | None) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then take no more, answer those under way, close the runtime.

    said: told the address when the port is open. Raises DataError for a port that cannot be had.
    """
    port = open_port(address)
    alone = keys is None and is_loopback(address.host)
    app = application(runtime, keys=keys, only_loopback=alone, prefix=address.prefix)
    server = server_for(app, address, runtime.options.head_seconds)
    with ExitStack() as ends:
        ends.enter_context(ended_by_signals(server))
        ends.callback(runtime.close)
        ends.callback(port.close)
        said(url_of(port, address))
        server.run([port])
