"""From the trigger of a PLC to its OK or NG bit, by Modbus TCP or OPC UA, beside the engine's own time.

    python benchmarks/trigger.py IMAGES NAME=BUNDLE ... --output benchmarks/results/trigger.json

IMAGES: a folder, whose images a camera of the benchmark's own gives, one for each trigger, as encoded files
in memory, no two of them the same. The controller is another process that sets its trigger and reads its
registers every millisecond until results are ready, or (opcua_subscribed) is told of changes every
millisecond; from before the trigger is sent until then it is measured. Runs of the engine alone,
decoding and judging the same bytes with one thread in the process of the controller, take turns with
triggered parts, so that other load meets both. steps: medians in milliseconds: of what the record of each
part says; commit, the rest of what passes inside the service from the trigger to the registers; protocol,
the rest of all.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Condition
from typing import Any

from asyncua import ua
from asyncua.sync import Client
from pymodbus.client import ModbusTcpClient

from invad.data.formats import IMAGE_SUFFIXES
from invad.detector.opening import AUTO, open_detector
from invad.evaluation.machine import facts
from invad.serve import Options, Result, Service
from invad.serve.delivery import Route
from invad.serve.plant.controllers import Link, ModbusController
from invad.serve.plant.cycle import Signals, Terms
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.modbus import ModbusServer
from invad.serve.plant.opcua.control import OpcUaControl
from invad.serve.plant.opcua.server import OpcUaServer
from invad.serve.plant.opcua.settings import OpcUa
from invad.serve.plant.telling import Telling
from invad.serve.records import Part
from invad.system import pauses

READY, RESULTS, ERROR = 1, 2, 32
WARM_UP = 10
PAUSE = 0.001
SUBSCRIBED = "opcua_subscribed"
"""Seconds between two looks of the controller."""


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]


def serve(protocol: str, bundle: Path, folder: Path, port: int, images: Path, output: Path) -> None:
    """One station until standard input ends; then what it measured of each part, as JSON."""
    bodies = contents(images)
    began: list[float] = []
    measured: list[dict[str, float]] = []
    with Service({"a": bundle}, folder, options=Options(reserve=0), threads=1) as service:

        def take(part_id: str | None, lot: str | None, request_id: str) -> "Future[Result]":
            began.append(time.perf_counter())
            number = int(part_id or 0)
            # Another file for each part, as from a camera, so that each is written; what follows is no pixel.
            body = bodies[number % len(bodies)] + number.to_bytes(8, "big")
            words = {"part_id": part_id, "lot": lot, "request_id": request_id}
            part = Part(body=body, station="a", source="camera", **words)
            return service.submit(part)

        def shown(signals: Signals) -> None:
            if signals.results_ready and signals.result is not None and len(measured) < len(began):
                inside = (time.perf_counter() - began[-1]) * 1000
                ms = signals.result.ms
                steps = {"queue": ms.queue, "decode": ms.decode, "infer": ms.infer, "row": ms.store}
                measured.append(steps | {"inside": inside, "commit": inside - sum(steps.values())})

        handshake = Handshake(service, "a", Terms(deadline=30), take=take)
        link = link_of(protocol, service, handshake, port)
        handshake.listen(shown)
        handshake.start()
        service.deliveries.add(Route(name="a/controller", station="a"), Telling(handshake, protocol, ""))
        pauses.shorten()
        link.start()
        print("Listening", flush=True)
        sys.stdin.read()
        handshake.close()
        link.close()
    output.write_text(json.dumps(measured))


def link_of(protocol: str, service: Service, handshake: Handshake, port: int) -> Link:
    if protocol.startswith("opcua"):
        return OpcUaControl(
            OpcUaServer(service, OpcUa(endpoint=f"opc.tcp://127.0.0.1:{port}/invad"), ""), handshake
        )
    controller = ModbusController(kind="modbus", port=port)
    return ModbusServer(controller.host, port, {handshake: controller})


class OpcUaPlc:
    """A PLC that calls methods, and reads a variable every millisecond or, subscribed, is told of changes."""

    def __init__(self, port: int, subscribed: bool = False):
        self.values: dict[Any, Any] = {}
        self.changed = Condition()
        self.subscribed = subscribed
        self.client = Client(f"opc.tcp://127.0.0.1:{port}/invad", timeout=30)
        for _ in range(300):
            try:
                self.client.connect()
                namespace = self.client.get_namespace_index("urn:invad:line")
                self.nodes = {
                    name: self.client.get_node(f"ns={namespace};s={name}")
                    for name in (
                        "a",
                        "a.Trigger",
                        "a.Acknowledge",
                        "a.Signals.ResultsReady",
                        "a.Signals.Ready",
                    )
                }
                if subscribed:
                    told = self.client.create_subscription(PAUSE * 1000, self)
                    told.subscribe_data_change(
                        [self.nodes[f"a.Signals.{n}"] for n in ("ResultsReady", "Ready")]
                    )
                self._until("Ready")
                return
            except (OSError, ua.UaError):
                time.sleep(0.1)
        raise SystemExit("the OPC UA server does not answer")

    def part(self, number: int) -> float:
        """Milliseconds from the trigger to the bit."""
        started = time.perf_counter()
        self.nodes["a"].call_method(self.nodes["a.Trigger"].nodeid, str(number), "")
        self._until("ResultsReady")
        spent = (time.perf_counter() - started) * 1000
        self.nodes["a"].call_method(self.nodes["a.Acknowledge"].nodeid)
        self._until("Ready")
        return spent

    def close(self) -> None:
        self.client.disconnect()

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        with self.changed:
            self.values[node.nodeid] = value
            self.changed.notify_all()

    def _until(self, name: str) -> None:
        if self.subscribed:
            ready, results = (self.nodes[f"a.Signals.{n}"].nodeid for n in ("Ready", "ResultsReady"))
            wanted = (True, False) if name == "Ready" else (False, True)
            with self.changed:
                seen = self.changed.wait_for(
                    lambda: (self.values.get(ready), self.values.get(results)) == wanted, 60
                )
                assert seen
            return
        while not self.nodes[f"a.Signals.{name}"].read_value():
            time.sleep(PAUSE)


class ModbusPlc:
    """A PLC that reads its registers every millisecond."""

    def __init__(self, port: int):
        self.client = ModbusTcpClient("127.0.0.1", port=port, timeout=30)
        while not self.client.connect():
            time.sleep(0.1)
        self._until(READY)

    def part(self, number: int) -> float:
        """Milliseconds from the trigger to the bit."""
        text = f"{number:<8}".encode()
        words = [int.from_bytes(text[i : i + 2], "big") for i in range(0, 8, 2)]
        started = time.perf_counter()
        self.client.write_registers(100, [1, 0, *words])
        status = self._until(RESULTS)
        spent = (time.perf_counter() - started) * 1000
        assert not status & ERROR
        self.client.write_registers(100, [2])
        self.client.write_registers(100, [0])
        self._until(READY)
        return spent

    def close(self) -> None:
        self.client.close()

    def _until(self, bit: int) -> int:
        while True:
            status = self.client.read_holding_registers(1, count=1).registers[0]
            if status & bit:
                return int(status)
            time.sleep(PAUSE)


def spread(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {"p50": round(cuts[49], 2), "p95": round(cuts[94], 2), "p99": round(cuts[98], 2)}


def measure(protocol: str, bundle: Path, images: Path, parts: int) -> dict[str, Any]:
    bodies = contents(images)
    engine = open_detector(bundle, AUTO, None, 1)
    with socket.socket() as free, tempfile.TemporaryDirectory() as place:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        output = Path(place) / "steps.json"
        words = ["--serve", protocol, bundle, Path(place) / "line", port, images, output]
        command = [sys.executable, __file__, *(str(word) for word in words)]
        service = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ)
        assert service.stdin is not None
        assert service.stdout is not None
        assert service.stdout.readline()
        controller = ModbusPlc(port) if protocol == "modbus" else OpcUaPlc(port, protocol == SUBSCRIBED)
        alone, triggered = [], []
        for number in range(WARM_UP + parts):
            body = bodies[number % len(bodies)]
            started = time.perf_counter()
            engine.judge([engine.decode(body)], None)
            alone.append((time.perf_counter() - started) * 1000)
            triggered.append(controller.part(number))
        controller.close()
        service.stdin.close()
        service.wait(60)
        steps = json.loads(output.read_text())[WARM_UP:]
    medians = {name: round(statistics.median(one[name] for one in steps), 2) for name in steps[0]}
    outside = [spent - one["inside"] for spent, one in zip(triggered[WARM_UP:], steps, strict=True)]
    described = json.loads((bundle / "bundle.json").read_text())
    return {
        "bundle": {name: described[name] for name in ("preset", "precision", "format", "size_hw")},
        "parts": parts,
        "engine_ms": spread(alone[WARM_UP:]),
        "trigger_to_bit_ms": spread(triggered[WARM_UP:]),
        "p95_above_engine_ms": round(spread(triggered[WARM_UP:])["p95"] - spread(alone[WARM_UP:])["p95"], 2),
        "steps": medians | {"protocol": round(statistics.median(outside), 2)},
    }


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        protocol, bundle, folder, port, images, output = sys.argv[2:]
        serve(protocol, Path(bundle), Path(folder), int(port), Path(images), Path(output))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("bundles", nargs="+", metavar="NAME=BUNDLE")
    parser.add_argument("--parts", type=int, default=300)
    parser.add_argument("--protocols", nargs="+", default=["modbus", "opcua", SUBSCRIBED])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": facts()}
    for protocol in arguments.protocols:
        for word in arguments.bundles:
            name, _, bundle = word.partition("=")
            measured = measure(protocol, Path(bundle), arguments.images, arguments.parts)
            found.setdefault(protocol, {})[name] = measured
            print(protocol, name, json.dumps(measured), flush=True)
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
