"""invad data: look at data sets, check them, and write them down as a list."""

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from invad.cli.options import KNOWN_SETS, JsonOption, LayoutOption, SplitOption, one_of, written_file
from invad.cli.progress import observing
from invad.cli.voice import Voice

FAILED = 1
SHOWN = 20
"""Problems said on the terminal; `--json` holds all."""

RootArgument = Annotated[
    Path,
    typer.Argument(metavar="ROOT", help="Folder of a data set, or a list of images (CSV, Parquet, JSON)."),
]


class Form(str, Enum):
    """How a set is written down."""

    manifest = "manifest"
    meta = "meta"


def check(
    root: RootArgument,
    layout: LayoutOption = "auto",
    split: SplitOption = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=written_file, help="Draw a contact sheet: .png or .html."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Open every image and mask of a data set and say what is wrong; exit status 1 if anything is."""
    voice = Voice(json)
    from invad.data.check import check_dataset

    with observing(voice.err) as observer:
        report = check_dataset(
            root, layout=layout, split=split, stage=observer.stage, advance=observer.advance
        )
    voice.say(f"{root}: layout {report.layout}, {len(report.counts)} categories")
    voice.table(_table(report.counts))
    voice.say(*(f"note: {note}" for note in report.notes))
    voice.say(*(f"problem: {problem}" for problem in report.problems[:SHOWN]))
    if len(report.problems) > SHOWN:
        voice.say(f"... and {len(report.problems) - SHOWN} more; --json FILE lists all")
    voice.say(f"{len(report.problems)} problems" if report.problems else "Nothing is wrong.")
    drawn = None
    if sheet is not None and voice.attempt(lambda: _draw(sheet, root, report.layout, split)):
        drawn = str(sheet)
        voice.say(f"Contact sheet: {sheet}")
    voice.hand_over({**asdict(report), "root": str(root), "sheet": drawn})
    if report.problems:
        raise typer.Exit(FAILED)


def _draw(sheet: Path, root: Path, layout: str, split: str | None) -> None:
    from invad.data.datasets import read_dataset
    from invad.report.sheet import write_sheet

    write_sheet(read_dataset(root, layout=layout, split=split), sheet)


def list_sets(json: JsonOption = None) -> None:
    """List the public data sets that invad reads: images, licence, where to get them, expected folders."""
    voice = Voice(json)
    from invad.data.known import KNOWN

    for name, known in KNOWN.items():
        total = known.total
        bad = "" if total.defective is None else f" ({total.defective:,} defective)"
        voice.say(
            f"{name}: {known.title}, {len(known.categories)} categories, {total.train:,} training and "
            f"{total.test:,} test images{bad}",
            f"  licence  {known.licence}",
            f"  get it   {known.source}",
            f"  folders  {known.tree}",
        )
    voice.hand_over({"datasets": {name: asdict(known) for name, known in KNOWN.items()}})


def verify(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", autocompletion=one_of(*KNOWN_SETS), help="A name from 'invad data list'."
        ),
    ],
    root: RootArgument,
    json: JsonOption = None,
) -> None:
    """Compare a download with the published numbers of images; exit status 1 if they differ."""
    voice = Voice(json)
    from invad.data.check import count
    from invad.data.datasets import load_dataset
    from invad.data.known import verify as compare

    dataset = load_dataset(root)
    differences = compare(name, dataset)
    voice.say(*differences)
    voice.say(f"{len(differences)} differences" if differences else f"{root}: complete, as published")
    voice.hand_over({"name": name, "root": str(root), "differences": differences, "counts": count(dataset)})
    if differences:
        raise typer.Exit(FAILED)


def convert(
    root: RootArgument,
    output: Annotated[
        Path,
        typer.Option(metavar="FILE", callback=written_file, help="List to write; .csv, .parquet or .json."),
    ],
    to: Annotated[
        Form | None,
        typer.Option(help="manifest (table) or meta (meta.json). Default: by the ending of FILE."),
    ] = None,
    layout: LayoutOption = "auto",
    split: SplitOption = None,
    json: JsonOption = None,
) -> None:
    """Write a data set down as a list of files, a table or meta.json; the images stay where they are."""
    voice = Voice(json)
    from invad.data.datasets import load_dataset, not_taken
    from invad.data.layouts.manifest import write_manifest
    from invad.data.layouts.meta import write_meta

    dataset = load_dataset(root, layout=layout, split=split)
    dataset.sound_test()
    voice.warn(*not_taken(dataset))
    form = to or (Form.meta if output.suffix.lower() == ".json" else Form.manifest)
    (write_meta if form is Form.meta else write_manifest)(dataset, output)
    number = len(dataset.train) + len(dataset.test) + len(dataset.left_out)
    voice.say(f"{output}: {number} images of layout {dataset.layout}")
    result: dict[str, Any] = {"root": str(root), "output": str(output), "form": form.value, "images": number}
    voice.hand_over({**result, "layout": dataset.layout})


def _table(counts: dict[str, dict[str, int]]) -> list[list[str]]:
    columns = ("train", "test_good", "test_defective", "masks")
    body = [[name, *(str(row[c]) for c in columns)] for name, row in counts.items()]
    return [["", *(c.replace("_", " ") for c in columns)], *body]
