"""`line.toml`: the stations of a service, what judges there and where the parts come from."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from invad.errors import ConfigError, in_one_line, reason
from invad.serve.options import station_name
from invad.serve.plant.controllers import AnyController, ModbusController, OpcUaController
from invad.serve.plant.opcua.settings import OpcUa
from invad.serve.plant.outputs import AnyOutput, CsvOutput, FolderOutput, OpcUaOutput, ParquetOutput
from invad.serve.plant.sources import AnySource, CameraSource, FolderSource, GenicamSource
from invad.system.plain import from_plain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONTROLLER = "controller"
"""What the outbox calls that of a station, behind its name."""

SMALLEST = """\
[[station]]
name = "press-1"
model = "model"

[station.source]
kind = "folder"
path = "incoming"
"""

EXAMPLE = """\
# The stations of a service. Paths are relative to this file. Start it with
#     invad serve line.toml --data line/

[[station]]                   # one for each place that parts come from
name = "press-1"              # small letters, digits, dots, dashes, underscores; names the results for ever
model = "models/gasket"       # folder of 'invad train' or 'invad export'; another one later takes over here
category = "gasket"           # whose limits decide; left out: those over all categories of the model
deadline = 0.5                # seconds from the trigger, or from when a part came, after which it is late: NG

[station.source]              # left out: parts come over HTTP alone
kind = "folder"               # a folder that a camera or another program writes images to
path = "incoming/press-1"
pattern = "*.png"             # which of its images; "*" is the default. Other files are left alone
recursive = false             # true: folders inside it, too
settle = 0.5                  # seconds that size and time of a file must not change before it is read
rescan = 2.0                  # seconds between two looks, also where the system tells of new files
done = "done/press-1"         # images that were judged go there; left out: they stay where they are
failed = "failed/press-1"     # those that cannot be read go there; left out: they stay, and are named once

[station.controller]          # a PLC that asks for each part and is answered OK or NG; left out: none
kind = "modbus"               # Modbus TCP; the registers are in docs/connections.md
mode = "server"               # the PLC connects to us; "client": we connect to the PLC and use its registers
host = "127.0.0.1"            # address of ours to listen on, or of the PLC
port = 5020                   # 502 is the default, which takes a right to open it; stations may share a port
unit = 1                      # of this station on that port
base = 0                      # address of its first register
poll = 0.02                   # as a client: seconds between two looks at the commands of the PLC
trigger = true                # false: each result is shown as it comes, one after the other
acknowledge = true            # false: the PLC does not acknowledge, and each is shown for a while
hold = 1.0                    # that while, in seconds
review = "ng"                 # what a part to review sets: "ng", "ok", or "review", a bit of its own
watchdog = 10.0               # seconds within which the PLC has to change its heartbeat; left out: never

[[station.output]]            # who is told of the results; as many as there are receivers
kind = "webhook"              # each result is posted to an address, until it was taken
url = "http://127.0.0.1:9000/results"
secret_variable = "INVAD_WEBHOOK_SECRET"  # of the environment; what it holds signs each post
name = "webhook"              # what pages and metrics call it; left out: its kind
decisions = ["review", "bad"] # of which results; left out: of all

[[station.output]]
kind = "mqtt"                 # each result is a message of MQTT 5 at invad/hall-2/press-1/result
url = "mqtts://broker.example:8883"  # mqtt:// is not encrypted
user = "invad"                # left out, with its password: none
password_variable = "INVAD_MQTT_PASSWORD"
ca_file = "plant-ca.pem"      # whose certificates are believed; left out: those of the system
prefix = "invad"              # of all topics
site = "hall-2"               # the level below; "plant" is the default
address = "https://line.example"  # of this service, for links to pictures; left out: there are none
name = "broker"
decisions = ["good", "review", "bad"]

[[station.output]]            # or with taken = "shown" for controllers that read the variables alone
kind = "opcua"                # each result is an event of the OPC UA server, and stands in its variables
taken = "received"            # it counts as delivered when a client's subscription has confirmed the event;
                              # "acknowledged": when a client called AcknowledgeResults; "shown": at once

[[station.output]]
kind = "csv"                  # each result is a line of results/press-1-DATE.csv
path = "results"              # a folder; made at the start where the one that it lies in is there
most_mib = 64                 # size after which another file of that day begins
name = "lines"
decisions = ["good", "review", "bad"]

[[station.output]]
kind = "parquet"              # results are gathered into tables/DATE/press-1-ID.parquet
path = "tables"
every = 300                   # seconds until what there is is written
rows = 5000                   # or as soon as there are so many, at most 20000
name = "tables"
decisions = ["good", "review", "bad"]

[[station.output]]
kind = "folder"               # a picture of each as pictures/DATE/press-1_PART_ID.png
path = "pictures"
picture = "overlay"           # the image under its map; "image" alone; "map", its values as 16-bit PNG
form = "png"                  # or "jpeg"
side = 1024                   # pixels of the longer side at most; left out: those of the image
name = "overlays"
decisions = ["review", "bad"] # the default of this kind

[[station.output]]
kind = "alert"                # messages to people
urls_variable = "INVAD_ALERT_URLS"  # of the environment: addresses of apprise, with blanks between them
events = ["drift", "source", "output", "disk"]  # what else is told; left out: all of it
quiet = 10                    # minutes between two messages of one kind; the next one counts what came
after = 30                    # seconds until a source, output or disk that does not work is told
address = "https://line.example"
name = "people"
decisions = ["bad"]           # the default of this kind

[[station]]                   # a second one, to which programs post: POST /api/v1/stations/press-2/inspect
name = "press-2"
model = "models/gasket"
deadline = 2.0

[station.controller]          # a PLC that is a client of the OPC UA server below; trigger, acknowledge, hold,
kind = "opcua"                # review and watchdog are as above

[[station]]                   # a camera of the network or of this machine, or a video file
name = "press-3"
model = "models/gasket"

[station.source]
kind = "camera"
url = "rtsp://192.168.0.20/stream1"  # http://... for MJPEG, /dev/video0 for USB, or a video file
policy = "every"              # "latest": newest frame, others are counted; "trigger": those asked for
interval = 0.2                # least seconds between two frames that are judged; 0 is the default
timeout = 5.0                 # seconds without an answer after which a camera is opened again
lag = 0.05                    # of "trigger": seconds from exposure to arrival; left out: one frame
loop = false                  # true: a video file is played again and again, as a camera would
login_variable = "INVAD_CAMERA_LOGIN"  # of the environment, holds user:password
options = { rtsp_transport = "tcp" }  # of FFmpeg; for USB video_size, framerate, input_format

[[station]]                   # an industrial camera, by the GenTL producer of its maker
name = "press-4"
model = "models/gasket"

[station.source]
kind = "genicam"              # policy, interval, lag and timeout as above
producer = "/opt/maker/lib/producer.cti"
serial = "24012345"           # left out: the only one there is
nodes = { PixelFormat = "Mono12", ExposureTime = 5000.0 }  # set in this order

[[station]]
name = "press-5"
model = "models/gasket"
deadline = 2.0

[station.controller]          # a PLC that is an OPC UA server itself, into whose nodes we write
kind = "opcua"
mode = "client"
url = "opc.tcp://192.0.2.10:4840"
poll = 0.05                   # seconds between two looks at its nodes
watchdog = 10.0               # seconds within which it has to change nodes.alive
# user = "invad"              # left out, with its password: none
# password_variable = "INVAD_PLC_PASSWORD"
# certificate = "invad.pem"   # ours, PEM or DER; with it everything is signed and encrypted (Basic256Sha256)
# private_key = "invad.key"
# server_certificate = "plc.der"  # that the PLC has to have; left out: any

[station.controller.nodes]    # node ids at the PLC; those that are left out are not used
trigger = "ns=3;s=Camera.Trigger"        # this and the next four it writes and we read
acknowledge = "ns=3;s=Camera.Acknowledge"
part_id = "ns=3;s=Camera.PartId"         # text, as the lot; written before the trigger
lot = "ns=3;s=Camera.Lot"
alive = "ns=3;s=Camera.Alive"            # any change is a sign of life
ready = "ns=3;s=Camera.Ready"            # bits
busy = "ns=3;s=Camera.Busy"
results_ready = "ns=3;s=Camera.ResultsReady"
ok = "ns=3;s=Camera.Ok"
ng = "ns=3;s=Camera.Ng"
review = "ns=3;s=Camera.Review"
error = "ns=3;s=Camera.Error"
drift = "ns=3;s=Camera.Drift"
error_code = "ns=3;s=Camera.ErrorCode"   # numbers of any width
counter = "ns=3;s=Camera.Counter"
heartbeat = "ns=3;s=Camera.Heartbeat"
score = "ns=3;s=Camera.Score"
p_value = "ns=3;s=Camera.PValue"
result_id = "ns=3;s=Camera.ResultId"     # text

[[station]]
name = "press-6"
model = "models/gasket"
deadline = 2.0

[station.controller]          # a PLC that sends messages; the keys are those of the output "mqtt" above, and
kind = "mqtt"                 # trigger, acknowledge, hold and review
url = "mqtts://broker.example:8883"
user = "invad"
password_variable = "INVAD_MQTT_PASSWORD"
ca_file = "plant-ca.pem"
prefix = "invad"              # triggers come at invad/hall-2/press-6/cmd/inspect
site = "hall-2"

[opcua]                       # the OPC UA server that stations share; it runs while one of them uses it
endpoint = "opc.tcp://127.0.0.1:4840/invad"   # 0.0.0.0 for other machines, which then need what is below
# certificate = "opcua.pem"   # PEM or DER; with it everything is signed and encrypted (Basic256Sha256)
# private_key = "opcua.key"
# user = "plc"                # the only one who may connect; left out: everybody
# password_variable = "INVAD_OPCUA_PASSWORD"  # of the environment
insecure = false              # true: other machines may come without encryption or without a user
"""


_WRITING = CsvOutput | ParquetOutput | FolderOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A place that parts come from. model: a folder. category: None for the limits over all. deadline:
    seconds until a part is late. controller: who asks for parts, or is shown each. output: who is told of
    results.
    """

    name: str
    model: str
    category: str | None = None
    deadline: float | None = None
    source: AnySource | None = None
    controller: AnyController | None = None
    output: tuple[AnyOutput, ...] = ()

    def __post_init__(self) -> None:
        station_name(self.name)
        if not self.model:
            raise ConfigError(f"station {self.name}: model = '': give a folder")
        if self.deadline is not None and not 0.001 <= self.deadline <= 3600:
            raise ConfigError(
                f"station {self.name}: deadline = {self.deadline:g}: give 0.001 to 3600 seconds"
            )
        if self.controller is not None:
            self._require_controller(self.controller)
        self._require_outputs_apart()

    def _require_outputs_apart(self) -> None:
        names = [one.name for one in self.output]
        for name in names:
            station_name(name, "output")
            if names.count(name) > 1:
                raise ConfigError(
                    f"station {self.name}: {names.count(name)} outputs are called {name}; give each a name"
                )
        written = [(one.kind, one.path) for one in self.output if isinstance(one, _WRITING)]
        for kind, path in written:
            if written.count((kind, path)) > 1:
                raise ConfigError(f"station {self.name}: two outputs of kind {kind} write to {path}")

    @property
    def takes(self) -> bool:
        """Whether its source takes a picture when it is asked for one."""
        return getattr(self.source, "policy", None) == "trigger"

    def _require_controller(self, controller: AnyController) -> None:
        if controller.trigger and self.deadline is None:
            raise ConfigError(
                f"station {self.name}: its controller triggers, so it needs a deadline; give one in seconds"
            )
        if controller.trigger and not self.takes and hasattr(self.source, "policy"):
            raise ConfigError(
                f"station {self.name}: its camera judges frames by itself and its controller triggers; give "
                "the camera policy = 'trigger' or the controller trigger = false"
            )
        if self.takes and not controller.trigger:
            raise ConfigError(
                f"station {self.name}: its camera waits for triggers and its controller gives none; give the "
                "controller trigger = true or the camera another policy"
            )
        if any(one.name == CONTROLLER for one in self.output):
            raise ConfigError(f"station {self.name}: an output cannot be called {CONTROLLER} beside one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """All stations of a file, in its order, and the server they share; the paths in them are whole."""

    station: tuple[Station, ...]
    opcua: OpcUa = field(default_factory=OpcUa)

    @property
    def uses_opcua(self) -> bool:
        """Whether a station has anything to do with its server."""
        return any(
            isinstance(used, OpcUaController | OpcUaOutput) and getattr(used, "mode", "server") == "server"
            for one in self.station
            for used in (one.controller, *one.output)
        )

    @property
    def models(self) -> dict[str, Path]:
        """The folder of each station's model."""
        return {one.name: Path(one.model) for one in self.station}


def is_lineup(path: Path) -> bool:
    """Whether a path is meant as a file of stations and not as a model."""
    return path.suffix.lower() == ".toml"


def read_lineup(path: str | Path) -> Lineup:
    """Read a `line.toml`. Raises ConfigError of one line: what is wrong, and where."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error, writing=False)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no text in UTF-8") from None
    try:
        plain: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {in_one_line(error)}") from None
    lineup = from_plain(Lineup, plain, str(path), advice="see 'invad serve init --example'")
    if not lineup.station:
        raise ConfigError(f"{path}: no [[station]]; see 'invad serve init'")
    stations = tuple(_whole(one, path.absolute().parent) for one in lineup.station)
    for line in _clashes(stations):
        raise ConfigError(f"{path}: {line}")
    return Lineup(station=stations, opcua=lineup.opcua.below(path.absolute().parent))


def _whole(station: Station, base: Path) -> Station:
    """With paths that do not depend on where the program was started."""
    source = None if station.source is None else station.source.below(base)
    controller = None if station.controller is None else station.controller.below(base)
    outputs = tuple(one.below(base) for one in station.output)
    model = str(base / station.model)
    return replace(station, model=model, source=source, controller=controller, output=outputs)


def _clashes(stations: tuple[Station, ...]) -> Iterator[str]:
    names = [one.name for one in stations]
    for name in names:
        if names.count(name) > 1:
            yield f"station {name} is there {names.count(name)} times; give each a name of its own"
    taken: dict[tuple[str, int], str] = {}
    for one in stations:
        if isinstance(one.controller, ModbusController):
            holder = taken.setdefault((one.controller.place, one.controller.base), one.name)
            if holder != one.name:
                yield f"stations {holder} and {one.name} have the same registers at {one.controller.place}"
    nodes: dict[tuple[str, str], str] = {}
    for one in stations:
        if isinstance(one.controller, OpcUaController):
            for node in one.controller.nodes.given.values():
                holder = nodes.setdefault((one.controller.place, node), one.name)
                if holder != one.name:
                    at = one.controller.place
                    yield f"stations {holder} and {one.name} have the same node {node} at {at}"
    yield from _shared_cameras(stations)
    watched = [(one.name, one.source) for one in stations if isinstance(one.source, FolderSource)]
    for i, (name, source) in enumerate(watched):
        here = Path(source.path).resolve()
        for other_name, other in watched[:i]:
            there = Path(other.path).resolve()
            if here == there or (other.recursive and there in here.parents):
                yield f"stations {other_name} and {name} would both take the images of {source.path}"
            elif source.recursive and here in there.parents:
                yield f"stations {name} and {other_name} would both take the images of {other.path}"
        for key in ("done", "failed"):
            if getattr(source, key) is None:
                continue
            target = Path(getattr(source, key)).resolve()
            if target == here or (source.recursive and here in target.parents):
                yield f"station {name}: {key} = {target} lies in its source; images would come back"


def _shared_cameras(stations: tuple[Station, ...]) -> Iterator[str]:
    """Cameras of this machine have one user at a time; those of a network may have several."""
    users: dict[str, str] = {}
    for one in stations:
        source = one.source
        is_device = isinstance(source, CameraSource) and source.is_device
        if isinstance(source, CameraSource | GenicamSource) and (is_device or source.kind == "genicam"):
            if source.place in users:
                both = f"{users[source.place]} and {one.name}"
                yield f"stations {both} would both use the camera {source.place}"
            users[source.place] = one.name
