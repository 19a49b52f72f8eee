"""A run over an archive: blocks handed to Ray, the manifest, and the counts of what was scored."""

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from invad.archive.sources import list_source, states
from invad.archive.worker import ATTEMPTS, PARTS, Worker, drop_rows, finished_paths, parts_of
from invad.detector.opening import open_detector
from invad.errors import ConfigError, DataError, reason
from invad.observer import Observer, Silent
from invad.runtime.parts import require_single
from invad.scoring.calibration import known_category
from invad.system.digests import file_sha256
from invad.system.files import is_folder, is_there, make_folder, write_atomically
from invad.system.lock import LOCK, sole_writer
from invad.system.packages import importing
from invad.system.plain import read_json
from invad.system.version import __version__

MANIFEST = "manifest.json"
BLOCK = 64
"""Images a block: what a crash costs at most, and the rows of a Parquet file."""

OBJECT_STORE = 200 << 20
"""Bytes; only paths and counts travel between processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSummary:
    """What an archive run did: images by decision, unreadable ones, and how many were finished before."""

    output: Path
    images: int
    decisions: dict[str, int]
    errors: int
    before: int


def score_archive(
    model: str | Path,
    source: str | Path,
    output: str | Path,
    *,
    category: str | None = None,
    workers: int | None = None,
    block: int = BLOCK,
    device: str | None = None,
    observer: Observer | None = None,
) -> ArchiveSummary:
    """Score all images of a source into the folder `output`; the same call continues an interrupted one.

    source: a folder, a file that lists images (CSV or Parquet with a column `path`, or text, one a line;
    relative paths count from the file), or a URL such as s3://bucket/prefix that pyarrow can open. output:
    a folder that every worker can write, see `docs/archives.md` for what is in it. workers: processes of one
    CPU (or GPU, with device cuda) each; by default as many as Ray has. Joins the Ray cluster that RAY_ADDRESS
    names, or starts Ray on this machine alone for the time of the call.
    Raises DataError for a source without images or an output of something else, ArtifactError for the model,
    ConfigError without Ray or for a category that the model does not know.
    """
    observer, output = observer or Silent(), Path(output)
    if block < 1 or (workers is not None and workers < 1):
        raise ConfigError(f"block = {block}, workers = {workers}: give at least 1")
    ray = _ray()
    detector = open_detector(Path(model), "auto", "cpu", threads=None)
    try:
        require_single(detector.fusion, category)
        category = known_category(detector.calibrations, category) or None
    except ConfigError as error:
        raise ConfigError(f"{model}: {error}") from None
    paths, left_out = list_source(source)
    for line in left_out:
        observer.note(line)
    identity = {"model": detector.content_hash, "category": category, "invad": __version__}
    _make(output)
    with sole_writer(output, "run"):
        _begin(output / MANIFEST, identity)
        todo = _unfinished(paths, output)
        observer.note(f"{len(paths)} images, {len(paths) - len(todo)} of them finished before")
        blocks = [{"paths": todo[i : i + block]} for i in range(0, len(todo), block)]
        observer.stage("images", len(todo))
        if blocks:
            worker = partial(Worker, os.fspath(Path(model).absolute()), output.absolute(), category, device)
            with _running(ray):
                for done in _results(ray, blocks, worker, workers, device):
                    for _ in range(done):
                        observer.advance()
        return _finish(output, identity, source, len(paths) - len(todo))


def _results(
    ray: Any, blocks: list[dict[str, Any]], worker: Any, workers: int | None, device: str | None
) -> Iterator[int]:
    """Numbers of images of finished blocks, as they come."""
    gpu = (device or "cpu").startswith("cuda")
    units = ray.cluster_resources().get("GPU" if gpu else "CPU", 0)
    count = min(workers or int(units), len(blocks))
    if units < 1 or (workers or 1) > units:
        raise ConfigError(
            f"workers = {workers}: Ray has {int(units)} {'GPUs' if gpu else 'CPUs'}; give fewer or a cluster"
        )
    dataset = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        worker.func,
        fn_constructor_args=worker.args,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=0 if gpu else 1,
        num_gpus=1 if gpu else 0,
    )
    try:
        for row in dataset.iter_rows():
            yield int(row["images"])
    except (ray.exceptions.RayError, OSError) as error:
        raise DataError(f"Ray stopped ({_reason(error)}); run the same command again to continue") from None


def _reason(error: Exception) -> str:
    """What went wrong in a worker: Ray's text holds the workers' tracebacks, the innermost first."""
    text = str(error)
    error_line = re.search(r"^[\w.]*(?:Error|Exception): .+", text, re.MULTILINE)
    line = " ".join((error_line[0] if error_line else text).split())[:300]
    return re.sub(r"^invad\.errors\.\w+: ", "", line)


def _unfinished(paths: Sequence[str], output: Path) -> list[str]:
    """Paths without a row. Rows of files that were replaced since, or could not be read, are dropped."""
    finished = finished_paths(output)
    own = [path for path in paths if path in finished]
    try:
        now = states(path for path in own if finished[path] is not None)
    except OSError as error:
        raise DataError(f"{output}: its images cannot be looked at: {reason(error, writing=False)}") from None
    stale = {
        path for path in own if finished[path] is None or finished[path] != now.get(path, finished[path])
    }
    if stale:
        drop_rows(output, stale)
    return [path for path in paths if path not in finished or path in stale]


def _make(output: Path) -> None:
    inside = {path.name for path in output.iterdir()} if is_folder(output) else set()
    if inside - {LOCK, PARTS} and MANIFEST not in inside:
        raise DataError(f"{output}: is not empty and holds no scores; give --output a new or empty folder")
    make_folder(output / PARTS)


def _begin(manifest: Path, identity: dict[str, Any]) -> None:
    output = manifest.parent
    if is_there(manifest):
        before = read_json(manifest, DataError, "give --output a new folder")
        for key, value in identity.items():
            if before.get(key) != value:
                raise DataError(
                    f"{output}: holds scores made with {key} {before.get(key)}, not {value}; "
                    "give another --output"
                )
    shutil.rmtree(output / ATTEMPTS, ignore_errors=True)
    write_atomically(manifest, _dump({**identity, "finished": False}))


def _finish(output: Path, identity: dict[str, Any], source: str | Path, before: int) -> ArchiveSummary:
    """Count all rows and write the manifest of the finished run."""
    import pyarrow.parquet as pq

    parts: list[dict[str, Any]] = []
    decisions, errors = {"good": 0, "review": 0, "bad": 0}, 0
    for part in parts_of(output):
        made = pq.read_table(part, columns=["decision"])["decision"].to_pylist()
        for decision in made:
            if decision is None:
                errors += 1
            else:
                decisions[decision] += 1
        parts.append({"file": part.name, "rows": len(made), "sha256": file_sha256(part)})
    images = sum(part["rows"] for part in parts)
    shutil.rmtree(output / ATTEMPTS, ignore_errors=True)
    told = {"source": str(source), "images": images, "decisions": decisions, "errors": errors}
    write_atomically(output / MANIFEST, _dump({**identity, "finished": True, **told, "parts": parts}))
    return ArchiveSummary(output=output, images=images, decisions=decisions, errors=errors, before=before)


def _dump(plain: dict[str, Any]) -> bytes:
    return (json.dumps(plain, indent=1) + "\n").encode()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # a Ray of its own listens on 127.0.0.1
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray keeps its whole log in files of its own
    with importing(("ray", "pyarrow"), "archive", "engine ray"):
        import pyarrow  # noqa: F401
        import ray
        import ray.data
    return ray


@contextlib.contextmanager
def _running(ray: Any) -> Iterator[None]:
    """Ray, joined or started for this call alone; quiet."""
    import logging

    started = not ray.is_initialized()
    with contextlib.redirect_stdout(sys.stderr):  # where Ray tells of dead workers
        if started and os.environ.get("RAY_ADDRESS"):
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
        elif started:
            ray.init(
                "local",
                object_store_memory=OBJECT_STORE,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield
        finally:
            if started:
                ray.shutdown()
