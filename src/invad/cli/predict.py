"""invad predict"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invad.cli.archive import score
from invad.cli.defects import take_min_area
from invad.cli.lot import Measured, Wanted
from invad.cli.options import (
    DEFECTS,
    ENGINES,
    SERVICE,
    SPEED,
    VIDEO,
    BundleArgument,
    DefectsOption,
    DeviceOption,
    HomographyOption,
    JsonOption,
    LotReportOption,
    MinAreaOption,
    RuleOption,
    ScaleOption,
    StrictOption,
    ThreadsOption,
    one_of,
    written_file,
)
from invad.cli.parts import PartRows, require_plain
from invad.cli.pictures import Maps, Overlays, save_all
from invad.cli.progress import observing
from invad.cli.rows import FIELDS, FIELDS_WITH_FRAMES, Rows, csv_form, json_form
from invad.cli.server import part_rows, rule_there
from invad.cli.server import rows as asked
from invad.cli.videos import Footage, Save, event_rule, interval, is_video, said_of
from invad.cli.voice import Voice, standard
from invad.data.formats import IMAGE_SUFFIXES
from invad.data.listing import survey
from invad.detector.opening import AUTO, open_detector
from invad.errors import ConfigError, DataError
from invad.system.files import is_folder

if TYPE_CHECKING:
    from invad.detector.opening import AnyDetector
    from invad.runtime.predictor import Judged

FOUND_BAD = 3
RAY = "ray"


class FailOn(str, Enum):
    """From which decision on the exit status is 3."""

    bad = "bad"
    review = "review"


FAILING: dict[FailOn, tuple[str | None, ...]] = {
    FailOn.bad: ("bad", None),
    FailOn.review: ("review", "bad", None),
}
"""None: an image that nobody could judge is not good."""


def predict(
    model: BundleArgument,
    path: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Images, videos, or folders, whose images are taken with all their sub-folders. With "
            "--engine ray one folder, list of images (CSV, Parquet, text) or URL such as s3://bucket/prefix.",
        ),
    ] = None,
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
        typer.Option(
            metavar="FILE", callback=written_file, help="Write the rows as CSV; - is standard output."
        ),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(help="Judge by this category's limits. Default: the limits over all categories."),
    ] = None,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            help="Exit with status 3 when an image is bad (or, with review, is not good) or cannot be judged."
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=one_of(*ENGINES, RAY),
            help="onnxruntime, openvino or torch for an exported bundle, by default the first installed one; "
            "ray scores an archive on Ray Data, on this machine or a cluster.",
        ),
    ] = AUTO,
    device: DeviceOption = None,
    json: JsonOption = None,
    strict: StrictOption = False,
    parts: RuleOption = None,
    every: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            rich_help_panel=VIDEO,
            help="Time between two frames that are scored, such as 0.2s or 200ms. Default: every frame.",
        ),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            rich_help_panel=VIDEO,
            help="Report an event where K or more of N scored frames in a row are bad. Default: 3/5.",
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=SPEED,
            help="Images at a time in the network: pays on a GPU, changes the last digits.",
        ),
    ] = 1,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            rich_help_panel=SPEED,
            help="Threads that decode images ahead of the network, by default 2. With --engine ray, "
            "processes, by default one for each CPU.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    maps: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=DEFECTS,
            help="Write the heat map of every image with its verdict into DIR, as PNG of 16 bits, for 'invad "
            "labels'.",
        ),
    ] = None,
    report: LotReportOption = None,
    defects: DefectsOption = None,
    scale: ScaleOption = None,
    homography: HomographyOption = None,
    min_area: MinAreaOption = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            rich_help_panel=SERVICE,
            help="Let a service judge and keep the results, see 'invad serve'. No MODEL is given then; the "
            "key is taken from the environment variable INVAD_KEY.",
        ),
    ] = None,
    station: Annotated[
        str, typer.Option(rich_help_panel=SERVICE, help="Station of the service that the images are of.")
    ] = "default",
) -> None:
    """Score images or the frames of videos: good, review or bad, with a p-value and a heat map.

    The p-value is the share of good images expected to look at least this unusual. An unreadable image gets a
    row that says why, and the rest goes on.
    """
    if min_area is not None and (server is not None or engine == RAY):
        raise ConfigError(
            "--min-area does not go with --server and --engine ray; calibrate the model with it"
        )
    if maps is not None and (server is not None or engine == RAY):
        raise ConfigError("--maps does not go with --server and --engine ray, which keep their maps")
    wanted = Wanted(defects, report)
    lengths = wanted.scale(scale, homography, [csv, json], server is not None or engine == RAY)
    voice = Voice(json, csv)
    if server is not None:
        if (output, engine, device, batch, threads) != (None, AUTO, None, 1, None):
            raise ConfigError(
                "--output, --engine, --device, --batch and --threads do not go with --server; it has its own"
            )
        path = [str(model), *(path or ())]
    elif not path:
        raise typer.BadParameter("give images or folders after MODEL")
    if engine == RAY:
        if (csv, strict, every, events, parts) != (None, False, None, None, None):
            raise ConfigError(
                "--csv, --strict, --parts, --every and --events do not go with --engine ray; its rows are of "
                "images, in Parquet"
            )
        _fail_on(fail_on, score(voice, model, path, output, category, workers, device))
        return
    if csv is not None and standard(csv) == standard(json):
        raise ConfigError(f"--csv and --json both write to {csv}; give them two files")
    footage = Footage(None if every is None else interval(every), event_rule(events))
    images = list(expand([Path(name) for name in path], output, voice.warn))
    videos = [image for image, _ in images if is_video(image)]
    if videos and server is not None:
        raise ConfigError(f"{videos[0]}: --server takes images; judge a video with a MODEL of your own")
    if videos and maps is not None:
        raise ConfigError(f"{videos[0]}: --maps takes images; save the frames of the video as images")
    if not videos and (every, events) != (None, None):
        raise ConfigError("--every and --events go with a video, and none of the paths ends like one")
    kind = "image" if not videos else "frame" if len(videos) == len(images) else "images and frame"
    in_parts: PartRows | None = None
    with observing(voice.err) as observer:
        measured: Measured | None = None
        # On a terminal the rows scroll above the bar.
        say = observer.note if voice.out.is_terminal and voice.err.is_terminal else voice.say
        if server is not None:
            head: dict[str, Any] = {"server": server, "station": station}
            there = None if category is not None else rule_there(server, station, parts)
            if there is None:
                made = asked(server, station, [image for image, _ in images], category, workers, strict)
            else:
                in_parts, kind = PartRows(images, *there), "part"
                sent = part_rows(server, station, in_parts.parts, workers, strict)
                made = chain(in_parts.of_none(strict), sent)
        else:
            detector = open_detector(model, engine, device, threads)
            _require_known(detector, category, parts, model)
            take_min_area(detector, min_area)
            savers = [] if output is None else [Overlays(output, detector, voice).save]
            savers += [] if maps is None else [Maps(maps, detector).save]
            head = {"model": str(model), "content_hash": str(detector.content_hash)}
            head |= {} if min_area is None else {"min_area": min_area}
            measured = wanted.measured(detector, category, head, path, lengths, bool(videos))
            save = partial(save_all, savers) if savers else None
            decoders = 2 if workers is None else workers

            def of_files(files: Sequence[tuple[Path, Path]], are_videos: bool) -> Iterator[dict[str, Any]]:
                if not are_videos:
                    return _judged(detector, files, save, category, batch, decoders, strict, measured)
                return footage.rows(detector, files, save, category, batch, strict, say, measured)

            if detector.fusion is not None and category is None:
                require_plain(batch=batch != 1, every=every, events=events)
                rule, members = parts or detector.fusion.rule, detector.fusion.members
                in_parts, kind = PartRows(images, rule, members), "part"
                made = in_parts.rows(detector, save, decoders, strict, measured)
            else:
                groups = groupby(images, key=lambda one: is_video(one[0]))
                made = chain.from_iterable(of_files(list(files), are_videos) for are_videos, files in groups)
        forms = {
            standard(csv): csv_form(FIELDS_WITH_FRAMES if videos else FIELDS),
            standard(json): json_form(head, footage.told if videos else dict),
        }
        total, also = None if videos else len(images), tuple if measured is None else measured.files
        count = len(images) - len(videos)
        if in_parts is not None:
            forms = {standard(csv): in_parts.csv(), standard(json): json_form(head, rows="parts")}
            total = count = len(in_parts)
        rows = Rows(voice, total, forms, say, kind, also)
        observer.stage(f"{kind}s", count + footage.expected(videos))
        try:
            for row in made:
                rows.add(row)
                observer.advance()
            rows.total = rows.counts.total()  # a video tells how many there are at its end
        finally:
            rows.close()
    if voice.failed:
        raise voice.failed[0]
    if rows.counts[None] == rows.total:
        raise DataError(f"none of {rows.total} {kind}s could be read; the first: {rows.first_error}")
    _fail_on(fail_on, rows.counts)


def _judged(
    detector: "AnyDetector",
    images: Sequence[tuple[Path, Path]],
    save: Save | None,
    category: str | None,
    batch: int,
    workers: int,
    strict: bool,
    measured: Measured | None,
) -> Iterator[dict[str, Any]]:
    """The row of each image; its overlay is written when the row has been taken."""
    paths = [image for image, _ in images]
    made = detector.judge_many(paths, category=category, batch=batch, workers=workers, strict=strict)
    for (image, below), found in zip(images, made, strict=True):
        more = {} if measured is None or isinstance(found, DataError) else measured.of(detector, *found)
        yield _row(image, found) | more
        if save is not None and not isinstance(found, DataError):
            save(image, below, *found)


def _fail_on(asked: FailOn | None, counts: Mapping[str | None, int]) -> None:
    if asked is not None and any(counts[decision] for decision in FAILING[asked]):
        raise typer.Exit(FOUND_BAD)


def expand(
    paths: Sequence[Path], output: Path | None, warn: Callable[[str], None] = lambda line: None
) -> Iterator[tuple[Path, Path]]:
    """(file, its path below the folder that was named) of files and of images in folders, without repetition.

    Overlays of an earlier run in `output` are no input. warn: told what was not taken. Raises
    DataError for a folder without images, ConfigError when `output` is a folder of the images themselves.
    """
    own = None if output is None else _real(output)
    seen: set[str] = set()
    for path in paths:
        images: Iterable[Path] = (path,)
        is_root = _is_folder(path)
        if is_root:
            root = _real(path)
            if own is not None and own in (root, *root.parents):
                raise ConfigError(f"--output {output} holds the images of {path}; give it another folder")
            listed = survey(path)
            images = [p for p in listed.images if own is None or own not in _real(p).parents]
            if not images:
                said = "".join(f"; {line}" for line in listed.in_words())
                raise DataError(f"{path}: no images in it{said}; give images or folders of images")
            for line in listed.in_words():
                warn(line)
        for image in images:
            whole = os.fspath(image.absolute())
            if whole not in seen:
                seen.add(whole)
                yield image, image.relative_to(path) if is_root else Path(image.name)


def _is_folder(path: Path) -> bool:
    """An image that cannot be looked at is no folder, and gets a row that says why."""
    try:
        return is_folder(path)
    except DataError:
        if path.suffix.lower() in IMAGE_SUFFIXES or is_video(path):
            return False
        raise


def _real(path: Path) -> Path:
    # Unlike Path.resolve it answers for every path.
    return Path(os.path.realpath(path))


def _row(image: Path, found: "Judged | DataError") -> dict[str, Any]:
    return {"path": str(image), **said_of(found if isinstance(found, DataError) else found[1])}


def _require_known(detector: "AnyDetector", category: str | None, parts: str | None, model: Path) -> None:
    from invad.runtime.parts import rule_of
    from invad.scoring.calibration import known_category

    try:
        known_category(detector.calibrations, category)
        rule_of(detector.fusion, parts)
    except ConfigError as error:
        raise ConfigError(f"{model}: {error}") from None
