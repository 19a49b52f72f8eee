"""What runs in the processes of Ray: a block of paths to a Parquet file."""

import json
import os
from collections.abc import Collection, Sequence
from errno import EINVAL
from pathlib import Path
from typing import Any

from invad.archive.sources import State, readable, states
from invad.detector.opening import open_detector
from invad.errors import ArtifactError, DataError, InvadError, in_one_line, reason
from invad.scoring.calibration import for_category
from invad.scoring.regions import regions
from invad.system.digests import plain_sha256
from invad.system.files import write_atomically, writing

PARTS, ATTEMPTS = "parts", ".attempts"
STATE = ("size", "modified_ns")
"""Columns of a file's state."""

BOX = ("x", "y", "width", "height", "area", "peak")
"""Of a region, what the rows have."""

DEATHS = 2
"""Workers that an image may kill, told apart from its block, before it gets a row that says so."""

LOADING_DEATHS = 6
"""Workers that may die while they load the model before the run stops."""


class Worker:
    """Holds the model in a process of Ray's."""

    def __init__(self, model: str, output: Path, category: str | None, device: str | None):
        self.output, self.category = output, category
        # Ray replaces a dead worker without end.
        loading = output / ATTEMPTS / f"loading-{os.getpid()}"
        loading.parent.mkdir(exist_ok=True)
        if len(list(loading.parent.glob("loading-*"))) >= LOADING_DEATHS:
            raise MemoryError(f"{LOADING_DEATHS} workers died while loading the model; give fewer --workers")
        loading.touch()
        self.detector = open_detector(Path(model), "auto", device or "cpu", threads=1)
        loading.unlink()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        counts = []
        for given in batch["paths"]:
            paths = [str(path) for path in given]
            name = part_name(paths)
            with writing(self.output):
                write_part(self.output / PARTS / name, self._rows(paths, self.output / ATTEMPTS / name))
            counts.append(len(paths))
        return {"images": counts}

    def _rows(self, paths: Sequence[str], attempt: Path) -> list[dict[str, Any]]:
        """Rows of a block. When a worker died on it, the next notes each image before it scores it, so that
        an image that kills its workers is found."""
        before = attempt.read_text().splitlines() if attempt.exists() else []
        attempt.touch()
        again = bool(before) or attempt.stat().st_size > 0
        with attempt.open("a") as notes:
            notes.write("\n")
            notes.flush()
            rows = []
            for path in paths:
                mark = json.dumps(path)
                if before.count(mark) >= DEATHS:
                    seen = _seen(self._state(path))
                    rows.append(self._empty(path) | seen | {"error": f"killed its worker {DEATHS} times"})
                    continue
                start = notes.tell()
                if again:
                    notes.write(mark + "\n")
                    notes.flush()
                rows.append(self._row(path))
                if again:
                    notes.truncate(start)
                    notes.seek(start)
        attempt.unlink()
        return rows

    def _state(self, path: str) -> State | None:
        try:
            return states([path]).get(path)
        except OSError as error:
            raise DataError(f"{path}: {reason(error, writing=False)}") from None

    def _empty(self, path: str) -> dict[str, Any]:
        return dict.fromkeys(schema().names) | {"path": path, "category": self.category}

    def _unread(self, path: str, why: str) -> dict[str, Any]:
        # Parquet takes text alone, and messages name files that may not be.
        text = why.encode("utf-8", "backslashreplace").decode()
        return self._empty(path) | {"error": " ".join(text.split())}

    def _row(self, path: str) -> dict[str, Any]:
        state = self._state(path)  # before it is read: what is replaced meanwhile is judged again
        try:
            made = self.detector.predict(readable(path), category=self.category)
        except InvadError as error:
            # Of a file that could not be read nothing is known, so the row has no state and is made again.
            unread = isinstance(error.__cause__, OSError) and error.__cause__.errno is not None
            return self._unread(path, str(error)) | ({} if unread else _seen(state))
        except FileNotFoundError as error:
            return self._unread(path, f"{path}: {reason(error, writing=False)}")
        except OSError as error:  # a server that is gone ends the run, to be continued
            raise DataError(f"{path}: {reason(error, writing=False)}") from None
        review, _ = for_category(self.detector.calibrations, self.category).map_limits()
        height, width = made.anomaly_map.shape
        least = self.detector.least_pixels((height, width))
        return self._empty(path) | {
            **_seen(state),
            "score": made.score,
            "p_value": made.p_value,
            "decision": made.decision,
            "boxes": [
                {name: getattr(region, name) for name in BOX}
                for region in regions(made.anomaly_map, review, least=least)
            ],
        }


def part_name(paths: Sequence[str]) -> str:
    """Name of the Parquet file of a block."""
    return f"part-{plain_sha256(list(paths))[:20]}.parquet"


def finished_paths(output: str | Path) -> dict[str, State | None]:
    """Paths that have a row, and the state of the file when it was judged; None where it was not read.

    Raises ArtifactError for a damaged part.
    """
    judged: dict[str, State | None] = {}
    for part in parts_of(output):
        told = (column.to_pylist() for column in read_part(part, ["path", *STATE]).columns)
        for path, size, modified in zip(*told, strict=True):
            judged[path] = None if size is None else (size, modified)
    return judged


def drop_rows(output: str | Path, paths: Collection[str]) -> None:
    """Remove the rows of these paths, so that each has one row when it is judged again."""
    for part in parts_of(output):
        table = read_part(part)
        keep = [path not in paths for path in table["path"].to_pylist()]
        if not any(keep):
            with writing(part):
                part.unlink()
        elif not all(keep):
            write_part(part, table.filter(keep).to_pylist())


def parts_of(output: str | Path) -> list[Path]:
    return sorted((Path(output) / PARTS).glob("part-*.parquet"))


def read_part(part: Path, columns: Sequence[str] | None = None) -> Any:
    """A part as a table. Raises ArtifactError when it is damaged or cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(part, columns=columns)
    except (pa.ArrowException, OSError, KeyError) as error:
        if isinstance(error, OSError) and error.errno not in (None, EINVAL):
            raise ArtifactError(f"{part}: {reason(error, writing=False)}") from None
        said = in_one_line(error)
        raise ArtifactError(f"{part}: damaged ({said}); delete it, its images are scored again") from None


def _seen(state: State | None) -> dict[str, int | None]:
    return dict(zip(STATE, state or (None, None), strict=True))


def schema() -> Any:
    import pyarrow as pa

    box = pa.struct([(name, pa.float32() if name == "peak" else pa.int32()) for name in BOX])
    texts = {name: pa.string() for name in ("path", "category", "decision", "error")}
    numbers = {"score": pa.float64(), "p_value": pa.float64(), "boxes": pa.list_(box)}
    numbers |= dict.fromkeys(STATE, pa.int64())
    order = ("path", "category", "score", "p_value", "decision", "boxes", "error", *STATE)
    return pa.schema([(name, {**texts, **numbers}[name]) for name in order])


def write_part(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema()), sink)
    write_atomically(path, sink.getvalue().to_pybytes())
