"""Results of a station as events of OPC UA, from the outbox."""

from collections.abc import Iterator, Sequence

from invad.errors import DataError
from invad.serve.delivery import Sink, Unreachable
from invad.serve.plant.opcua.receipts import AT_A_TIME
from invad.serve.plant.opcua.server import OpcUaServer
from invad.serve.plant.outputs import Taken
from invad.serve.records import Result

CONFIRM_SECONDS = 5.0
"""That a client has to confirm an event before it is sent again."""

AGAIN_SECONDS = 0.5
"""Between two looks whether a client is there."""


class OpcUaEvents(Sink):
    """Whoever listens to the events of a station."""

    kind = "opcua"
    at_a_time = AT_A_TIME

    def __init__(self, server: OpcUaServer, station: str, taken: Taken):
        self.server, self.station, self.taken = server, station, taken
        self.place = server.place
        self._is_shown = False

    def deliver(self, results: Sequence[Result]) -> Iterator[str]:
        self._begin()
        # Where more wait than are handed over, the newest is not among them.
        newest = results[-1] if len(results) < self.at_a_time else self.server.latest(self.station)
        self.server.show(newest or results[-1])
        receipts = self.server.acknowledged if self.taken == "acknowledged" else self.server.received
        if self.taken == "shown":
            self._tell(results)
            yield from (one.id for one in results)
            return
        told = self._tell([one for one in results if one.id not in receipts])
        for one in results:
            listened, is_wanted = told.get(one.id, (True, True))
            if not listened:
                raise Unreachable(f"no client listens to the events of {self.station}", again=AGAIN_SECONDS)
            if is_wanted and not receipts.wait(one.id, CONFIRM_SECONDS):
                raise self._unconfirmed(one)
            yield one.id

    def idle(self) -> None:
        self._begin()

    def rest(self) -> None:
        self.close()

    def close(self) -> None:
        if self._is_shown:
            self.server.remove(self.station)
            self._is_shown = False

    def _begin(self) -> None:
        if not self._is_shown:
            self.server.add(self.station)
            self._is_shown = True

    def _tell(self, results: Sequence[Result]) -> dict[str, tuple[bool, bool]]:
        """By id: whether anybody listens, and whether somebody wants it. Raises Unreachable."""
        if not results:
            return {}
        try:
            told = self.server.tell(self.station, results)
        except DataError as error:
            raise Unreachable(str(error), again=AGAIN_SECONDS) from None
        return {one.id: said for one, said in zip(results, told, strict=True)}

    def _unconfirmed(self, one: Result) -> Unreachable:
        """What a client has not done; it is told again, the later the more patience it needs."""
        if self.taken == "received":
            return Unreachable(f"no client has confirmed result {one.id}", again=AGAIN_SECONDS)
        return Unreachable(f"no client has acknowledged result {one.id}")
