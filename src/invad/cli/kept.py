"""What is asked of the data folder of a service, which may be running: keys, what people said."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from invad.cli.options import JsonOption, split_names
from invad.cli.serve import DatabaseOption, DataOption, PicturesOption, require_installed
from invad.cli.voice import Voice


def key(
    data: DataOption,
    scopes: Annotated[
        str, typer.Option(metavar="A,B", help="What it may do: infer, read, review, admin.")
    ] = "infer,read",
    stations: Annotated[
        str | None, typer.Option(metavar="A,B", help="Where it is good. Default: everywhere.")
    ] = None,
    name: Annotated[str, typer.Option(help="Whose it is.")] = "command line",
    database: DatabaseOption = None,
    json: JsonOption = None,
) -> None:
    """Make a key for a service, which may be running, and print its secret this once."""
    voice = Voice(json)
    require_installed()
    from invad.serve.store.backup import make_key

    secret = make_key(data, database, name, split_names(scopes) or (), split_names(stations))
    voice.say(secret)
    voice.hand_over({"key": secret})


def verdicts(
    data: DataOption,
    output: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for images and masks.")],
    station: Annotated[str | None, typer.Option(help="Of this station alone. Default: of all.")] = None,
    database: DatabaseOption = None,
    pictures: PicturesOption = None,
    json: JsonOption = None,
) -> None:
    """Write what people said of parts as a data set in the layout of MVTec AD, for 'invad evaluate'.

    The service may be running. Judged parts become test images, painted masks ground truth; good parts
    without a verdict fill train/good. What cannot be written is named.
    """
    voice = Voice(json)
    require_installed()
    from invad.serve.store.judged import export

    written = export(data, database, output, station, pictures)
    voice.warn(*written.left_out)
    if written.without_masks:
        count = len(written.without_masks)
        voice.warn(f"{count} bad parts have no mask and count as whole images alone")
    voice.say(f"{output}: {written.good} good and {written.bad} bad parts, {written.masks} masks")
    if written.parts is not None:
        voice.say(f"Pictures of one part are read by --parts {shlex.quote(written.parts)}")
    voice.hand_over({**asdict(written), "output": str(output)})
