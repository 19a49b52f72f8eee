"""invad predict --server: a running service judges, and keeps what it says."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from invad.errors import ConfigError, DataError, reason
from invad.system.packages import require

if TYPE_CHECKING:
    from invad.data.members import PartFiles, Source
    from invad.serve.client import Client
    from invad.serve.records import Member

Item = TypeVar("Item")
Row = dict[str, Any]

AT_A_TIME = 2
UNREADABLE = 400
"""Status of the answer to an image that cannot be read; it gets a row, anything else ends the command."""


def rule_there(address: str, station: str, given: str | None) -> tuple[str, tuple[str, ...]] | None:
    """How files become parts for what judges at a station, and the members; None of single pictures.

    given: the rule of --parts. A service does not say it to a key without the scope read: its parts are then
    what `given` says, of members that are not known. Raises ConfigError where a rule is given for single
    pictures, DataError when the service does not answer.
    """
    with _client(address) as client:
        from invad.serve.records import Refused

        try:
            found = [one for one in client.stations() if one["name"] == station]
        except Refused:
            return None if given is None else (given, ())
    if not found:  # asking for a part says so
        return None
    parts = found[0].get("parts")
    if parts is None and given is not None:
        raise ConfigError(f"--parts {given}: station {station} judges single pictures; leave it away")
    return None if parts is None else (given or parts["rule"], tuple(parts["members"]))


def rows(
    address: str,
    station: str,
    images: Iterable[Path],
    category: str | None,
    workers: int | None,
    strict: bool,
) -> Iterator[Row]:
    """The row of each image, in their order. workers: requests at a time, 2 by default.

    Raises DataError when the service does not answer, Refused for what it does not do; with `strict` also for
    an image that cannot be read.
    """

    def ask(client: "Client", image: Path) -> Row:
        row: Row = {"path": str(image), **dict.fromkeys(("score", "p_value", "decision"))}

        def judged() -> Row:
            found = client.inspect(_content(image), station=station, category=category)
            return {**row, "score": found.score, "p_value": found.p_value, "decision": found.decision}

        return _or_error(client, judged, row, str(image), strict)

    return _asked(address, images, ask, workers)


def part_rows(
    address: str, station: str, parts: "Iterable[PartFiles]", workers: int | None, strict: bool
) -> Iterator[Row]:
    """The row of each part, sent with all its pictures under its name. Errors as for `rows`; a part of which
    a picture cannot be sent is judged by the others, and with `strict` refused."""

    def ask(client: "Client", part: "PartFiles") -> Row:
        row: Row = {"part": part.part, **dict.fromkeys(("score", "p_value", "decision"))}
        sent: dict[str, bytes] = {}
        lost: list[str] = []
        for member, source in part.members.items():
            try:
                sent[member] = _picture(source)
            except DataError as error:
                if strict:
                    raise DataError(f"{part.part}: {error}") from None
                lost.append(str(error))

        def judged() -> Row:
            from invad.serve.records import LONGEST_WORD

            if not sent:
                raise DataError("; ".join(lost))
            found = client.inspect(sent, station=station, part_id=part.part[-LONGEST_WORD:])
            why = "; ".join(filter(None, [found.reason or "", *lost]))
            if strict and why:
                raise DataError(f"{part.part}: {why}")
            return {
                **row,
                "score": found.score,
                "p_value": found.p_value,
                "decision": found.decision,
                "seen_by": found.seen_by,
                "reason": why,
                "members": {one.member: _member(str(part.members[one.member]), one) for one in found.members},
            }

        return _or_error(client, judged, row, part.part, strict)

    return _asked(address, parts, ask, workers)


def _member(path: str, one: "Member") -> Row:
    return {"path": path, "score": one.score, "p_value": one.p_value, "above": one.above}


def _or_error(client: "Client", judged: Callable[[], Row], row: Row, name: str, strict: bool) -> Row:
    """What is judged, or a row that says why nothing is."""
    from invad.serve.records import Refused

    try:
        return judged()
    except (Refused, DataError) as error:
        is_its_own = not isinstance(error, Refused) or error.status == UNREADABLE
        if strict or not is_its_own or client.address in str(error):
            raise
        return {**row, "error": f"{name}: {error}".replace(": the image: ", ": ", 1)}


def _asked(
    address: str, items: Iterable[Item], ask: "Callable[[Client, Item], Row]", workers: int | None
) -> Iterator[Row]:
    with _client(address) as client, ThreadPoolExecutor(max(1, workers or AT_A_TIME)) as pool:
        waiting: deque[Future[Row]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(ask, client, item))
                if len(waiting) > 2 * (workers or AT_A_TIME):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def _client(address: str) -> "Client":
    require(("httpx",), "serve", "--server")
    from invad.serve.client import Client

    return Client(address)


def _picture(source: "Source | DataError") -> bytes:
    """The file of a picture; a page of one as a file of its own."""
    from invad.data.images import read_image
    from invad.data.png import encode_png

    if isinstance(source, DataError):
        raise source
    return _content(source) if isinstance(source, Path) else encode_png(read_image(source))


def _content(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise DataError(reason(error, writing=False)) from None
