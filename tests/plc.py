"""A controller of the tests that is a Modbus client of ours."""

import socket

from pymodbus.client import ModbusTcpClient

from invad.serve.plant.registers import BLOCK, text_words
from waiting import waits

READY, RESULTS, OK, NG, REVIEW, ERROR, DRIFT, BUSY = (1 << i for i in range(8))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Plc:
    """A controller that is a client of ours."""

    def __init__(self, port, unit=1, base=0):
        self.client, self.unit, self.base = ModbusTcpClient("127.0.0.1", port=port, timeout=10), unit, base
        waits(self.client.connect)

    def read(self, first=0, count=BLOCK):
        answer = self.client.read_holding_registers(self.base + first, count=count, device_id=self.unit)
        assert not answer.isError(), answer
        return answer.registers

    def status(self):
        return self.read(1, 1)[0]

    def command(self, bits, part_id=None, lot=None):
        """As one request, so that the names are there with the trigger."""
        given = [bits, 0, *text_words(part_id), *text_words(lot)]
        given = given if part_id or lot else [bits]
        answer = self.client.write_registers(self.base + 100, given, device_id=self.unit)
        assert not answer.isError(), answer

    def answer(self):
        """The registers once results are ready."""
        return waits(lambda: (found := self.read())[1] & RESULTS and found)

    def acknowledge(self):
        self.command(2)
        waits(lambda: not self.status() & RESULTS)
        self.command(0)
        waits(lambda: self.status() & (READY | ERROR | RESULTS))  # what waited may be shown already

    def close(self):
        self.client.close()
