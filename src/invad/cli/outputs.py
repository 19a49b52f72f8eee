"""invad serve outputs: what waits for whom, and letting go of what nobody will be told."""

from typing import Annotated

import typer

from invad.cli.options import JsonOption
from invad.cli.serve import DatabaseOption, DataOption, require_installed
from invad.cli.voice import Voice
from invad.errors import ConfigError
from invad.report.wording import counted


def outputs(
    data: DataOption,
    discard: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Tell this output nothing of what waits for it. Results stay."),
    ] = None,
    database: DatabaseOption = None,
    json: JsonOption = None,
) -> None:
    """List the results that wait for each output, also for names that no output has any more.

    Of those nothing is lost: an output of that name is told of them when it is back. The service may run.
    """
    voice = Voice(json)
    require_installed()
    from invad.serve.records import utc
    from invad.serve.store import outbox
    from invad.serve.store.backup import COMMAND_LINE, beside
    from invad.serve.store.database import note

    with beside(data, database) as connection:
        waiting = outbox.pending(connection)
        if discard is not None:
            if discard not in waiting:
                known = ", ".join(waiting) or "none"
                raise ConfigError(f"--discard {discard}: nothing waits for it; names are {known}")
            count = outbox.discard(connection, discard)
            note(
                connection,
                COMMAND_LINE,
                "discard results of an output",
                {"output": discard, "results": count},
            )
    if discard is not None:
        voice.say(f"{discard} is not told of {counted(count, 'result')}")
        voice.hand_over({"output": discard, "discarded": count})
        return
    for name, one in waiting.items():
        since = "" if one.oldest is None else f", the oldest since {utc(one.oldest)}"
        voice.say(f"{name}: {one.count} waiting{since}")
    if not waiting:
        voice.say("nothing waits")
    rows = [
        {"output": name, "waiting": one.count, "oldest": None if one.oldest is None else utc(one.oldest)}
        for name, one in waiting.items()
    ]
    voice.hand_over({"outputs": rows})
