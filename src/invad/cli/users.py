"""invad serve user: the people who may use the page of a service."""

import sys
from typing import Annotated

import typer

from invad.cli.options import JsonOption
from invad.cli.serve import DatabaseOption, DataOption, require_installed
from invad.cli.voice import Voice
from invad.errors import ConfigError

ROLES = ("viewer", "reviewer", "admin")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name to log in with.")]


def add(
    name: NameArgument,
    data: DataOption,
    role: Annotated[
        str,
        typer.Option(
            metavar="|".join(ROLES),
            help="viewer looks; reviewer also sends pictures and judges; admin does everything.",
        ),
    ] = ROLES[1],
    database: DatabaseOption = None,
) -> None:
    """Let somebody use the page of a service, which may be running.

    The password is asked for twice, or is the first line of standard input where that is no terminal.
    """
    voice = Voice()
    require_installed()
    from invad.serve.store import passwords, users
    from invad.serve.store.backup import COMMAND_LINE, beside
    from invad.serve.store.database import note

    with beside(data, database) as connection:
        users.require_new(connection, name, role)
    digest = passwords.digest(_password())
    with beside(data, database) as connection:
        users.add(connection, name, digest, role)
        note(connection, COMMAND_LINE, "add user", {"user": name, "role": role})
    voice.say(f"{name} is {role}")


def show(data: DataOption, database: DatabaseOption = None, json: JsonOption = None) -> None:
    """The users of a service: their roles, and when each logged in last."""
    voice = Voice(json)
    require_installed()
    from invad.serve.records import utc
    from invad.serve.store import users
    from invad.serve.store.backup import beside

    with beside(data, database) as connection:
        found = users.users(connection)
    plain = [
        {
            "name": one.name,
            "role": one.role,
            "created": utc(one.created),
            "last_login": None if one.last_login is None else utc(one.last_login),
        }
        for one in found
    ]
    if plain:
        voice.table([[str(one[name] or "never") for name in ("name", "role", "last_login")] for one in plain])
    else:
        voice.say("No users; 'invad serve user add NAME' makes one")
    voice.hand_over({"users": plain})


def remove(name: NameArgument, data: DataOption, database: DatabaseOption = None) -> None:
    """Remove a user, who is logged out at once. What the user judged stays."""
    voice = Voice()
    require_installed()
    from invad.serve.store import users
    from invad.serve.store.backup import COMMAND_LINE, beside
    from invad.serve.store.database import note

    with beside(data, database) as connection:
        users.remove(connection, name)
        note(connection, COMMAND_LINE, "remove user", {"user": name})
    voice.say(f"{name} is removed")


def password(name: NameArgument, data: DataOption, database: DatabaseOption = None) -> None:
    """Give a user another password, who is logged out everywhere. It is asked for as by 'add'."""
    voice = Voice()
    require_installed()
    from invad.serve.store import passwords, users
    from invad.serve.store.backup import COMMAND_LINE, beside
    from invad.serve.store.database import note

    with beside(data, database) as connection:
        users.require_known(connection, name)
    digest = passwords.digest(_password())
    with beside(data, database) as connection:
        users.change(connection, name, password=digest)
        users.note_success(connection, name)
        note(connection, COMMAND_LINE, "change password", {"user": name})
    voice.say(f"{name} has another password")


def _password() -> str:
    if not sys.stdin.isatty():
        if not (given := sys.stdin.readline().rstrip("\r\n")):
            raise ConfigError("the first line of standard input is no password")
        return given
    asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return asked
