"""invad labels: predictions to tools where people mark defects, and what they marked back."""

from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invad.cli.options import JsonOption, written_file
from invad.cli.voice import Voice
from invad.errors import ConfigError, DataError
from invad.system.files import write_atomically

if TYPE_CHECKING:
    from invad.data.annotated import Written
    from invad.records import Prediction


class Shape(str, Enum):
    """How a region is drawn in Label Studio."""

    brush = "brush"
    box = "box"


MapsArgument = Annotated[
    Path, typer.Argument(metavar="MAPS", help="Folder written by 'invad predict MODEL IMAGES --maps MAPS'.")
]
OutputFileOption = Annotated[
    Path, typer.Option(metavar="FILE", callback=written_file, help="The JSON file to write.")
]
OutputFolderOption = Annotated[
    Path, typer.Option(metavar="DIR", help="A new folder for masks and the list manifest.csv.")
]
BelowOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Name images by their path below this folder. Default: as they were given."
    ),
]
ImagesOption = Annotated[Path, typer.Option(metavar="DIR", help="Folder below which the images lie.")]
CategoryOption = Annotated[
    str | None, typer.Option(help="Category of the images. Default: the name of their folder.")
]


def to_coco(
    maps: MapsArgument,
    output: OutputFileOption,
    images: BelowOption = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=written_file, help="Write a COCO results file, too."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Write predictions as a COCO data set: every image, and each region above the review limit as a mask."""
    from invad.integrations import coco

    voice = Voice(json)
    found = _Found(maps)
    dataset = coco.to_coco(found, found.limit, images)
    _write(output, dataset)
    if results is not None:
        _write(results, coco.to_results(dataset))
    numbers = {"images": len(dataset["images"]), "regions": len(dataset["annotations"])}
    voice.say(f"{output}: {numbers['images']} images, {numbers['regions']} regions")
    voice.hand_over({"output": str(output), **numbers})


def to_label_studio(
    maps: MapsArgument,
    output: OutputFileOption,
    images: BelowOption = None,
    url: Annotated[
        str,
        typer.Option(
            metavar="PREFIX",
            help="What comes before the path in the address of an image, such as https://host/pictures/.",
        ),
    ] = "/data/local-files/?d=",
    shape: Annotated[Shape, typer.Option(help="How regions are drawn.")] = Shape.brush,
    json: JsonOption = None,
) -> None:
    """Write predictions as tasks of Label Studio, to be corrected, and a labelling configuration beside them.

    The configuration takes the name of the file, with the ending .xml; regions show only where its names are.
    """
    from invad.integrations import label_studio

    voice = Voice(json)
    config = output.with_suffix(".xml")
    if config == output:
        raise ConfigError(f"--output {output}: this name is for the configuration; end it in .json")
    found = _Found(maps)
    tasks = list(
        label_studio.to_tasks(
            found,
            found.limit,
            images=images,
            url=url,
            shape=shape.value,
            model_version=found.content_hash or "invad",
        )
    )
    regions = sum(len(task["predictions"][0]["result"]) - 1 for task in tasks)
    _write(output, tasks)
    write_atomically(config, label_studio.CONFIG.encode())
    voice.say(f"{output}: {len(tasks)} tasks, {regions} regions; {config}: the labelling configuration")
    voice.hand_over({"output": str(output), "config": str(config), "tasks": len(tasks), "regions": regions})


def from_coco(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A COCO data set (instances).")],
    images: ImagesOption,
    output: OutputFolderOption,
    category: CategoryOption = None,
    json: JsonOption = None,
) -> None:
    """Write the annotations of a COCO file as a set that 'invad evaluate' and 'invad calibrate' read.

    Images without an annotation are good.
    """
    from invad.integrations import coco

    _tell(Voice(json), output, coco.from_coco(file, images, output, category))


def from_label_studio(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The project, exported as JSON.")],
    images: ImagesOption,
    output: OutputFolderOption,
    category: CategoryOption = None,
    json: JsonOption = None,
) -> None:
    """Write the annotations of Label Studio as a set that 'invad evaluate' and 'invad calibrate' read.

    Tasks that were submitted without a region are good; those that nobody submitted are left out and named.
    """
    from invad.integrations import label_studio

    _tell(Voice(json), output, label_studio.from_label_studio(file, images, output, category))


def _tell(voice: Voice, output: Path, written: "Written") -> None:
    voice.warn(*(f"left out: {line}" for line in written.left_out))
    voice.say(f"{output}: {written.good} good and {written.bad} bad images, {written.masks} masks")
    voice.hand_over({"output": str(output), **asdict(written)})


def _write(path: Path, content: Any) -> None:
    from json import dumps

    write_atomically(path, (dumps(content, allow_nan=False) + "\n").encode())


class _Found:
    """The predictions of a folder of maps, one at a time, and the one limit of all of them."""

    def __init__(self, folder: Path):
        """Raises DataError for a folder without maps."""
        from invad.data.listing import list_images
        from invad.report.maps import read_map

        self.paths = list_images(folder, recursive=False)
        if not self.paths:
            raise DataError(f"{folder}: no maps in it; 'invad predict MODEL IMAGES --maps DIR' writes them")
        first = read_map(self.paths[0])
        self.limits, self.content_hash = first.limits, first.content_hash

    @property
    def limit(self) -> float:
        """Above which a pixel belongs to a region."""
        return self.limits[0]

    def __iter__(self) -> "Iterator[Prediction]":
        from invad.report.maps import read_map

        for path in self.paths:
            one = read_map(path)
            if one.limits != self.limits:
                raise DataError(
                    f"{path}: has other limits than {self.paths[0].name}; keep the maps of each model and "
                    "category in a folder of their own"
                )
            yield one.prediction
