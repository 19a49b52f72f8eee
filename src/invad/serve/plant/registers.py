"""The registers that a controller reads and writes: the signals of a station as words of 16 bits.

All addresses are holding registers behind the base of the station; numbers of several words begin with the
high one. docs/connections.md has the table, which a test holds to this.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from invad.serve.plant.cycle import Signals

ROOM = 100
"""Registers from the base that we write; commands begin behind them."""

BLOCK = 48
"""Of these, those that mean something."""

COMMANDS = 35
TEXT = 16
"""Registers of a text, two characters each."""

AT_STATUS, AT_PART, AT_LOT = 1, 16, 32
AT_COMMAND, AT_COMMAND_PART, AT_COMMAND_LOT, AT_COMMAND_HEARTBEAT = 0, 2, 18, 34

NAMES: dict[str, str] = {
    "0": "heartbeat: one more each second",
    "1": "status: bit 0 ready, 1 results ready, 2 OK, 3 NG, 4 review, 5 error, 6 drift alarm, 7 busy",
    "2": "error code",
    "3-4": "result counter, u32: one more with each answer",
    "5-6": "p-value times 1,000,000, u32",
    "7-8": "score, f32",
    "9": "regions above the review limit",
    "10-13": "the region with the highest peak: x, y, width, height in pixels",
    "14": "model version: the first four hexadecimal digits of its hash",
    "15": "calibration revision",
    "16-31": "part id that is under way or answered, 32 ASCII characters",
    "32-47": "its lot, 32 ASCII characters",
    "100": "command: bit 0 trigger, 1 acknowledge",
    "101": "not used",
    "102-117": "part id for the trigger, 32 ASCII characters; zeros for none",
    "118-133": "lot for the trigger, 32 ASCII characters; zeros for none",
    "134": "heartbeat of the controller: any change is a sign of life",
}
"""The table, by address behind the base; from 100 on the controller writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """What a controller has written."""

    trigger: bool
    acknowledge: bool
    part_id: str
    lot: str
    heartbeat: int


def words(signals: Signals) -> list[int]:
    """The `BLOCK` registers of a station. Where nothing is answered the numbers of a result are 0."""
    bits = (
        *(signals.ready, signals.results_ready, signals.ok, signals.ng, signals.review, signals.error),
        *(signals.drift, signals.busy),
    )
    block = [signals.heartbeat, sum(bit << i for i, bit in enumerate(bits)), signals.error_code]
    block += _split(">I", signals.counter)
    result = signals.result
    if result is None:
        block += [0] * (AT_PART - len(block))
    else:
        block += _split(">I", round(result.p_value * 1_000_000))
        block += _split(">f", max(-3e38, min(3e38, result.score)))
        first = result.regions[0] if result.regions else None
        place = (0, 0, 0, 0) if first is None else (first.x, first.y, first.width, first.height)
        version = int(result.model_version[:4], 16)
        block += [min(number, 0xFFFF) for number in (len(result.regions), *place, version)]
        block.append(result.calibration & 0xFFFF)
    return [*block, *text_words(signals.part_id), *text_words(signals.lot)]


def commands(registers: Sequence[int]) -> Commands:
    """What stands in the `COMMANDS` registers from 100 on."""
    command = registers[AT_COMMAND]
    return Commands(
        trigger=bool(command & 1),
        acknowledge=bool(command & 2),
        part_id=text_of(registers[AT_COMMAND_PART : AT_COMMAND_PART + TEXT]),
        lot=text_of(registers[AT_COMMAND_LOT : AT_COMMAND_LOT + TEXT]),
        heartbeat=registers[AT_COMMAND_HEARTBEAT],
    )


def text_words(text: str | None) -> list[int]:
    """The first 32 characters, two in a word; what is not ASCII is a question mark."""
    raw = (text or "").encode("ascii", "replace")[: 2 * TEXT].ljust(2 * TEXT, b"\0")
    return list(struct.unpack(f">{TEXT}H", raw))


def text_of(registers: Sequence[int]) -> str:
    """Up to the first zero; what is not ASCII is a question mark."""
    raw = struct.pack(f">{len(registers)}H", *registers).split(b"\0")[0]
    return "".join(chr(byte) if byte < 128 else "?" for byte in raw).strip()


def _split(form: str, number: float) -> tuple[int, int]:
    high, low = struct.unpack(">HH", struct.pack(form, number))
    return high, low
