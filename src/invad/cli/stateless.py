"""invad serve --stateless: a runtime that keeps nothing."""

from pathlib import Path
from typing import Any

from typer import Context

from invad.cli.voice import Voice
from invad.errors import ConfigError

KEEPING = (
    *(
        "data",
        "database",
        "pictures",
        "keep_good",
        "keep_flagged",
        "keep_rows",
        "audit_share",
        "notice_every",
        "reserve",
    ),
    "webhook",
)
"""Options of what a service keeps."""

OWN = ("model_name", "key_file")


def chosen(context: Context) -> bool:
    """Whether a runtime is asked for. Raises ConfigError for options that the other one has."""
    if context.params["stateless"]:
        if given := _given(context, KEEPING):
            raise ConfigError(f"--stateless keeps nothing; leave {', '.join(given)} away")
        return True
    if given := _given(context, OWN):
        raise ConfigError(f"{', '.join(given)} is for --stateless; a service has keys and names of its own")
    if context.params["data"] is None:
        raise ConfigError("give --data DIR, where results are kept, or --stateless to keep none")
    return False


def run(options: dict[str, Any]) -> None:
    """Answer until a signal ends it. options: those of `invad serve run`, by name."""
    voice = Voice()
    from invad.serve.listening import Address, log_to_standard_error
    from invad.serve.models import Opening
    from invad.serve.options import MIB, Options, is_loopback
    from invad.serve.plant.lineup import is_lineup
    from invad.serve.stateless import Runtime, opened
    from invad.serve.stateless import run as answer
    from invad.serve.web.keyfile import KeyFile

    model: Path = options["model"]
    host, key_file = options["host"], options["key_file"]
    if is_lineup(model):
        raise ConfigError(f"{model}: stations need a service that keeps; give --stateless a model or bundle")
    if key_file is not None and options["no_auth"]:
        raise ConfigError("--key-file and --no-auth exclude each other; give one")
    if key_file is None and not options["no_auth"] and not is_loopback(host):
        raise ConfigError(
            f"other machines reach {host}: give --key-file FILE, or --no-auth to answer whoever reaches it"
        )
    address = Address(
        host=host,
        port=options["port"],
        certificate=options["tls_certificate"],
        key=options["tls_key"],
        prefix=options["prefix"],
    )
    settings = Options(
        queue=options["queue"],
        batch=options["batch"],
        streams=options["streams"],
        max_body=options["max_body"] * MIB,
    )
    keys = None if key_file is None else KeyFile(key_file)
    opening = Opening(engine=options["engine"], device=options["device"], threads=options["threads"])
    loaded = opened(model, options["model_name"], settings, opening)
    log_to_standard_error()

    def said(url: str) -> None:
        voice.say(f"Listening on {url}/v2/models/{loaded.name}")

    answer(Runtime(loaded, settings), address, said, keys)


def _given(context: Context, names: tuple[str, ...]) -> list[str]:
    # By its name, because some versions of typer bring their own click.
    sources = {name: getattr(context.get_parameter_source(name), "name", "") for name in names}
    found = [name for name, source in sources.items() if source in ("COMMANDLINE", "ENVIRONMENT")]
    return [f"--{name.replace('_', '-')}" for name in found]
