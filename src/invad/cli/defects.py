"""--defects of predict and evaluate: what stands out of each map, as a table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invad.cli.rows import Form, Row, RowFile, csv_line, json_form
from invad.errors import ConfigError
from invad.system.files import write_atomically

if TYPE_CHECKING:
    from invad.detector.opening import AnyDetector
    from invad.runtime.predictor import Pixels
    from invad.scoring.defects import Defect
    from invad.scoring.scale import Scale

ENDINGS = (".csv", ".json", ".parquet", ".html")
TEXTS = ("part", "member", "path", "decision", "size_of", "error")
COUNTS = ("frame", "defects", "defect", "x", "y", "width", "height")


def scale_of(text: str | None, homography: Path | None) -> "Scale | None":
    """What --scale or --homography says. Raises ConfigError or DataError of one line."""
    if text is not None and homography is not None:
        raise ConfigError("--scale and --homography both say how large a pixel is; give one of them")
    if text is None and homography is None:
        return None
    from invad.scoring.scale import Scale

    if text is not None:
        try:
            return Scale.parse(text)
        except ConfigError as error:
            raise ConfigError(f"--{error}") from None
    assert homography is not None
    return Scale.read(homography)


def take_min_area(detector: "AnyDetector", area: float | None) -> None:
    """Let a model call images by --min-area. Raises ConfigError for what has no limits to make anew."""
    if area is None:
        return
    calibrate = getattr(detector, "calibrate", None)  # a bundle, which may be without PyTorch, has none
    if calibrate is None:
        raise ConfigError(
            "--min-area sets limits anew, which needs a trained model; a bundle has that of its model: "
            "'invad calibrate MODEL --min-area PIXELS', then export again"
        )
    known = detector.content_hash
    calibrate(min_area=area)
    detector.content_hash = known  # rows name the folder that they come from


class DefectTable:
    """The file of --defects and what is measured for it."""

    def __init__(
        self,
        path: Path,
        scale: "Scale | None",
        head: Mapping[str, Any],
        videos: bool,
        of_parts: bool = False,
    ):
        """head: of the JSON, and the facts of the page. videos: rows have frame and time, too. of_parts: they
        are of parts of several pictures. Raises ConfigError for an ending that is not known or needs a
        package that is missing."""
        ending = path.suffix.lower()
        if ending not in ENDINGS:
            raise ConfigError(f"--defects {path}: end the name in .csv, .json, .parquet or .html")
        self.path, self.ending, self.scale, self.head = path, ending, scale, head
        self.pictures: dict[int, Any] = {}  # by the id of a list of defects, which `Gathered` keeps
        self.of_parts = of_parts
        where = ("path", "frame", "time") if videos else ("path",)
        where = ("part", "member", *where) if of_parts else where
        from invad.scoring.defects import IN_MM, IN_PIXELS

        self.sizes = IN_PIXELS if scale is None else (*IN_PIXELS, *IN_MM)
        self.columns = (*where, "decision", "defects", *self.sizes, "error")
        if ending == ".parquet":
            from invad.data.lists import arrow

            arrow()
        if ending == ".html":
            from invad.report.rendering import environment

            environment()

    def row(self, found: "Sequence[Defect]", read: "Callable[[], Pixels]") -> dict[str, Any]:
        """What the row of an image says of its defects. read: the pixels, when they are to be shown."""
        plain = map(asdict, found)
        row = {"defects": [{name: one[name] for name in self.sizes} for one in plain]}
        if found and self.ending == ".html":
            from invad.report.defects import MOST_PICTURES, shown

            if len(self.pictures) < MOST_PICTURES:
                self.pictures[id(row["defects"])] = shown(read())
        return row

    def file(self) -> RowFile:
        """Where the rows go, once they can be written. Raises DataError."""
        if self.ending == ".csv":
            return RowFile(str(self.path), self._csv())
        if self.ending == ".json":
            return RowFile(str(self.path), json_form(self.head, rows="parts" if self.of_parts else "images"))
        return Gathered(self)

    def _csv(self) -> Form:
        return Form(
            row=lambda row: "".join(
                csv_line([line.get(name) for name in self.columns])
                for picture in pictures_of(row)
                for line in lines(picture)
            ),
            start=csv_line(self.columns),
            end=lambda whole: "",
        )

    def content(self, rows: Sequence[Row], whole: bool) -> bytes:
        """All of the file at once, of Parquet or HTML."""
        rows = [picture for row in rows for picture in pictures_of(row)]
        if self.ending == ".parquet":
            return self._parquet(rows)
        from invad.report.defects import defects_page

        facts = {
            **{name.replace("_", " "): str(value) for name, value in self.head.items()},
            "defect": "a connected place of the heat map above its review limit",
            "size of a pixel": "not given: sizes are in pixels"
            if self.scale is None
            else _in_words(self.scale),
        }
        notes = [] if whole else ["The run ended early: this page holds what was judged until then."]
        in_mm = self.scale is not None
        pictures = {
            number: self.pictures[id(row["defects"])]
            for number, row in enumerate(rows)
            if id(row.get("defects")) in self.pictures
        }
        return defects_page(rows, pictures, facts=facts, in_mm=in_mm, notes=notes).encode("utf-8", "replace")

    def _parquet(self, rows: Sequence[Row]) -> bytes:
        from invad.data.lists import arrow

        pa = arrow()
        kinds = {name: pa.string() for name in TEXTS} | dict.fromkeys(COUNTS, pa.int64())
        schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in self.columns])
        told = [
            {**line, "path": line["path"].encode("utf-8", "surrogateescape").decode("utf-8", "replace")}
            for row in rows
            for line in lines(row)
        ]
        stream = pa.BufferOutputStream()
        pa.parquet.write_table(pa.Table.from_pylist(told, schema=schema), stream)
        return bytes(stream.getvalue())


class Gathered(RowFile):
    """Rows of a file that can only be written whole."""

    def __init__(self, table: DefectTable):
        self.table, self.target, self.rows = table, str(table.path), 0
        self.kept: list[Row] = []

    def add(self, row: Row) -> None:
        self.kept.append(row)
        self.rows += 1

    def close(self, whole: bool) -> None:
        if self.rows:
            write_atomically(self.table.path, self.table.content(self.kept, whole))


def pictures_of(row: Row) -> Iterator[Row]:
    """The row of an image, or of a part of several pictures one for each, with the decision on the part."""
    if "part" not in row:
        yield row
        return
    named = {"part": row["part"], "path": row["part"], "decision": row["decision"]}
    for member, one in row.get("members", {}).items():
        yield {**named, "member": member, "path": one["path"], "defects": one["defects"]}
    if not row.get("members"):
        yield {**named, "error": row.get("error") or row["reason"]}


def lines(row: Row) -> Iterator[dict[str, Any]]:
    """A line for each defect of a row; one of an image that has none, or that nobody could judge."""
    found: Sequence[Row] | None = row.get("defects")
    named = {**row, "defects": None if found is None else len(found)}
    none: tuple[Row, ...] = ({},)
    yield from ({**named, **one} for one in found or none)


def _in_words(scale: "Scale") -> str:
    along, down, depth = scale.matrix
    if (along[1], down[0], depth[0], depth[1]) == (0, 0, 0, 0):
        return f"{along[0] / depth[2]:g} mm along x, {down[1] / depth[2]:g} mm along y"
    return "by a homography, which differs from place to place"
