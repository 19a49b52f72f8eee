"""One model, one data folder, and the parts that pass: the service without its network."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from invad.data.images import pixel_limit
from invad.data.png import require_png
from invad.detector.opening import AUTO
from invad.errors import ArtifactError, ConfigError, DataError
from invad.serve.accounts import Accounts
from invad.serve.delivery import Deliveries, Route
from invad.serve.following import Following
from invad.serve.given import Given, open_given
from invad.serve.groups import unpacked
from invad.serve.judging import Judging
from invad.serve.limits import InForce
from invad.serve.line import Line
from invad.serve.metrics import Metrics
from invad.serve.models import Loaded, Models, Opening
from invad.serve.options import DEFAULT_STATION, Options
from invad.serve.parts import Job
from invad.serve.readiness import Readiness, look
from invad.serve.records import Inspector, Part, Refused, Result, SourceState, require_word
from invad.serve.shadowing import Shadow
from invad.serve.store import keys, results, reviews
from invad.serve.store.backup import FILES, MODELS
from invad.serve.store.database import Database, note, now_ms
from invad.serve.store.objects import open_pictures
from invad.serve.store.stations import Station
from invad.serve.sweeping import Sweeper
from invad.serve.watching import Watch
from invad.serve.webhook import NAME, Webhook
from invad.system.files import make_folder
from invad.system.lock import sole_writer

LOG = logging.getLogger("invad.serve")
DRAIN_SECONDS = 15.0
"""How long `close` waits for parts that were admitted."""

CHECKED_SECONDS = 1.0
DEFAULTS = Options()


class Service(Inspector):
    """A detector that answers for the parts of a line and keeps every result.

    Use it in a `with` block, or call `close`.
    """

    def __init__(
        self,
        model: Given | Mapping[str, Given],
        data: str | Path,
        *,
        database: str | None = None,
        pictures: str | None = None,
        options: Options = DEFAULTS,
        engine: str = AUTO,
        device: str | None = None,
        threads: int | None = None,
    ):
        """model: folder of 'invad train' or 'invad export', or a detector that was saved or loaded; for
        several stations one of each, by name; with a region of interest of a station's own as
        `invad.serve.given.Looking`. data: the folder of images, maps and, without a PostgreSQL
        `database` URL, of the rows; made if need be. pictures: address
        of images and maps, in place of the data folder, such as s3://BUCKET/PREFIX or file:///FOLDER. Several
        services may have one PostgreSQL database, with a data folder each and `pictures` in one place.
        engine, device, threads: as of `invad predict`.

        Raises DataError when another service uses the folder or nothing can be written there, ArtifactError
        for a damaged model or database, ConfigError for impossible options.
        """
        self.folder = Path(data)
        self._open = ExitStack()
        try:
            make_folder(self.folder)
            self._open.enter_context(sole_writer(self.folder, "service"))
            self.files = open_pictures(self.folder / FILES, pictures)
            self.database = self._opened(database)
            self._open.callback(self.database.close)
            self._agree_on_pictures()
            self.files.begin()
            self.options = options
            opening = Opening(engine=engine, device=device, threads=threads)
            shared = self.files if self.database.is_shared else None
            self.models = Models(self.folder / MODELS, options, opening, shared)
            given = open_given(self.models, model, self.database)
            self.metrics = Metrics()
            self.keyring = keys.Keyring(self.database)
            self.accounts = Accounts(self.database, self.keyring)
            self.in_force = InForce()
            self.watch = Watch(self.database, self.metrics, options.drift, alone=not self.database.is_shared)
            self.judging = Judging(self.models, self.database, self.in_force, self.watch, self.metrics)
            self.following = Following(self.database, self.watch, self.judging.refresh)
            self.uploading = threading.Lock()
            self.judging.begin(given)
            self._stopping = threading.Event()
            self.deliveries = Deliveries(self.database, self.metrics)
            if options.webhook is not None:
                self.deliveries.add(Route(name=NAME), Webhook(options.webhook, options.webhook_secret))
            self.line = Line(
                self.models,
                self.database,
                self.files,
                self.in_force,
                self.options,
                self.metrics,
                sinks=self.deliveries.names,
                woken=self.deliveries.wake,
                watched=self._look_at,
            )
            self.shadow = Shadow(
                self.models,
                self.in_force,
                self.database,
                self.metrics,
                self.line,
                most=options.shadow,
                memory=options.memory,
            )
            self.sources: Callable[[], Mapping[str, SourceState]] = dict
            self.unread: str | None = None  # why the file of its stations was not read again
            self._checked: tuple[float, Readiness] | None = None
            self._checking = threading.Lock()
            self._sweeper = Sweeper(self.database, self.files, options.retention, self.metrics)
            self._sweeper.start()
            self.following.start()
            self.database.leases.start()
        except BaseException:
            self._open.close()
            raise

    # ------------------------------------------------------------------ parts

    def inspect_part(self, part: Part) -> Result:
        """As `inspect`."""
        return self.submit(part).result()

    def submit(self, part: Part) -> "Future[Result]":
        """As `inspect`, without waiting; see `Line.submit`. Raises Refused, also for names that cannot be."""
        for name in ("part_id", "lot", "request_id"):
            require_word(name, getattr(part, name))
        self.require_station(part.station)
        self._require_size(part)
        try:
            self.in_force.key(part.station, part.category)
        except ConfigError as error:
            raise Refused(str(error), 400) from None
        return self.line.submit(part)

    def _require_size(self, part: Part) -> None:
        """Raises Refused (400, 413) for a body that is too large, or pixels that no file can hold."""
        if self.following.problem is not None:
            raise Refused(self.following.problem, 503, 5)
        size, limit, what = part.size, self.options.max_body, "bytes"
        if isinstance(part.body, np.ndarray):
            try:
                require_png(part.body)
            except DataError as error:
                self.metrics.rejected.labels("image").inc()
                raise Refused(f"the image is {error}", 400) from None
            size, limit, what = part.body.shape[0] * part.body.shape[1], pixel_limit(), "pixels"
        if size > limit:
            self.metrics.rejected.labels("large").inc()
            raise Refused(f"the image has {size} {what}, the limit is {limit}", 413)

    # ------------------------------------------------------------------ what is stored

    def result(self, id: str) -> results.Stored:
        """One result. Raises Refused (404) where there is none."""
        self.line.committer.maps.wait(id)
        with self.database.read() as connection:
            found = results.by_id(connection, id)
        if found is None:
            raise Refused(f"no result {id}", 404)
        return found

    def history(self, query: results.Query) -> tuple[list[results.Stored], str | None]:
        """The newest that fit, newest first, and `before` of the page after, where there may be one."""
        with self.database.read() as connection:
            return results.page(connection, query)

    def picture(self, stored: results.Stored, kind: str, number: int | None = None) -> bytes:
        """The file of a result. kind: image or map. number: of a part of several pictures the place in
        `members`, by default that of the one `seen_by`. Raises Refused (404, 410) where it is not kept."""
        digest = stored.result.image_sha256 if kind == "image" else stored.map_sha256
        kept = stored.result.image_kept if kind == "image" else stored.result.map_kept
        if digest is None or not kept:
            raise Refused(f"the {kind} of result {stored.result.id} is not kept any more", 410)
        content = self.files.get(kind, digest)
        if content is None:
            self.metrics.errors.labels("file").inc()
            LOG.error("%s of result %s is missing", kind, stored.result.id)
            raise Refused(f"the {kind} of result {stored.result.id} is missing", 404)
        if kind == "image" and (place := stored.result.shown if number is None else number) is not None:
            if not 0 <= place < len(stored.result.members):
                raise Refused(f"result {stored.result.id} has no picture {place}", 404)
            return unpacked(content)[place][1]
        return content

    # ------------------------------------------------------------------ stations

    def require_station(self, name: str) -> None:
        """Raises Refused (404) where there is no such station."""
        if not self.models.judges_at(name):
            raise Refused(f"no station {name!r}; 'GET /api/v1/stations' lists them", 404)

    def stations(self) -> list[Station]:
        """Those that parts are taken for, by name."""
        return self.judging.stations()

    def add_station(self, name: str, who: str = "python") -> Station:
        """As `Judging.add`."""
        return self.judging.add(name, who)

    def take_models(self, models: Mapping[str, Given]) -> None:
        """As `Judging.take`."""
        self.judging.take(models)

    def active(self, station: str = DEFAULT_STATION) -> Loaded:
        """What judges there. Raises Refused (404) where there is no such station."""
        self.require_station(station)
        return self.models.active(station)

    # ------------------------------------------------------------------ its own state

    def readiness(self) -> Readiness:
        """Looked at anew once a second at most."""
        with self._checking:
            now = time.monotonic()
            if self._checked is None or now - self._checked[0] > CHECKED_SECONDS:
                self._checked = (now, self._look())
            return self._checked[1]

    def refresh_metrics(self) -> None:
        """Those that are not counted as they happen."""
        ready = self.readiness()
        self.metrics.ready.set(ready.ready)
        self.metrics.free.set(self.free_bytes())
        self.watch.refresh_metrics()
        with self.database.read() as connection:
            count, oldest = reviews.waiting(connection)
        self.metrics.review.set(count)
        self.metrics.review_age.set(0 if oldest is None else max(0, now_ms() - oldest) / 1000)
        self.deliveries.refresh_metrics()
        for name, is_held in self.database.leases.states().items():
            self.metrics.lease.labels(name).set(is_held)

    def free_bytes(self) -> int:
        """Of the disk that the data folder is on."""
        return shutil.disk_usage(self.folder).free

    def first_key(self) -> str | None:
        """The secret of a new key for everything, where the service has no keys yet."""
        with self.database.write() as connection:
            if keys.keys(connection):
                return None
            secret, key = keys.make(connection, "first", ("admin",))
            note(connection, "invad", "first key", {"key": key.id})
        self.keyring.forget()
        return secret

    def stop(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Take no more parts and answer those under way; returns whether all were, in time."""
        return self.line.close(seconds)

    def close(self, seconds: float = DRAIN_SECONDS) -> None:
        """Stop, deliver nothing more, and let go of the folder. A second call does nothing."""
        if self._stopping.is_set():
            return
        if not self.stop(seconds):
            LOG.error("%d parts were not answered in time", self.line.under_way)
        self._stopping.set()
        self.shadow.close()
        self.following.close()
        self.watch.close()
        self.deliveries.close()
        self._sweeper.close()
        self._open.close()

    def __enter__(self) -> "Service":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self, url: str | None) -> Database:
        """The database. Images without rows would be a database that was lost, so that is refused."""
        database = Database(self.folder, url)
        try:
            if database.is_new and next(self.files.names(), None) is not None:
                if database.path is not None:
                    database.path.unlink()
                raise ArtifactError(
                    f"{self.files.where}: holds images and {database.name} has no rows of them; restore a "
                    "backup with 'invad serve restore', or choose a new folder"
                )
        except BaseException:
            database.close()
            raise
        return database

    def _agree_on_pictures(self) -> None:
        """Raises DataError where other services on the database keep theirs elsewhere."""
        if self.database.is_shared:
            with self.database.write():  # so that of two that start at once one makes the identity
                identity = self.files.identity()
            self.database.leases.agree(
                identity, "other services keep pictures elsewhere; start all with the same --pictures"
            )

    def _look_at(self, jobs: Sequence[Job]) -> None:
        """Parts that were stored and answered."""
        self.watch.observe([job.stored.result for job in jobs if job.stored is not None])
        self.shadow.offer(jobs)

    def _look(self) -> Readiness:
        line = "stopping" if self.line.closing else None
        reserve, model = self.options.reserve, self.following.problem
        return look(self.database, self.files, reserve, model=model, line=line, unread=bool(self.unread))


__all__: Sequence[str] = ["Readiness", "Service"]
