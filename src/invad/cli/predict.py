"""invad predict"""

import csv as csv_format
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invad.cli.archive import score
from invad.cli.options import (
    BundleArgument,
    DeviceOption,
    JsonOption,
    StrictOption,
    ThreadsOption,
    written_file,
)
from invad.cli.progress import observing
from invad.cli.voice import Voice
from invad.detector.opening import AUTO, open_detector
from invad.errors import ConfigError, DataError

if TYPE_CHECKING:
    from invad.detector.opening import AnyDetector
    from invad.records import Prediction

FOUND_BAD = 3
RAY = "ray"
FIELDS = ("path", "score", "p_value", "decision", "error")


class FailOn(str, Enum):
    """From which decision on the exit status is 3."""

    bad = "bad"
    review = "review"


FAILING = {FailOn.bad: ("bad",), FailOn.review: ("review", "bad")}


def predict(
    model: BundleArgument,
    path: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Images, or folders, taken with all their sub-folders. With --engine ray one folder, list "
            "of images (CSV, Parquet, text) or URL such as s3://bucket/prefix.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write every image with its heat map and verdict as PNG into DIR; with --engine ray the "
            "rows, as Parquet. Repeat that command to continue an interrupted one.",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=written_file, help="Write the rows as CSV."),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(help="Judge by this category's limits. Default: the limits over all categories."),
    ] = None,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(help="Exit with status 3 when an image is bad (or, with review, is not good)."),
    ] = None,
    strict: StrictOption = False,
    batch: Annotated[
        int,
        typer.Option(min=1, help="Images at a time in the network: pays on a GPU, changes the last digits."),
    ] = 1,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Threads that decode images ahead of the network, by default 2. With --engine ray, "
            "processes, by default one for each CPU.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="onnxruntime, openvino or torch for an exported bundle, by default the first installed one; "
            "ray scores an archive on Ray Data, on this machine or a cluster.",
        ),
    ] = AUTO,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Score images: good, review or bad, with a p-value and a heat map.

    The p-value is the share of good images expected to look at least this unusual. An unreadable image gets a
    row that says why, and the rest goes on.
    """
    voice = Voice(json)
    if engine == RAY:
        if csv is not None or strict:
            raise ConfigError("--csv and --strict do not go with --engine ray; its rows are Parquet")
        decisions = score(voice, model, path, output, category, workers, device)
        if fail_on is not None and any(decisions[name] for name in FAILING[fail_on]):
            raise typer.Exit(FOUND_BAD)
        return
    images = list(expand([Path(name) for name in path], output))
    with observing(voice.err) as observer:
        detector = open_detector(model, engine, device, threads)
        _require_known(detector, category, model)
        if output is not None:
            _make(output)
        observer.stage("images", len(images))
        names = overlay_names(images)
        rows: list[dict[str, Any]] = []
        paths = [image for image, _ in images]
        decoders = 2 if workers is None else workers
        made = detector.predict_many(paths, category=category, batch=batch, workers=decoders, strict=strict)
        for image, name, found in zip(paths, names, made, strict=True):
            rows.append(_row(image, found))
            if output is not None and not isinstance(found, DataError):
                _save(detector, output / name, image, found)
            observer.advance()
    voice.say(*(_line(row) for row in rows))
    unreadable = [row for row in rows if "error" in row]
    voice.say(_total(rows))
    if csv is not None:
        _write_csv(csv, rows)
    voice.hand_over({"model": str(model), "content_hash": detector.content_hash, "images": rows})
    if len(unreadable) == len(rows):
        raise DataError(f"none of {len(rows)} images could be read; the first: {rows[0]['error']}")
    if fail_on is not None and any(row.get("decision") in FAILING[fail_on] for row in rows):
        raise typer.Exit(FOUND_BAD)


def expand(paths: Sequence[Path], output: Path | None) -> Iterator[tuple[Path, Path]]:
    """(image, its path below the folder that was named) of files and folders, without repetition.

    Overlays of an earlier run in `output` are no input. Raises DataError for a folder without images,
    ConfigError when `output` is a folder of the images themselves.
    """
    from invad.data.listing import list_images

    own = output.resolve() if output is not None else None
    seen: set[Path] = set()
    for path in paths:
        found: Iterable[Path] = (path,)
        if path.is_dir():
            root = path.resolve()
            if own is not None and own in (root, *root.parents):
                raise ConfigError(f"--output {output} holds the images of {path}; give it another folder")
            found = [p for p in list_images(path) if own is None or own not in p.resolve().parents]
            if not found:
                raise DataError(f"{path}: no images in it; give images or folders of images")
        for image in found:
            if image.absolute() not in seen:
                seen.add(image.absolute())
                yield image, image.relative_to(path) if path.is_dir() else Path(image.name)


def overlay_names(images: Sequence[tuple[Path, Path]]) -> list[str]:
    """A name for each overlay: `sub/007.png` becomes `sub_007_overlay.png`, numbered where names meet."""
    taken: set[str] = set()
    names = []
    for _, below in images:
        stem = "_".join(below.with_suffix("").parts)
        name, number = f"{stem}_overlay.png", 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}_overlay.png"
        taken.add(name.casefold())
        names.append(name)
    return names


def _row(image: Path, found: "Prediction | DataError") -> dict[str, Any]:
    if isinstance(found, DataError):
        return {"path": str(image), "score": None, "p_value": None, "decision": None, "error": str(found)}
    return {
        "path": str(image),
        "score": found.score,
        "p_value": found.p_value,
        "decision": found.decision,
    }


def _save(detector: "AnyDetector", target: Path, image: Path, prediction: "Prediction") -> None:
    from invad.data.images import read_image
    from invad.report import save_overlay
    from invad.scoring.calibration import for_category

    save_overlay(
        target,
        read_image(image),
        prediction.anomaly_map,
        for_category(detector.calibrations, prediction.category).map_limits(),
        decision=prediction.decision,
        score=prediction.score,
        p_value=prediction.p_value,
    )


def _require_known(detector: "AnyDetector", category: str | None, model: Path) -> None:
    known = sorted(filter(None, detector.calibrations))
    if category is not None and category not in known:
        raise ConfigError(f"{model}: no category {category!r}; choose from {', '.join(known)}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be made ({error.strerror}); give --output another folder"
        ) from None


def _line(row: Mapping[str, Any]) -> str:
    if "error" in row:
        return f"unreadable  {row['error']}"
    return f"{row['decision']:<10}  p {row['p_value']:<8.2g}  score {row['score']:<9.4g}  {row['path']}"


def _total(rows: Sequence[Mapping[str, Any]]) -> str:
    counts = {name: sum(row["decision"] == name for row in rows) for name in ("good", "review", "bad")}
    unreadable = sum("error" in row for row in rows)
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    noun = "image" if len(rows) == 1 else "images"
    return f"{len(rows)} {noun}: {said}" + (f", {unreadable} unreadable" if unreadable else "")


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from invad.data.files import write_atomically

    text = io.StringIO(newline="")
    writer = csv_format.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode("utf-8", "replace"))
