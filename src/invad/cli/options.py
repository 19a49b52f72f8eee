"""Options that several verbs share, worded once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from invad.cli.voice import STANDARD_OUTPUT
from invad.data.files import is_folder


def written_file(value: Any) -> Any:
    """Refuse a file that could only fail to be written after the long work."""
    if value is not None and str(value) != STANDARD_OUTPUT:
        path = Path(value)
        if not is_folder(path.absolute().parent):
            raise typer.BadParameter(f"no folder {path.parent} to write {path.name} in; make it first")
        if is_folder(path):
            raise typer.BadParameter(f"{path} is a folder; name a file")
    return value


JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE",
        callback=written_file,
        help="Write the result as JSON to this file; - is standard output, which then carries nothing else.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="cpu, cuda or cuda:1. Default: a CUDA GPU when there is one."),
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="Fail on the first unreadable image instead of skipping it."),
]
CategoriesOption = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Only these categories of the folder, separated by commas."),
]
LayoutOption = Annotated[
    str,
    typer.Option(
        "--layout",
        metavar="NAME",
        help="How the images lie on disk: auto finds out; mvtec, visa, real_iad, ... see docs/datasets.md.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="NAME",
        help="Which split of a layout that has several, such as 2cls_fewshot of visa. Default: its first.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Training steps. Default: the preset's, by the number of images."),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
REVIEW_HELP = "Share of good images that may be sent to review or called bad"
BAD_HELP = "Share of good images that may be called bad"
BundleArgument = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="Folder written by 'invad train' or 'invad export'."),
]
EngineOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What runs an exported bundle: onnxruntime, openvino, torch, or auto, the first installed one.",
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads. Default: the engine's choice, mostly all cores.")
]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder written by 'invad train'.")]


def split_names(text: str | None) -> tuple[str, ...] | None:
    """`a, b` as ("a", "b"); None stays None."""
    if text is None:
        return None
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)
