"""What the service says of a part, and how it refuses one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import MISSING, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from invad.data.png import encode_png
from invad.errors import DataError, InvadError, reason
from invad.records import Decision
from invad.scoring.regions import Region
from invad.serve.groups import packed
from invad.serve.options import DEFAULT_STATION
from invad.system.plain import to_plain

SCHEMA = 1
"""Of `Result`; raised when a reader of the former one would misread it."""


LONGEST_WORD = 200
"""Characters of a part_id, lot or request_id."""

Verdict = Literal["good", "bad", "unsure"]

Judgement = Literal["good", "bad", "unsure", "open"]
"""What a review says: a verdict, or that there is none any more, so that the part waits again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part as it came in. body: the encoded image, or its pixels, H x W or H x W x 3 (RGB) of uint8 or
    uint16, which nobody writes to any more. station, category: known ones. several: the body is an archive of
    several pictures, see `groups`."""

    body: bytes | NDArray[Any]
    station: str
    part_id: str | None = None
    lot: str | None = None
    category: str | None = None
    source: str = "http"
    request_id: str | None = None
    several: bool = False

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return self.body.nbytes if isinstance(self.body, np.ndarray) else len(self.body)


class Refused(InvadError):
    """A request that the service does not do. status: of HTTP. retry_after: seconds after which it may. code:
    a word for the reason, for whoever has no room for the message."""

    def __init__(self, message: str, status: int, retry_after: int | None = None, code: str = "other"):
        super().__init__(message)
        self.status, self.retry_after, self.code = status, retry_after, code


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """A part that a controller waits for. due: when it is late, on the clock that only rises. admitted: told
    the future of its result. refused: called when it is not taken; the next one is
    waited for. is_new: its request_id was made for it, so that nothing of it can be stored."""

    part: Part
    due: float
    admitted: "Callable[[Future[Result]], None]"
    refused: Callable[[], None]
    is_new: bool

    def submitted(self, submit: "Callable[[Part, float, Awaited], Future[Result]]") -> "Future[Result]":
        """What `submit` gives and raises, told to whoever waits."""
        try:
            future = submit(self.part, self.due, self)
        except BaseException:
            self.refused()
            raise
        self.admitted(future)
        return future


@dataclass(frozen=True, slots=True, kw_only=True)
class Milliseconds:
    """How long a part waited for its run, was decoded, was judged, and until its row began to be written."""

    queue: float
    decode: float
    infer: float
    store: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Of the image itself: mean grey in 0..1, share of clipped pixels, sharpness; see `pictures`."""

    grey: float
    clipped: float
    sharpness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One picture of a part of several. score, p_value: by the limits of its member that came with the model;
    above: spreads above the mean of its good ones, by which members are compared. None where it was not
    judged; `Result.reason` then says why. sha256: of its file, None of results from before it was kept."""

    member: str
    score: float | None
    p_value: float | None
    above: float | None
    sha256: str | None = None

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> "Member":
        """From JSON data; keys that this version does not know are left out. Raises TypeError."""
        return cls(**{field.name: plain[field.name] for field in fields(cls) if field.name in plain})


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What is known of one part: the answer to an inspection, the row of the history, the payload of sinks.

    id: rises with the order of storing. time: when the part came in, UTC. source: http, python, oip or
    the kind of the station's source. request_id: the caller's own name of the request. image_sha256: of the
    file that is kept, which is a PNG where pixels came. width, height: of the image, upright, in pixels.
    model_version: content hash. calibration: the revision whose limits decided. peak: largest value of the
    anomaly map. regions: places of the map above its review limit, highest peak first.
    image_kept, map_kept: whether the files can still be had. audit: a good part that people should look at,
    too, drawn by lot. late: it came after the deadline of its station, so controllers were told NG; the
    decision is that of the model. verdict: what people said last, good, bad or unsure; the decision stays.
    members: of a part of several pictures, each that came; empty of one picture. image_sha256 is then that of
    all of them in one file, and width, height, map, peak and regions are of the member `seen_by`, which lies
    highest; picture is of the first one. reason: what was wrong with the pictures, so that the part is not
    good.
    """

    schema: int
    id: str
    station: str
    time: str
    part_id: str | None
    lot: str | None
    category: str | None
    source: str
    request_id: str | None
    image_sha256: str
    width: int
    height: int
    model: str
    model_version: str
    calibration: int
    score: float
    peak: float
    p_value: float
    decision: Decision
    review_limit: float
    bad_limit: float
    regions: tuple[Region, ...]
    image_kept: bool
    map_kept: bool
    audit: bool
    late: bool
    verdict: Verdict | None
    picture: Picture
    ms: Milliseconds
    members: tuple[Member, ...] = ()
    seen_by: str | None = None
    reason: str | None = None

    @property
    def shown(self) -> int | None:
        """The place in `members` of the picture that is shown; None of one picture."""
        names = [one.member for one in self.members]
        return names.index(self.seen_by) if self.seen_by in names else None

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return to_plain(self)

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> "Result":
        """From JSON data; keys that this version does not know are left out.

        Raises KeyError or TypeError when it is no result.
        """
        is_optional = {field.name for field in fields(cls) if field.default is not MISSING}
        known = {
            field.name: plain[field.name]
            for field in fields(cls)
            if field.name in plain or field.name not in is_optional
        }
        of_region = {field.name for field in fields(Region)}
        known["regions"] = tuple(
            Region(**{name: value for name, value in region.items() if name in of_region})
            for region in known["regions"]
        )
        known["picture"] = Picture(**known["picture"])
        known["ms"] = Milliseconds(**known["ms"])
        known["members"] = tuple(map(Member.of_plain, known.get("members", ())))
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """What a source does that brings parts by itself. place: where it looks. problem: why it takes nothing,
    in words, or None. waiting: images that are there and not answered. taken, failed: since the start;
    failed ones could not be judged. other: files left alone, because they are no images of the pattern.
    elsewhere: another service on the same database brings them now. skipped: frames for which there was no
    room. note: what else people should know, in words, or None."""

    kind: str
    place: str
    problem: str | None
    waiting: int
    taken: int
    failed: int
    other: int
    elsewhere: bool = False
    skipped: int = 0
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkState:
    """How far whoever is told of results is. place: where they go, without secrets. problem: why nothing is
    taken, in words, or None. waiting: results not taken yet, the oldest of which came so many seconds ago.
    delivered: since the start. elsewhere: another service on the same database delivers now."""

    kind: str
    place: str
    problem: str | None
    waiting: int
    oldest_seconds: float
    delivered: int
    elsewhere: bool = False


Image: TypeAlias = str | Path | bytes | NDArray[Any]
"""A path, encoded bytes, or pixels."""


class Inspector(ABC):
    """Whatever judges a part and keeps the result: a service in this process, or one at an address."""

    def inspect(
        self,
        image: Image | Mapping[str, Image],
        *,
        station: str = DEFAULT_STATION,
        part_id: str | None = None,
        lot: str | None = None,
        category: str | None = None,
        request_id: str | None = None,
    ) -> Result:
        """Judge one image and keep the result; it is stored when this returns.

        image: path, encoded bytes, or pixels: H x W or H x W x 3 (RGB), uint8 or uint16. They are judged as
        they are and kept as PNG, of which 'invad predict' gives the same score. request_id: the same one
        gives the stored result again. Of a part of several pictures `image` is a mapping from members to
        images. Raises Refused, with an HTTP status, for what cannot be read, is not
        known or comes when the line is full; DataError for a file that is not there or a service that does
        not answer.
        """
        part = Part(
            body=_together(image) if isinstance(image, Mapping) else _body(image),
            several=isinstance(image, Mapping),
            station=station,
            part_id=part_id,
            lot=lot,
            category=category,
            source="python",
            request_id=request_id,
        )
        return self.inspect_part(part)

    @abstractmethod
    def inspect_part(self, part: Part) -> Result:
        """As `inspect`."""


def _together(pictures: Mapping[str, Image]) -> bytes:
    for name in pictures:
        require_word("the name of a picture", name)
    bodies = {name: _body(image) for name, image in pictures.items()}
    return packed(
        (name, encode_png(body) if isinstance(body, np.ndarray) else body) for name, body in bodies.items()
    )


def _body(image: Image) -> bytes | NDArray[Any]:
    """Pixels are copied: a shadow may judge them after the caller has used their memory again."""
    if isinstance(image, np.ndarray):
        return image.copy()
    return image if isinstance(image, bytes) else read_file(image)


def require_word(name: str, value: str | None) -> None:
    """Raises Refused for text that is long or holds what no database and no terminal takes."""
    if value is not None and not (0 < len(value) <= LONGEST_WORD and value.isprintable()):
        raise Refused(f"{name}: give 1 to {LONGEST_WORD} printable characters", 400)


def read_file(path: str | Path) -> bytes:
    """Raises DataError when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from None


def utc(milliseconds: int) -> str:
    """Milliseconds since 1970 as `2026-11-28T19:21:11.042Z`."""
    when = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(text: str) -> int:
    """The reverse of `utc`, of any ISO date; without an offset it is UTC. Raises ValueError."""
    when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return round(when.timestamp() * 1000)
