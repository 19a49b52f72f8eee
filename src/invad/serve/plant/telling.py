"""The outbox of a station's controller: what it has not acknowledged yet."""

from collections.abc import Iterator, Sequence

from invad.serve.delivery import Sink
from invad.serve.plant.handshake import Handshake
from invad.serve.records import Result


class Telling(Sink):
    """Shows results to a controller in turn. Those that answer triggers it only counts as told, or not."""

    at_a_time = 1  # so that a result counts as told as soon as it is

    def __init__(self, handshake: Handshake, kind: str, place: str):
        self.handshake, self.kind, self.place = handshake, kind, place

    def trouble(self) -> str | None:
        return self.handshake.problem

    def deliver(self, results: Sequence[Result]) -> Iterator[str]:
        """It waits as long as the controller does."""
        triggered = self.handshake.terms.triggered
        tell = self.handshake.close_account if triggered else self.handshake.show
        for result in results:
            if not tell(result):
                return
            yield result.id
