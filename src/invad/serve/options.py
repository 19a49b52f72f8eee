"""How a service is set up."""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address

from invad.errors import ConfigError
from invad.scoring.drift import DriftSettings

MIB, GIB = 1 << 20, 1 << 30
DAY_MS = 24 * 3600 * 1000
DEFAULT_STATION = "default"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Days that images and maps are kept, by decision, and that rows are."""

    good: float = 7
    review: float = 365
    bad: float = 365
    rows: float = 3650

    def __post_init__(self) -> None:
        for name in ("good", "review", "bad", "rows"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is kept for {getattr(self, name)} days; give at least 0")
            if getattr(self, name) > self.rows:
                raise ConfigError(
                    f"images of {name} parts are kept for {getattr(self, name):g} days, their rows for "
                    f"{self.rows:g}; keep rows at least as long"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """queue: parts that may be under way; more are refused. batch: parts of one run at most, None for 8 on
    a GPU and 1 elsewhere; with 1 a score is that of `invad predict`, to the bit. delay_ms: how long a run
    waits for more parts. streams: runs at the same time, of an exported bundle. decoders: threads that
    decode. memory: bytes of bodies, and of pixels, that may be held. max_body: bytes of a request.
    head_seconds, body_seconds: until the head of a request, and the whole of it, has to be there. reserve:
    free bytes of the disk below which no images are kept any more, and below a quarter of which no parts
    are taken. wait_seconds: how long a part waits for a database that does not take it. audit_share: of the
    good parts, drawn by lot, that people should look at, too. drift: how it is watched for. webhook: URL
    that every result is posted to, webhook_secret: signs it."""

    queue: int = 64
    batch: int | None = None
    delay_ms: float = 0
    streams: int = 1
    decoders: int = 2
    memory: int = GIB
    max_body: int = 64 * MIB
    head_seconds: float = 10
    body_seconds: float = 30
    reserve: int = GIB
    wait_seconds: float = 10
    audit_share: float = 1 / 200
    retention: Retention = Retention()
    drift: DriftSettings = field(default_factory=DriftSettings)
    shadow: int = 256
    max_model: int = 2 * GIB
    webhook: str | None = None
    webhook_secret: str = ""

    def __post_init__(self) -> None:
        least = {"queue": 1, "streams": 1, "decoders": 1, "memory": 1, "max_body": 1, "max_model": 1}
        least |= {"reserve": 0, "shadow": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name} = {getattr(self, name)}: give at least {low}")
        if not 0 <= self.audit_share <= 1:
            raise ConfigError(f"audit_share = {self.audit_share}: give a share between 0 and 1")
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"batch = {self.batch}: give at least 1")
        if self.webhook and not re.match(r"https?://", self.webhook):
            raise ConfigError(f"webhook {self.webhook}: give an address that begins with https:// or http://")


def station_name(name: str, what: str = "station") -> str:
    """The name, if it is one of a station, or of something else that is named so. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r}: give up to 64 small letters, digits, dots, dashes and underscores"
        )
    return name


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
