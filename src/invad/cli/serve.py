"""invad serve: the service beside the line, and the care of its data folder."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from invad.cli import stateless as without_memory
from invad.cli.options import (
    ENGINES,
    SPEED,
    DeviceOption,
    EngineOption,
    JsonOption,
    ThreadsOption,
)
from invad.cli.voice import Voice
from invad.errors import ConfigError, DataError
from invad.report.wording import counted
from invad.system.packages import require

KEEPING, NETWORK, STATELESS = "What is kept", "Network", "Without a memory"
NEEDED = (
    *("fastapi", "uvicorn", "python-multipart", "sqlalchemy", "alembic", "prometheus-client", "httpx"),
    *("jinja2", *(["tomli"] if sys.version_info < (3, 11) else [])),
)
SECRET_VARIABLE = "INVAD_WEBHOOK_SECRET"
DEFAULT_VERB = "run"


class Serving(TyperGroup):
    """`invad serve MODEL` is `invad serve run MODEL`."""

    default_verb = DEFAULT_VERB

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [DEFAULT_VERB, *args]
        return list(super().parse_args(ctx, args))


DataOption = Annotated[
    Path,
    typer.Option(
        "--data", metavar="DIR", help="Folder of the service: its database, images and maps. Made if need be."
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        rich_help_panel=KEEPING,
        help="PostgreSQL in place of a file in the data folder: postgresql+psycopg://USER@HOST/NAME.",
    ),
]
PicturesOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        rich_help_panel=KEEPING,
        help="Images and maps there in place of the data folder: s3://BUCKET/PREFIX, file:///FOLDER.",
    ),
]


def run(
    context: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL|LINE.toml",
            help="Folder of 'invad train' or 'invad export', or a file of stations, see 'invad serve init'.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the service: its database, images and maps. Made if need be; asked for without "
            "--stateless.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is all of the machine's.")
    ] = "127.0.0.1",
    no_auth: Annotated[
        bool,
        typer.Option(
            "--no-auth",
            help="For trials: no keys, and requests of this machine alone; with --stateless of everybody.",
        ),
    ] = False,
    stateless: Annotated[
        bool,
        typer.Option(
            "--stateless",
            rich_help_panel=STATELESS,
            help="Keep nothing: a runtime for KServe with the Open Inference Protocol alone.",
        ),
    ] = False,
    model_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=STATELESS,
            help="What the model is asked for by. Default: the name of its folder.",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=STATELESS,
            help="Keys that may infer, one a line; read again when it changes.",
        ),
    ] = None,
    engine: EngineOption = ENGINES[0],
    device: DeviceOption = None,
    queue: Annotated[
        int,
        typer.Option(
            min=1, rich_help_panel=SPEED, help="Parts that may be under way; more are told to come again."
        ),
    ] = 64,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=SPEED, help="Parts of one run at most. Default: 8 on a GPU, else 1."
        ),
    ] = None,
    streams: Annotated[
        int, typer.Option(min=1, rich_help_panel=SPEED, help="Runs at the same time, of an exported bundle.")
    ] = 1,
    threads: ThreadsOption = None,
    database: DatabaseOption = None,
    pictures: PicturesOption = None,
    keep_good: Annotated[
        float, typer.Option(min=0, rich_help_panel=KEEPING, help="Days that images of good parts are kept.")
    ] = 7,
    keep_flagged: Annotated[
        float,
        typer.Option(
            min=0, rich_help_panel=KEEPING, help="Days that images of review and bad parts are kept."
        ),
    ] = 365,
    keep_rows: Annotated[
        float, typer.Option(min=0, rich_help_panel=KEEPING, help="Days that results are kept.")
    ] = 3650,
    audit_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            rich_help_panel=KEEPING,
            help="Share of the good parts that people should look at, too, drawn by lot.",
        ),
    ] = 1 / 200,
    notice_every: Annotated[
        float,
        typer.Option(
            min=2,
            metavar="PARTS",
            rich_help_panel=KEEPING,
            help="Parts between two notices of drift without a cause, in the mean. Default: a million.",
        ),
    ] = 1e6,
    reserve: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="MIB",
            rich_help_panel=KEEPING,
            help="Free disk below which no images are kept any more; below a quarter no parts are taken.",
        ),
    ] = 1024,
    max_body: Annotated[
        int, typer.Option(min=1, metavar="MIB", rich_help_panel=NETWORK, help="Largest request.")
    ] = 64,
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            rich_help_panel=NETWORK,
            help=f"Post every result there, signed by the secret in the variable {SECRET_VARIABLE}.",
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(rich_help_panel=NETWORK, help="Path that a proxy puts before all others.")
    ] = "",
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", rich_help_panel=NETWORK, help="Certificate, for https.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", rich_help_panel=NETWORK, help="Its private key.")
    ] = None,
) -> None:
    """Inspect parts over HTTP, and keep every result.

    It prints its address and, at the first start, a key. Parts are answered when their result is on the disk.
    SIGTERM or Ctrl-C ends it when all that were taken are answered. The log is on standard error.
    """
    voice = Voice()
    require_installed()
    if without_memory.chosen(context):
        without_memory.run(context.params)
        return
    assert data is not None
    from invad.scoring.drift import DriftSettings
    from invad.serve.options import MIB, Options, Retention
    from invad.serve.plant.lineup import is_lineup, read_lineup
    from invad.serve.plant.plant import Plant
    from invad.serve.running import Address, log_to_standard_error
    from invad.serve.running import run as answer
    from invad.serve.service import Service

    address = Address(
        host=host,
        port=port,
        certificate=tls_certificate,
        key=tls_key,
        prefix=prefix,
        without_keys=no_auth,
    )
    options = Options(
        queue=queue,
        batch=batch,
        streams=streams,
        max_body=max_body * MIB,
        audit_share=audit_share,
        drift=DriftSettings(evidence=notice_every),
        reserve=reserve * MIB,
        retention=Retention(good=keep_good, review=keep_flagged, bad=keep_flagged, rows=keep_rows),
        webhook=webhook,
        webhook_secret=os.environ.get(SECRET_VARIABLE, ""),
    )
    lineup = read_lineup(model, data) if is_lineup(model) else None
    judging = model if lineup is None else lineup.models
    with Service(
        judging,
        data,
        database=database,
        pictures=pictures,
        options=options,
        engine=engine,
        device=device,
        threads=threads,
    ) as service:
        log_to_standard_error()

        def opened(url: str) -> None:
            secret = None if no_auth else service.first_key()
            if secret is not None:
                voice.say(f"Key, shown this once: {secret}")
            voice.say(f"Listening on {url}, described at {url}/docs")

        answer(service, address, opened, None if lineup is None else Plant(service, model))


def init(
    example: Annotated[bool, typer.Option("--example", help="With every key, and what it means.")] = False,
) -> None:
    """Print a line.toml to begin with: the stations of a service, their models, and where parts come from."""
    from invad.serve.plant import lineup

    Voice().say(*(lineup.example() if example else lineup.SMALLEST).splitlines())


def schema() -> None:
    """Print the JSON schema of a result: what webhooks post and MQTT messages hold."""
    require_installed()
    from json import dumps

    from invad.serve.payload import schema

    Voice().say(*dumps(schema(), indent=1).splitlines())


def backup(
    data: DataOption,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the copy; a second one adds to it.")],
    pictures: PicturesOption = None,
    json: JsonOption = None,
) -> None:
    """Copy a data folder while its service runs: the rows of one moment and the files they name."""
    voice = Voice(json)
    require_installed()
    from invad.serve.store.backup import backup

    copied = backup(data, output, pictures)
    _say_copied(voice, output, copied)


def restore(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="Folder written by 'invad serve backup'.")],
    data: DataOption,
    pictures: PicturesOption = None,
    json: JsonOption = None,
) -> None:
    """Make a data folder of a backup, which is checked first."""
    voice = Voice(json)
    require_installed()
    from invad.serve.store.backup import restore

    _say_copied(voice, data, restore(backup, data, pictures))


def check(
    lineup: Annotated[
        Path | None, typer.Argument(metavar="LINE.toml", help="Stations, whose models and folders are tried.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Folder of a service that is stopped."),
    ] = None,
    database: DatabaseOption = None,
    pictures: PicturesOption = None,
    json: JsonOption = None,
) -> None:
    """Say what is wrong with a file of stations, or with a data folder whose service is stopped.

    Of a data folder: what is damaged, lost, or not named, and results that wait for an output that there is
    not. Nothing is changed. The exit status is 1 when a station could not work, or something is damaged or
    lost.
    """
    voice = Voice(json)
    require_installed()
    if lineup is None and data is None:
        raise ConfigError("give a LINE.toml, or --data and the folder of a service")
    summary: dict[str, Any] = {}
    refused, read = [], None
    if lineup is not None:
        from invad.serve.plant.checking import problems
        from invad.serve.plant.lineup import read_lineup

        read = read_lineup(lineup, data)
        wrong = list(problems(read, voice.say))
        for line in wrong:
            voice.say(line)
        voice.say(counted(len(read.station), "station"))
        summary |= {"stations": len(read.station), "problems": wrong}
        if wrong:
            refused.append(f"{lineup}: {counted(len(wrong), 'problem')}")
    if data is not None:
        from invad.serve.store.backup import check

        found = check(data, database, pictures)
        left = [f"{name}: {count} waiting" for name, count in found.waiting.items()]
        if read is not None:
            from invad.serve.plant.checking import leftovers

            left = list(leftovers(read, found.waiting))
        for line in (*found.damaged, *found.lost, *found.unnamed, *left):
            voice.say(line)
        voice.say(f"{counted(found.results, 'result')}, {counted(found.files, 'file')}")
        summary |= {
            "results": found.results,
            "files": found.files,
            "damaged": list(found.damaged),
            "lost": list(found.lost),
            "unnamed": list(found.unnamed),
            "waiting": dict(found.waiting),
        }
        if found.damaged or found.lost:
            refused.append(f"{data}: {len(found.damaged)} damaged, {len(found.lost)} lost; restore a backup")
    voice.hand_over(summary)
    if refused:
        raise DataError("; ".join(refused))


def _say_copied(voice: Voice, where: Path, copied: Any) -> None:
    voice.say(f"{where}: {counted(copied.results, 'result')}, {counted(copied.files, 'file')}")
    if copied.missing:
        voice.warn(f"{copied.missing} files that rows name were not there")
    voice.hand_over({"results": copied.results, "files": copied.files, "missing": copied.missing})


def require_installed() -> None:
    """Raises ConfigError where packages of the service are missing or too old."""
    require(NEEDED, "serve", "the service")
