"""Options that several verbs share, worded once.

An option without a heading is one of those that people use first; help shows the others below, by heading.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from invad.cli.voice import STANDARD_OUTPUT
from invad.data.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from invad.errors import ConfigError
from invad.scoring.rates import Rates
from invad.system.files import is_file, is_folder

IMAGES, FEATURES, SPEED, SERVICE = "Images", "Features", "Speed and memory", "Service"
VIDEO = "Video"
PARTS = "Several pictures of a part"
DEFECTS = "Defects"
"""Headings of the options that are used less."""

# What the shell completes. A test holds them to the tables they name, which take seconds to import.
PRESET_NAMES = ("standard", "fast", "accurate", "dit", "paper", "paper-m", "paper-m-standardised", "paper-s")
BACKBONES = (
    *(
        "invad-s",
        "efficientnet-lite0",
        "efficientnet-lite1",
        "efficientnet-lite2",
        "resnet50",
        "wide_resnet50_2",
        "efficientnet_b4",
        "mobilenetv3_large_100",
    ),
    *("vit_small_patch14_dinov2", "vit_base_patch14_reg4_dinov2"),
)
LAYOUTS = (
    *("auto", "visa", "real_iad", "bmad", "kolektor_sdd", "kolektor_sdd2", "btad", "mpdd", "mvtec"),
    *("manifest", "meta", "folder"),
)
KNOWN_SETS = ("mvtec", "visa", "mpdd", "btad", "real_iad", "bmad", "kolektor_sdd", "kolektor_sdd2")
DEFINITIONS = ("exact", "adeval", "ader200", "official")
STUDIES = ("steps", "schedule", "scoring", "reconstruction", "backbone", "grid", "denoiser")
TRACKERS = ("tensorboard", "mlflow", "wandb")
ENGINES = ("auto", "onnxruntime", "openvino", "torch")
FORMATS = ("onnx", "openvino", "torch")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
EXPORT_LAYOUTS = ("bundle", "triton")
TRAINING_PRECISIONS = ("fp32", "bf16")
DEVICES = ("cpu", "cuda")


def one_of(*names: str) -> Callable[[str], list[str]]:
    """Completion by these names; in a list `a,b` of its last one."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names if name.startswith(last)]

    return complete


WRITTEN = "invad.written"
"""Where the context of a command keeps the files that it will write, by parameter."""


def written_file(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Refuse a file that could only fail to be written after the long work."""
    if value is not None and str(value) != STANDARD_OUTPUT:
        path = Path(value)
        if not is_folder(path.absolute().parent):
            raise typer.BadParameter(f"no folder {path.parent} to write {path.name} in; make it first")
        if is_folder(path):
            raise typer.BadParameter(f"{path} is a folder; name a file")
        context.meta.setdefault(WRITTEN, {})[parameter.name] = path
    return value


def spare_inputs(context: typer.Context) -> None:
    """Refuse to write over what a command reads. Raises ConfigError.

    A file that is named as an input, and any image or video: where a shell spreads `--csv *.png`, the first
    picture is taken for the file to write.
    """
    written: dict[str, Path] = context.meta.get(WRITTEN, {})
    arguments = {one.name for one in context.command.params if one.param_type_name == "argument"}
    read = [
        Path(one)
        for name, value in context.params.items()
        if name not in written
        for one in (value if isinstance(value, list | tuple) else [value])
        if isinstance(one, Path) or (name in arguments and isinstance(one, str))
    ]
    for name, path in written.items():
        if not is_file(path):
            continue
        option = f"--{name.replace('_', '-')} {path}"
        if any(is_file(one) and path.samefile(one) for one in read):
            raise ConfigError(f"{option}: is read by this command, too; give it another file")
        # A contact sheet is a picture, and may be drawn again.
        is_given = name != "sheet" or any(one.resolve() in path.resolve().parents for one in read)
        if is_given and path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
            raise ConfigError(f"{option}: is a picture that is there already; give it another file")


JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE",
        callback=written_file,
        help="Write the result as JSON to this file; - is standard output, which then carries nothing else.",
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=SPEED,
        autocompletion=one_of(*TRAINING_PRECISIONS),
        help="fp32 or bf16. Default: bf16 on a GPU, fp32 on a CPU.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=one_of(*DEVICES),
        help="cpu, cuda or cuda:1. Default: a CUDA GPU when there is one.",
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        rich_help_panel=IMAGES,
        help="Fail on the first unreadable image instead of skipping it.",
    ),
]
CategoriesOption = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Only these categories of the folder, separated by commas."),
]
LayoutOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=IMAGES,
        autocompletion=one_of(*LAYOUTS),
        help="How the images lie on disk: auto finds out; mvtec, visa, real_iad, ... see docs/datasets.md.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=IMAGES,
        help="Which split of a layout that has several, such as 2cls_fewshot of visa. Default: its first.",
    ),
]
GroupByOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        rich_help_panel=IMAGES,
        help="What images of one part, patient or lot share: folder, column:NAME of a manifest, or a regular "
        "expression on the path, such as 'part_(\\d+)'. Default: found by likeness.",
    ),
]
PartsOption = Annotated[
    str | None,
    typer.Option(
        "--parts",
        metavar="HOW",
        rich_help_panel=PARTS,
        help="Judge parts by several pictures: names for part017_light1.png, a regular expression on the "
        "path with the groups part and member, views (Real-IAD), or pages of TIFF and DICOM files (pages:Z, "
        "pages:T also take depth, time). Default: each image by itself.",
    ),
]
RuleOption = Annotated[
    str | None,
    typer.Option(
        "--parts",
        metavar="HOW",
        rich_help_panel=PARTS,
        help="How files become pictures of parts, where they are named otherwise than in training: as for "
        "'invad train --parts'. Default: as in training.",
    ),
]
FusionOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=PARTS,
        autocompletion=one_of("scores", "cells"),
        help="How pictures become one score: scores takes the highest of the pictures, cells the highest of "
        "each place, for pictures of one frame.",
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=one_of(*PRESET_NAMES),
        help="standard, fast (a fifth of the time), accurate (small defects), dit (for a GPU) or paper.",
    ),
]
BackboneOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=FEATURES,
        autocompletion=one_of(*BACKBONES),
        help="Feature network, or several as A,B, see 'invad backbones list'. Default: the preset's.",
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=FEATURES,
        help="Weights of the backbone from a file instead of the hub.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Training steps. Default: the preset's, by the number of images."),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
SeedsOption = Annotated[
    str,
    typer.Option(metavar="0,1,2", help="Seeds; the tables give the mean, of several with its spread."),
]
REVIEW_HELP = "Share of good images that may be sent to review or called bad."
BAD_HELP = "Share of good images that may be called bad."
DEFAULT_RATES = Rates()
ReviewRateOption = Annotated[float, typer.Option(help=REVIEW_HELP)]
FalseAlarmRateOption = Annotated[float, typer.Option(help=BAD_HELP)]
BundleArgument = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="Folder written by 'invad train' or 'invad export'."),
]
EngineOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=one_of(*ENGINES),
        help="What runs an exported bundle: onnxruntime, openvino, torch, or auto, the first installed one.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1, rich_help_panel=SPEED, help="CPU threads. Default: the engine's choice, mostly all cores."
    ),
]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder written by 'invad train'.")]
DefectsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=DEFECTS,
        callback=written_file,
        help="Write a table of the defects, with place, length, width and area: .csv, .json, .parquet or "
        ".html by the ending.",
    ),
]
LotReportOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=DEFECTS,
        callback=written_file,
        help="Write a report of the lot as one HTML page: operating point, scores over the lot, where "
        "defects lie, their table, the least typical parts.",
    ),
]
SizesOption = Annotated[
    bool,
    typer.Option(
        "--sizes",
        rich_help_panel=DEFECTS,
        help="Also draw defects of known size on the good images, so that tables of defects tell the "
        "size of a defect, with a 95 % bound, and not that of its place in the heat map.",
    ),
]
ScaleOption = Annotated[
    str | None,
    typer.Option(
        metavar="LENGTH",
        rich_help_panel=DEFECTS,
        help="Length of a pixel on the part, such as 0.05mm, or two for x and y, such as 0.05mm,0.06mm.",
    ),
]
MinAreaOption = Annotated[
    float | None,
    typer.Option(
        metavar="PIXELS",
        rich_help_panel=DEFECTS,
        help="Area below which a part of the map is no defect, in pixels of the images. Decisions change "
        "with it, by limits of the same rule from the model's held-out images. 'invad calibrate' keeps it.",
    ),
]
HomographyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=DEFECTS,
        help="JSON with four or more points as 'pixels' and as 'mm', of a part seen at an angle.",
    ),
]


def split_names(text: str | None) -> tuple[str, ...] | None:
    """`a, b` as ("a", "b"); None stays None."""
    if text is None:
        return None
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def seed_numbers(text: str) -> tuple[int, ...]:
    """`0,1` as (0, 1). Raises ConfigError for anything but whole numbers."""
    try:
        return tuple(int(part) for part in split_names(text) or ())
    except ValueError:
        raise ConfigError(f"--seeds {text}: give whole numbers separated by commas, such as 0,1,2") from None
