"""Controllers that are away under load: what is lost, doubled or wrong, and when they are met again.

    python benchmarks/plc_away.py BUNDLE IMAGES --seconds 300 --output benchmarks/results/plc_away.json

BUNDLE: of `invad export`. IMAGES: a folder, whose images are sent again and again over HTTP to three
stations, --rate a second to each. All three controllers lose their power for --seconds at the same time, and
forget what they knew:

shown: a Modbus server, which is shown each result and acknowledges it.
asked: an OPC UA server, which triggers each part. While it is away parts come without a trigger.
events: an OPC UA client, which subscribes to the events of the results at our server.

seen_s: until GET /api/v1/stations says of all three that the controller is away. drained_s: from the moment
they are back until nothing waits; back_s: until the first answer to a trigger. wrong: answers that were not
those of the part, or OK where the result is not good. untold: results that no trigger had asked for, as the
service counts them.
"""

import argparse
import asyncio
import json
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
from asyncua import Client, Server, ua
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from sinks import account, free_port

from invad.data.formats import IMAGE_SUFFIXES
from invad.evaluation.machine import facts

STATIONS = ("shown", "asked", "events")
RESULTS, OK, ACKNOWLEDGE = 2, 4, 2
FIRST = 10.0
"""Seconds of load before the outage and after it."""

LOOK = 0.01
"""Seconds between two looks of a controller at its own memory."""


class Away(Exception):
    """The power of a controller has gone."""


class Controller:
    """What runs in a loop of its own between `start` and `stop`. seen: station, part, OK of each answer."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, bool]] = []
        self._off = threading.Event()
        self._off.set()

    def start(self) -> None:
        self._off.clear()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)
        self._thread.start()
        self._ready.result(60)

    def stop(self) -> None:
        self._off.set()
        self._thread.join(60)

    async def _live(self) -> None:
        raise NotImplementedError

    async def until(self, true: Callable[[], Any]) -> Any:
        """What becomes true in the memory of the controller. Raises Away."""
        while not (found := true()):
            if self._off.is_set():
                raise Away
            await asyncio.sleep(LOOK)
        return found


class Shown(Controller):
    """A Modbus server that is shown results."""

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()

    async def _live(self) -> None:
        memory = [0] * 200

        async def access(function: int, start: int, at: int, count: int, registers: Any, new: Any) -> None:
            registers[:200] = memory
            if new is not None:
                memory[at - start : at - start + count] = new

        data = SimData(0, count=200, datatype=DataType.REGISTERS)
        server = ModbusTcpServer(
            SimDevice(id=1, simdata=[data], action=access), address=("127.0.0.1", self.port)
        )
        await server.serve_forever(background=True)
        self._ready.set_result(None)
        try:
            while True:
                await self.until(lambda: memory[1] & RESULTS)
                text = b"".join(word.to_bytes(2, "big") for word in memory[16:32]).rstrip(b"\0").decode()
                self.seen.append(("shown", int(text), bool(memory[1] & OK)))
                memory[100] = ACKNOWLEDGE
                await self.until(lambda: not memory[1] & RESULTS)
                memory[100] = 0
        except Away:
            await server.shutdown()


class Asked(Controller):
    """An OPC UA server that asks for parts. camera: makes the part of a number come."""

    OURS = ("ready", "busy", "results_ready", "ok", "ng", "error")
    THEIRS = ("trigger", "acknowledge", "part_id")

    def __init__(self, rate: float, camera: Callable[[int], None]):
        super().__init__()
        self.port, self.rate, self.camera = free_port(), rate, camera
        self.asked = self.faults = 0
        self.answered, self.enough = threading.Event(), threading.Event()

    async def _live(self) -> None:
        server = Server()
        await server.init()
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}/plc")
        await server.register_namespace("urn:plc")
        nodes = {}
        for name in (*self.OURS, *self.THEIRS):
            first = "" if name == "part_id" else False
            nodes[name] = await server.nodes.objects.add_variable(f"ns=2;s={name}", f"2:{name}", first)
            await nodes[name].set_writable()
        space = server.iserver.aspace

        def bit(name: str) -> Any:
            return space.read_attribute_value(nodes[name].nodeid, ua.AttributeIds.Value).Value.Value

        await server.start()
        self._ready.set_result(None)
        due = time.monotonic()
        try:
            while True:
                if await self.until(lambda: bit("ready") or bit("results_ready")) and bit("results_ready"):
                    await self._reset(nodes, bit)  # of a part that it knows nothing of any more
                    continue
                await self.until(lambda: not self.enough.is_set())
                number, due = self.asked, max(due + 1 / self.rate, time.monotonic())
                await nodes["part_id"].write_value(str(number))
                await nodes["trigger"].write_value(True)
                self.asked += 1
                await self.until(lambda: bit("busy"))
                await asyncio.to_thread(self.camera, number)
                await self.until(lambda: bit("results_ready"))
                self.faults += bit("error")
                self.seen.append(("asked", number, bit("ok")))
                self.answered.set()
                await self._reset(nodes, bit)
                while time.monotonic() < due:
                    await self.until(lambda: True)
                    await asyncio.sleep(LOOK)
        except Away:
            await server.stop()

    async def _reset(self, nodes: dict[str, Any], bit: Callable[[str], Any]) -> None:
        await nodes["acknowledge"].write_value(True)
        await self.until(lambda: not bit("results_ready"))
        await nodes["trigger"].write_value(False)
        await nodes["acknowledge"].write_value(False)


class Events(Controller):
    """An OPC UA client that subscribes."""

    def __init__(self, port: int):
        super().__init__()
        self.port = port

    def event_notification(self, event: Any) -> None:
        self.seen.append(("events", int(event.PartId), event.ResultEvaluation == 1))

    async def _live(self) -> None:
        while True:
            try:
                async with Client(f"opc.tcp://127.0.0.1:{self.port}/invad") as client:
                    index = await client.get_namespace_index("urn:invad:line")
                    made = await client.create_subscription(100, self)
                    kind = client.get_node(ua.NodeId("ResultReadyEventType", index))
                    await made.subscribe_events(client.get_node(ua.NodeId("events", index)), kind)
                    self._ready.set_result(None)
                    await asyncio.to_thread(self._off.wait)
                    return
            except (OSError, ua.UaError):  # the server answers a few seconds after the service
                await asyncio.sleep(0.1)


def started(folder: Path, bundle: Path, shown: Shown, asked: Asked, port: int) -> tuple[Any, str]:
    head = {
        name: f'[[station]]\nname = "{name}"\nmodel = {json.dumps(str(bundle.resolve()))}\n'
        for name in STATIONS
    }
    nodes = "\n".join(f'{name} = "ns=2;s={name}"' for name in (*asked.OURS, *asked.THEIRS))
    text = head["shown"] + (
        f'[station.controller]\nkind = "modbus"\nmode = "client"\nport = {shown.port}\ntrigger = false\n'
    )
    text += head["asked"] + (
        'deadline = 10.0\n[station.controller]\nkind = "opcua"\nmode = "client"\n'
        f'url = "opc.tcp://127.0.0.1:{asked.port}/plc"\n[station.controller.nodes]\n{nodes}\n'
    )
    text += head["events"] + (
        f'[[station.output]]\nkind = "opcua"\n[opcua]\nendpoint = "opc.tcp://127.0.0.1:{port}/invad"\n'
    )
    (folder / "line.toml").write_text(text)
    command = [sys.executable, "-m", "invad", "serve", folder / "line.toml", "--data", folder / "line"]
    command += ["--port", "0", "--no-auth", "--reserve", "0", "--threads", "1"]
    with (folder / "said").open("w") as said, (folder / "log").open("w") as log:
        process = Popen([str(c) for c in command], stdout=said, stderr=log, env=os.environ)
    while not (found := re.search(r"http://\S+?:\d+", (folder / "said").read_text())):
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        time.sleep(0.05)
    return process, found[0]


def stored(http: httpx.Client, station: str) -> list[tuple[str, str]]:
    """(part id, decision) of all results, the newest first."""
    found, before = [], None
    while True:
        wanted = {"station": station, "limit": 1000} | ({"cursor": before} if before else {})
        page = http.get("/api/v1/results", params=wanted).json()
        found += [(one["part_id"], one["decision"]) for one in page["results"]]
        if (before := page["next"]) is None:
            return found


def run(bundle: Path, images: list[Path], seconds: float, rate: float) -> dict[str, Any]:
    bodies = [path.read_bytes() for path in images]
    sent, over, alone = dict.fromkeys(STATIONS, 0), threading.Event(), threading.Event()
    with tempfile.TemporaryDirectory() as scratch:
        folder, port = Path(scratch), free_port()

        def post(station: str, part_id: str) -> None:
            body = bodies[sent[station] % len(bodies)]
            answer = http.post(
                f"/api/v1/stations/{station}/inspect",
                params={"part_id": part_id},
                content=body,
                headers={"Content-Type": "image/png"},
            )
            answer.raise_for_status()
            sent[station] += 1

        shown = Shown()
        asked = Asked(rate, lambda number: post("asked", f"{number}"))
        events = Events(port)
        shown.start()
        asked.start()
        process, url = started(folder, bundle, shown, asked, port)
        http = httpx.Client(base_url=url, timeout=120, trust_env=False)
        events.start()

        def load() -> None:
            number, began = 0, time.monotonic()
            while not over.wait(max(0.0, began + number / rate - time.monotonic())):
                for station in ("shown", "events"):
                    post(station, str(sent[station]))
                if alone.is_set():
                    post("asked", f"alone-{number}")
                number += 1

        def states() -> dict[str, dict[str, Any]]:
            found = http.get("/api/v1/stations").json()["stations"]
            return {one["name"]: next(iter(one["outputs"].values())) for one in found}

        def until(true: Callable[[dict[str, dict[str, Any]]], bool]) -> float:
            began = time.monotonic()
            while not true(states()):
                if time.monotonic() - began > 900:
                    raise SystemExit(f"{states()}")
                time.sleep(0.05)
            return round(time.monotonic() - began, 1)

        loading = threading.Thread(target=load)
        loading.start()
        time.sleep(FIRST)
        for one in (shown, asked, events):
            one.stop()
        away = time.monotonic()
        alone.set()
        seen = until(lambda now: now["events"]["waiting"] > 0 and all(one["problem"] for one in now.values()))
        time.sleep(max(0.0, away + seconds - time.monotonic()))
        alone.clear()
        waited = {name: one["waiting"] for name, one in states().items()}
        asked.answered.clear()
        back = time.monotonic()
        for one in (shown, asked, events):
            one.start()
        asked.answered.wait(300)
        answered = round(time.monotonic() - back, 1)
        until(lambda now: all(one["problem"] is None and one["waiting"] <= 3 for one in now.values()))
        drained = round(time.monotonic() - back, 1)
        time.sleep(FIRST)
        over.set()
        loading.join()
        asked.enough.set()
        until(lambda now: all(one["waiting"] == 0 for one in now.values()))
        time.sleep(1)
        there = {name: dict(stored(http, name)) for name in STATIONS}
        untold = re.search(r'invad_untold_total\{station="asked"\} (\S+)', http.get("/metrics").text)
        process.send_signal(signal.SIGTERM)
        process.wait()
        for one in (shown, asked, events):
            one.stop()

    def wrong(answers: list[tuple[str, int, bool]], faults: int = 0) -> int:
        told_other = [is_ok != (there[of].get(str(number)) == "good") for of, number, is_ok in answers]
        return sum(told_other) - faults

    def accounted(one: Controller, name: str) -> dict[str, Any]:
        told = account([(of, number) for of, number, _ in one.seen], {name: sent[name]})
        return {"waited": waited[name], **told, "wrong": wrong(one.seen)}

    return {
        "outage_s": seconds,
        "parts_per_second": rate * len(STATIONS),
        "seen_s": seen,
        "drained_s": drained,
        "shown": accounted(shown, "shown"),
        "events": accounted(events, "events"),
        "asked": {
            "asked": asked.asked,
            "answered": len(asked.seen),
            "answered_with_an_error": asked.faults,
            "wrong": wrong(asked.seen, asked.faults),
            "without_a_trigger": sum(name.startswith("alone") for name in there["asked"]),
            "untold": 0 if untold is None else round(float(untold[1])),
            "back_s": answered,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=2, help="Parts a second at each station.")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # each try to reach somebody who is away
    images = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)[:50]
    made = {
        "what": __doc__.partition("\n")[0],
        "machine": facts(),
        **run(options.bundle, images, options.seconds, options.rate),
    }
    print(json.dumps(made, indent=1), flush=True)
    options.output.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
