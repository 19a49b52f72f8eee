"""invad serve versions: models of a running service, uploaded, compared, switched and rolled back."""

from pathlib import Path
from typing import Annotated, Any

import typer

from invad.cli.options import JsonOption
from invad.cli.voice import Voice
from invad.errors import ConfigError
from invad.system.packages import require

ServerOption = Annotated[
    str, typer.Option(metavar="URL", help="The service; its key is in the environment variable INVAD_KEY.")
]
StationOption = Annotated[str, typer.Option(metavar="NAME", help="Where.")]
VersionArgument = Annotated[
    str, typer.Argument(metavar="VERSION", help="First digits of a version's hash, see 'list'.")
]
ReasonOption = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Why; it overrules what speaks against it, and is kept.")
]
WhyOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")]
HERE = "http://127.0.0.1:8000"
DEFAULT = "default"
SHOWN = 12
"""Digits of a hash on the screen."""


def listed(server: ServerOption = HERE, json: JsonOption = None) -> None:
    """List all versions of all models, newest first, with what they run at."""
    voice = Voice(json)
    with _client(server) as client:
        found = client.versions()
    for one in found:
        where = ", ".join((*one["stations"], *one["shadows"]))
        told = one["content"].get("created", "")
        voice.say(f"{one['hash'][:SHOWN]}  {one['state']:9}  {one['model']}  {told}  {where}".rstrip())
    voice.hand_over({"versions": found})


def add(
    folder: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder of 'invad export' or 'invad train'.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Of which model it is a version. Default: the folder's name.")
    ] = None,
    server: ServerOption = HERE,
    json: JsonOption = None,
) -> None:
    """Upload a version. The service proves it on its machine; then it is a candidate, and nothing runs it."""
    voice = Voice(json)
    with _client(server) as client:
        made = client.add_version(folder, name)
    proved = made["proved"] or {}
    voice.say(
        f"{made['hash'][:SHOWN]}  {made['state']}  {made['model']}, {proved.get('probes', 0)} probes as made"
    )
    voice.hand_over(made)


def shadow(
    version: VersionArgument,
    station: StationOption = DEFAULT,
    server: ServerOption = HERE,
    json: JsonOption = None,
) -> None:
    """Let a version score the parts of a station, too, after their answers; it decides nothing."""
    voice = Voice(json)
    with _client(server) as client:
        one = _find(client, version)
        made = client.shadow(one["model"], one["hash"], station)
    voice.say(f"{made['hash'][:SHOWN]}  shadows at station {station}")
    voice.hand_over(made)


def compare(station: StationOption = DEFAULT, server: ServerOption = HERE, json: JsonOption = None) -> None:
    """Say how the shadow of a station fares beside the active version, over the same parts."""
    voice = Voice(json)
    with _client(server) as client:
        found = client.comparison(station)
    correlation = found["correlation"]
    ranks = "not known" if correlation is None else f"{correlation:.3f}"
    voice.say(
        f"{found['parts']} parts by both, {found['needed']} are asked; ranks correlate by {ranks}",
        f"flagged: {found['flagged'][0]:.2%} by the active version, {found['flagged'][1]:.2%} by the shadow",
    )
    for change, count in found["flips"].items():
        voice.say(f"{change}: {count} parts")
    voice.hand_over(found)


def activate(
    version: VersionArgument,
    station: StationOption = DEFAULT,
    reason: ReasonOption = None,
    server: ServerOption = HERE,
    json: JsonOption = None,
) -> None:
    """Let a version judge at a station from the next part on."""
    voice = Voice(json)
    with _client(server) as client:
        one = _find(client, version)
        made = client.activate(one["model"], one["hash"], station, reason)
    voice.say(f"{made['hash'][:SHOWN]}  judges at station {station}")
    voice.hand_over(made)


def rollback(
    station: StationOption = DEFAULT,
    reason: ReasonOption = None,
    server: ServerOption = HERE,
    json: JsonOption = None,
) -> None:
    """Let the version judge that did before, by its own limits."""
    voice = Voice(json)
    with _client(server) as client:
        made = client.roll_back(station, reason)
    voice.say(f"{made['hash'][:SHOWN]}  judges at station {station}")
    voice.hand_over(made)


def retire(
    version: VersionArgument,
    reason: WhyOption = None,
    server: ServerOption = HERE,
    json: JsonOption = None,
) -> None:
    """Take a version out of use and delete its files; results go on naming it."""
    voice = Voice(json)
    with _client(server) as client:
        one = _find(client, version)
        made = client.retire(one["model"], one["hash"], reason)
    voice.say(f"{made['hash'][:SHOWN]}  retired")
    voice.hand_over(made)


def _client(server: str) -> Any:
    require(("httpx",), "serve", "the client of a service")
    from invad.serve.client import Client

    return Client(server, patience=0)


def _find(client: Any, version: str) -> dict[str, Any]:
    """The one version whose hash begins so. Raises ConfigError."""
    found = [one for one in client.versions() if one["hash"].startswith(version.lower())]
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} versions begin with {version!r}; 'invad serve versions list' shows them"
        )
    one: dict[str, Any] = found[0]
    return one
