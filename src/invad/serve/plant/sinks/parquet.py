"""Results as Parquet files: gathered in the outbox, then written whole under one name."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from invad.serve.delivery import Sink
from invad.serve.plant.outputs import ParquetOutput
from invad.serve.plant.sinks.files import days, problem, put, reaching, require
from invad.serve.plant.sinks.rows import COLUMNS, REGION, values
from invad.serve.records import Result, milliseconds
from invad.system.packages import importing

PIXELS = ("x", "y", "width", "height", "area")
"""Of a region, what is counted."""


class ParquetFiles(Sink):
    """The files DATE/STATION-ID.parquet of a folder; ID is that of the first result.

    A file that was written, and not noted because of a kill, is written again with the same first result and
    perhaps more, under the same name; so no row is there twice.
    """

    kind = "parquet"

    def __init__(self, output: ParquetOutput, station: str):
        """Raises ConfigError where the package is missing."""
        with importing(("pyarrow",), "tables", "Parquet"):
            import pyarrow.parquet  # noqa: F401
        self.folder, self.station, self.every = Path(output.path), station, output.every
        self.place, self.at_a_time = output.path, output.rows
        self._since: float | None = None

    def takes_now(self, waiting: int) -> bool:
        now = time.monotonic()
        if self._since is None:
            self._since = now
        return waiting >= self.at_a_time or now - self._since >= self.every

    def deliver(self, results: Sequence[Result]) -> Iterator[str]:
        for day, some in days(results):
            path = self.folder / day / f"{self.station}-{some[0].id}.parquet"
            content = table(some)
            with reaching(self.folder):
                path.parent.mkdir(exist_ok=True)
                put(path, content)
            yield from (one.id for one in some)
        self._since = None

    def idle(self) -> None:
        require(self.folder)

    def problems(self) -> Iterator[str]:
        if (wrong := problem(self.folder)) is not None:
            yield wrong


def table(results: Sequence[Result]) -> bytes:
    """A Parquet file with a row for each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    of_region = [(name, pa.int32() if name in PIXELS else pa.float64()) for name in REGION]
    types: dict[str, Any] = {
        "text": pa.string(),
        "time": pa.timestamp("ms", tz="UTC"),
        "number": pa.float64(),
        "count": pa.int32(),
        "flag": pa.bool_(),
        "regions": pa.list_(pa.struct(of_region)),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    rows = [{**values(one), "time": milliseconds(one.time)} for one in results]
    columns = [pa.array([row[name] for row in rows], schema.field(name).type) for name in COLUMNS]
    stream = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), stream, compression="zstd")
    return bytes(stream.getvalue())
