"""Messages to people, by whatever apprise reaches: bad parts, drift, and what of the station does not work.

Results wait in the outbox until a message told of them, so none is left out of the counts. What else is told
is what holds at the time, so after a restart it is told again.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from invad.errors import ConfigError, in_one_line
from invad.serve.delivery import Sink, Unreachable
from invad.serve.plant.outputs import AlertOutput
from invad.serve.records import Result
from invad.system.packages import importing

if TYPE_CHECKING:
    from apprise import NotifyBase

LOG = logging.getLogger("invad.serve")
LOOK_EVERY = 5.0
"""Seconds between two looks at what does not work."""

Troubles = Callable[[], Mapping[str, str]]


@dataclass(slots=True)
class Trouble:
    """What is known of one thing that may not work. since: when its state last changed; told: what people
    were told of it, None where it works; told_at: when."""

    said: str | None
    since: float
    told: str | None = None
    told_at: float = float("-inf")


class Alerts(Sink):
    """The people of one station."""

    kind = "alert"
    at_a_time = 1000

    def __init__(self, output: AlertOutput, station: str, urls: str, troubles: Troubles = dict):
        """urls: of apprise, with blanks between them. troubles: what does not work now, by what it is.

        Raises ConfigError where the package is missing, or an address is none.
        """
        with importing(("apprise",), "alerts", "an output of alerts"):
            import apprise
        self.output, self.station, self.troubles = output, station, troubles
        self.receivers: list[NotifyBase] = []
        for number, url in enumerate(urls.split(), 1):
            with heard() as said:
                receiver = apprise.Apprise.instantiate(url)
            if receiver is None or isinstance(receiver, dict):
                why = f" ({said[0]})" if said else ""
                raise ConfigError(
                    f"address {number} of {output.urls_variable} is none of apprise's{why}; see "
                    "github.com/caronc/apprise"
                )
            self.receivers.append(receiver)
        if not self.receivers:
            raise ConfigError(f"{output.urls_variable} holds no address; give one or several of apprise")
        self.place = ", ".join(sorted({str(one.service_name) for one in self.receivers}))
        self._quiet_until = self._look_at = 0.0
        self._known: dict[str, Trouble] = {}

    def takes_now(self, waiting: int) -> bool:
        return time.monotonic() >= self._quiet_until

    def deliver(self, results: Sequence[Result]) -> Iterator[str]:
        self._look()
        self._send(*self._parts(results), is_good=False)
        self._quiet_until = time.monotonic() + 60 * self.output.quiet
        yield from (one.id for one in results)

    def idle(self) -> None:
        self._look()

    def _parts(self, results: Sequence[Result]) -> tuple[str, str]:
        """(title, text)."""
        counts, last = Counter(one.decision for one in results), results[-1]
        found = ", ".join(f"{count} {decision}" for decision, count in counts.items())
        lines = [f"{found} since {results[0].time}."] if len(results) > 1 else []
        lines.append(
            f"{'The last' if lines else 'One part'}: {last.part_id or last.id}, {last.decision}, score "
            f"{last.score:.4g}, limits {last.review_limit:.4g} and {last.bad_limit:.4g}, at {last.time}."
        )
        if self.output.address is not None:
            lines.append(f"{self.output.address.rstrip('/')}/parts/{last.id}")
        return f"{self.station}: {found}", "\n".join(lines)

    def _look(self) -> None:
        """Tell what has begun or ended, each thing at most once in the time of quiet."""
        now = time.monotonic()
        if now < self._look_at:
            return
        found = self.troubles()
        for name in {**self._known, **found}:
            said = found.get(name)
            known = self._known.setdefault(name, Trouble(said, now))
            if (known.said is None) != (said is None):
                known.since = now
            known.said = said
            is_due = now - known.since >= self.output.after or said is None
            if (known.told is None) != (said is None) and is_due:
                if now - known.told_at >= 60 * self.output.quiet:
                    self._tell(name, known)
            elif said is None and known.told is None:
                del self._known[name]
        self._look_at = now + LOOK_EVERY

    def _tell(self, name: str, known: Trouble) -> None:
        if known.said is None:
            self._send(f"{self.station}: {name} is over", f"It was: {known.told}", is_good=True)
        else:
            self._send(f"{self.station}: {name}", known.said, is_good=False)
        known.told, known.told_at = known.said, time.monotonic()

    def _send(self, title: str, text: str, *, is_good: bool) -> None:
        """To all; that one took it is enough. Raises Unreachable."""
        from apprise import NotifyType

        kind = NotifyType.SUCCESS if is_good else NotifyType.WARNING
        failed = []
        for receiver in self.receivers:
            with heard() as said:
                try:
                    took = receiver.notify(body=text, title=title, notify_type=kind)
                except Exception as error:  # of one of a hundred plug-ins
                    took = False
                    said.append(in_one_line(error))
            if not took:
                failed.append(f"{receiver.service_name}: {said[0] if said else 'it was not taken'}")
        if len(failed) == len(self.receivers):
            raise Unreachable(
                f"no message was taken ({'; '.join(failed)}); check {self.output.urls_variable}"
            )
        for line in failed:
            LOG.warning("an alert was told to others alone: %s", line)


@contextmanager
def heard() -> Iterator[list[str]]:
    """What apprise says of failures, which it logs and does not raise; kept out of the log."""
    lines: list[str] = []
    log = logging.getLogger("apprise")

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(" ".join(record.getMessage().split()))

    listening, before = Listening(logging.WARNING), log.propagate
    log.addHandler(listening)
    log.propagate = False
    try:
        yield lines
    finally:
        log.propagate = before
        log.removeHandler(listening)
