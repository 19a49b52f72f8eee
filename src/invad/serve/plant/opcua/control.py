"""A controller that is a client of the OPC UA server."""

from invad.serve.plant.controllers import Link
from invad.serve.plant.cycle import Signals
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.opcua.server import OpcUaServer


class OpcUaControl(Link):
    """Shows the signals of one station, and takes its commands."""

    def __init__(self, server: OpcUaServer, handshake: Handshake):
        self.server, self.handshake = server, handshake

    def start(self) -> None:
        self.server.control(self.handshake)
        self.handshake.listen(self._changed)

    def close(self) -> None:
        self.server.release(self.handshake)

    def _changed(self, signals: Signals) -> None:
        self.server.signal(self.handshake, signals)
