"""Modbus TCP: a server with a unit for each station, or a client of a controller that is the server."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from invad.errors import ConfigError, DataError, in_one_line
from invad.serve.plant.controllers import Link, ModbusController
from invad.serve.plant.cycle import Signals
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.registers import BLOCK, COMMANDS, ROOM, commands, words
from invad.system.network import why_no_port

if TYPE_CHECKING:
    from pymodbus.client import ModbusTcpClient
    from pymodbus.constants import ExcCodes
    from pymodbus.server import ModbusTcpServer

LOG = logging.getLogger("invad.serve")
AGAIN = 2.0
"""Seconds until a port that is taken, or a controller that is away, is tried again."""

ANSWER = 1.0
"""Seconds that a controller has for an answer."""

COILS = (1, 2, 5, 15)
"""Functions for single bits, which there are none of."""


class ModbusServer(Link):
    """One port, where each station is a unit; controllers read its registers and write its commands."""

    def __init__(self, host: str, port: int, stations: Mapping[Handshake, ModbusController]):
        self.host, self.port = host, port
        self._units = [Unit(handshake, one.unit, one.base) for handshake, one in stations.items()]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"invad-modbus-{port}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        if self._loop is not None and self._closing is not None:
            self._loop.call_soon_threadsafe(self._closing.set)
        if self._thread.is_alive():
            self._thread.join(5)

    def _work(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        while not (self._closed or self._closing.is_set()):
            server = None
            try:
                require_port(self.host, self.port)
                server = await self._opened()
                self._tell(None)
                await self._closing.wait()
            except Exception as error:  # a fault of ours must not leave a station without its controller
                if not isinstance(error, DataError):
                    LOG.exception("Modbus at %s:%d failed", self.host, self.port)
                self._tell(in_one_line(error))
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), AGAIN)
            finally:
                if server is not None:
                    await server.shutdown()
                    await asyncio.sleep(0)  # what had come is begun, and can be ended

    async def _opened(self) -> "ModbusTcpServer":
        from pymodbus.server import ModbusTcpServer

        server = ModbusTcpServer([one.device() for one in self._units], address=(self.host, self.port))
        await server.serve_forever(background=True)
        return server

    def _tell(self, problem: str | None) -> None:
        for unit in self._units:
            unit.handshake.away(problem)


class Unit:
    """The registers of one station."""

    def __init__(self, handshake: Handshake, unit: int, base: int):
        self.handshake, self.unit, self.base = handshake, unit, base
        self._words = [0] * BLOCK
        self._heartbeat: int | None = None
        handshake.listen(self._show)

    def device(self) -> object:
        """For the server."""
        from pymodbus.simulator import DataType, SimData, SimDevice

        ours = SimData(self.base, count=ROOM, datatype=DataType.REGISTERS, readonly=True)
        theirs = SimData(self.base + ROOM, count=COMMANDS, datatype=DataType.REGISTERS)
        return SimDevice(id=self.unit, simdata=[ours, theirs], action=self._access)

    def _show(self, signals: Signals) -> None:
        # Whole at once, so that who reads never sees a part of one state and a part of another.
        self._words = words(signals)

    async def _access(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> "ExcCodes | None":
        """Called by the server before it reads or writes registers."""
        from pymodbus.constants import ExcCodes

        if function in COILS:
            return ExcCodes.ILLEGAL_FUNCTION
        if values is not None:
            written = registers[ROOM : ROOM + COMMANDS]
            at = address - start - ROOM
            written[at : at + len(values)] = [int(value) for value in values]
            self._command(written)
        registers[:BLOCK] = self._words
        return None

    def _command(self, registers: list[int]) -> None:
        said = commands(registers)
        if said.heartbeat != self._heartbeat:
            self._heartbeat = said.heartbeat
            self.handshake.alive()
        self.handshake.levels(
            trigger=said.trigger, acknowledge=said.acknowledge, part_id=said.part_id, lot=said.lot
        )


class ModbusClient(Link):
    """A controller that is the server: we look at its commands, and write our registers into it."""

    def __init__(self, handshake: Handshake, controller: ModbusController):
        self.handshake, self.controller = handshake, controller
        self._words = [0] * BLOCK
        self._changed, self._closing = threading.Event(), threading.Event()
        self._heartbeat: int | None = None
        self._met = False
        self._thread = threading.Thread(
            target=self._work, name=f"invad-modbus-{handshake.station}", daemon=True
        )

    def start(self) -> None:
        self.handshake.listen(self._show)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _show(self, signals: Signals) -> None:
        self._words = words(signals)
        self._changed.set()

    def _work(self) -> None:
        while not self._closing.is_set():
            client = client_of(self.controller)
            try:
                self._talk(client)
            except Exception as error:  # a fault of ours must not leave a station without its controller
                if not isinstance(error, DataError):
                    LOG.exception("Modbus to %s failed", self.controller.place)
                self.handshake.away(in_one_line(error))
            finally:
                client.close()
            self._closing.wait(AGAIN)

    def _talk(self, client: "ModbusTcpClient") -> None:
        """Until it is closed. Raises DataError when the controller does not answer as it should."""
        connect(client, self.controller)
        written: list[int] = []
        while not self._closing.is_set():
            self._changed.clear()
            # What the controller still shows of a station that ended is gone before its commands are read.
            if (now := self._words) != written:
                write(client, self.controller, now)
                written = now
            self._look(read(client, self.controller))
            self.handshake.away(None)
            self._changed.wait(self.controller.poll)
        write(client, self.controller, self._words)  # that nobody is there any more

    def _look(self, registers: list[int]) -> None:
        said = commands(registers)
        if said.heartbeat != self._heartbeat:
            self._heartbeat = said.heartbeat
            self.handshake.alive()
        if not self._met:
            self._met = True
            self.handshake.found(trigger=said.trigger, acknowledge=said.acknowledge)
            return
        self.handshake.levels(
            trigger=said.trigger, acknowledge=said.acknowledge, part_id=said.part_id, lot=said.lot
        )


def problems(controller: ModbusController) -> Iterator[str]:
    """Try it while no service runs: a port of ours, or their registers; what is wrong, a line each."""
    try:
        if controller.mode == "server":
            require_port(controller.host, controller.port)
            return
        client = client_of(controller)
        try:
            connect(client, controller)
            read(client, controller)
            require_block(client, controller)
        finally:
            client.close()
    except (ConfigError, DataError) as error:
        yield str(error)


def require_port(host: str, port: int) -> None:
    """Raises DataError for a port that cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))  # without listening, so that no controller is let in and cut
        except OSError as error:
            raise DataError(f"Modbus at {host}:{port}: {why_no_port(host, error)}") from None


def client_of(controller: ModbusController) -> "ModbusTcpClient":
    """Not connected."""
    from pymodbus.client import ModbusTcpClient

    return ModbusTcpClient(controller.host, port=controller.port, timeout=ANSWER, retries=1)


def connect(client: "ModbusTcpClient", controller: ModbusController) -> None:
    """Raises DataError."""
    if not client.connect():
        raise DataError(f"the controller at {controller.host}:{controller.port} cannot be reached")


def read(client: "ModbusTcpClient", controller: ModbusController) -> list[int]:
    """Its commands. Raises DataError."""
    return _asked(client, controller, controller.base + ROOM, COMMANDS)


def require_block(client: "ModbusTcpClient", controller: ModbusController) -> None:
    """Raises DataError where our registers are not there."""
    _asked(client, controller, controller.base, BLOCK)


def write(client: "ModbusTcpClient", controller: ModbusController, block: list[int]) -> None:
    """Our registers, all in one request. Raises DataError."""
    from pymodbus.exceptions import ModbusException

    try:
        answer = client.write_registers(controller.base, block, device_id=controller.unit)
    except (ModbusException, OSError) as error:
        raise _silent(controller, error) from None
    if answer.isError():
        raise _wrong_map(controller, controller.base, BLOCK, getattr(answer, "exception_code", 0))


def _asked(client: "ModbusTcpClient", controller: ModbusController, first: int, count: int) -> list[int]:
    from pymodbus.exceptions import ModbusException

    try:
        answer = client.read_holding_registers(first, count=count, device_id=controller.unit)
    except (ModbusException, OSError) as error:
        raise _silent(controller, error) from None
    if answer.isError() or len(answer.registers) != count:
        raise _wrong_map(controller, first, count, getattr(answer, "exception_code", 0))
    return list(answer.registers)


def _silent(controller: ModbusController, error: Exception) -> DataError:
    return DataError(f"the controller at {controller.place} does not answer ({in_one_line(error)})")


def _wrong_map(controller: ModbusController, first: int, count: int, code: int) -> DataError:
    return DataError(
        f"the controller at {controller.place} refuses holding registers {first} to {first + count - 1} "
        f"(exception {code}); compare its map with the table in docs/connections.md, or change base or unit"
    )
