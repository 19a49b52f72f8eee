"""invad models: models by name, from an index that somebody keeps."""

from pathlib import Path
from typing import Annotated

import typer

from invad.cli.options import JsonOption, written_file
from invad.cli.progress import observing
from invad.cli.voice import Voice
from invad.errors import ConfigError

IndexArgument = Annotated[
    str,
    typer.Argument(metavar="INDEX", help="File, folder with index.json, or address (http, https) of either."),
]


def listed(index: IndexArgument, json: JsonOption = None) -> None:
    """List the models of an index."""
    from invad.runtime.index import read_index
    from invad.system.plain import to_plain

    voice = Voice(json)
    models = read_index(index).models
    rows = [
        (name, one.content_hash[:12], f"{one.size / 1e6:.1f} MB", one.description, one.licence)
        for name, one in sorted(models.items())
    ]
    if rows:
        voice.table(rows)
    else:
        voice.say(f"{index}: holds no models")
    voice.hand_over({"index": index, "models": {name: to_plain(one) for name, one in models.items()}})


def pull(
    index: IndexArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that 'invad models list' shows.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the model.")],
    json: JsonOption = None,
) -> None:
    """Fetch a model. Every file is checked against the SHA-256 in the index; the folder comes whole or not at
    all."""
    from invad.runtime import index as models

    voice = Voice(json)
    found = models.read_index(index)
    with observing(voice.err) as observer:
        entry = models.pull(found, name, output, observer)
    number = len(entry.files)
    voice.say(
        f"{output}: {name}, {number} files, {entry.size / 1e6:.1f} MB, content hash {entry.content_hash}"
    )
    voice.hand_over({"output": str(output), "name": name, "content_hash": entry.content_hash})


def index(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL", help="Folders of 'invad train' or 'invad export'; their names count."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            metavar="FILE", callback=written_file, help="The index; it and the models move together."
        ),
    ],
    json: JsonOption = None,
) -> None:
    """Write the index of models, with the SHA-256 of every file, to lie with them on a server or a share."""
    from invad.runtime.index import write_index

    voice = Voice(json)
    named = {folder.resolve().name: folder.resolve() for folder in folders}
    if len(named) < len(folders):
        raise ConfigError("two of the folders have the same name, which is that of the model; rename one")
    plain = write_index(named, output.absolute())
    voice.say(f"{output}: {', '.join(named)}")
    voice.hand_over(plain)
