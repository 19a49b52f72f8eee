"""Talks to a service; needs httpx and nothing of the service itself."""

import os
import time
from collections.abc import Iterator
from os import SEEK_END
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import httpx
import numpy as np

from invad.data.png import encode_png
from invad.errors import ConfigError, DataError
from invad.serve.archives import packed
from invad.serve.groups import unpacked
from invad.serve.ids import Ids
from invad.serve.options import DEFAULT_STATION
from invad.serve.records import Inspector, Part, Refused, Result
from invad.serve.verdicts import Pictures, Words, Written, write_set

KEY_VARIABLE = "INVAD_KEY"
"""Where the key is looked for when none is given: a command line is seen by everybody on a machine."""

LONGEST_PAUSE = 30.0
UPLOAD_SECONDS = 900.0
"""Until a model that was uploaded is proved."""


class Client(Inspector):
    """A service at an address. Use it in a `with` block, or call `close`.

    A part that the service is too busy for, or whose answer is lost, is sent again under the same
    `request_id`, so it is stored once.
    """

    def __init__(self, address: str, *, key: str | None = None, timeout: float = 60, patience: float = 120):
        """address: such as http://127.0.0.1:8000. key: by default that of the environment variable INVAD_KEY.
        timeout: seconds of one request. patience: seconds until a part is given up; 0 sends it once.
        Raises ConfigError for what is no address."""
        key = key if key is not None else os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.address, self.patience = address.rstrip("/"), patience
        try:
            self._http = httpx.Client(base_url=self.address, headers=headers, timeout=timeout)
        except httpx.InvalidURL:
            raise ConfigError(f"{self.address}: is no address; give http://HOST:PORT") from None
        if self._http.base_url.scheme not in ("http", "https"):
            raise ConfigError(f"{self.address}: is no address; give http://HOST:PORT")
        self._ids = Ids()

    def inspect_part(self, part: Part) -> Result:
        """As `inspect`. A part without a request_id gets one of its own."""
        words = {
            "part_id": part.part_id,
            "lot": part.lot,
            "category": part.category,
            "request_id": part.request_id or self._ids.new(),
        }
        given = {name: value for name, value in words.items() if value is not None}
        path = f"/api/v1/stations/{part.station}/inspect"
        body = encode_png(part.body) if isinstance(part.body, np.ndarray) else part.body
        pictures = unpacked(body) if part.several else [("image", body)]
        files = [(name, (name, content)) for name, content in pictures]
        return Result.of_plain(self._patiently("POST", path, params=given, files=files))

    def result(self, id: str) -> Result:
        """One result of the history. Raises Refused (404) where there is none."""
        return Result.of_plain(self._patiently("GET", f"/api/v1/results/{id}"))

    def results(self, **query: str | int) -> Iterator[Result]:
        """The history, newest first, read page by page.

        query: station, decision, part_id, lot, since, until, and `limit`, the length of a page.
        """
        while True:
            page = self._patiently("GET", "/api/v1/results", params=query)
            yield from map(Result.of_plain, page["results"])
            if page["next"] is None:
                return
            query = {**query, "cursor": page["next"]}

    def file(self, id: str, kind: str, number: int | None = None) -> bytes:
        """A file of a result. kind: image, map or overlay. number: of the image of a part of several, its
        place in `members`; None: the one that lies highest. Raises Refused (404, 410) where it is not kept.
        """
        place = {} if number is None else {"params": {"number": number}}
        return self._answer("GET", f"/api/v1/results/{id}/{kind}", self.patience, **place).content

    def export_verdicts(self, output: str | Path, station: str | None = None) -> Written:
        """Write what people said as a data set that `invad evaluate` reads, into a new or empty folder; see
        `write_set`. The key needs the scope read. Raises DataError, Refused."""
        of_station = {} if station is None else {"station": station}

        def words(part: Result) -> Words:
            said = self._patiently("GET", f"/api/v1/results/{part.id}/reviews")["reviews"]
            return Words.of((one["verdict"], one["defect"], one["mask"]) for one in said)

        def kept(part: Result) -> Pictures | None:
            if not part.image_kept:
                return None
            try:
                if not part.members:
                    return [("", self.file(part.id, "image"))]
                numbered = enumerate(part.members)
                return [(one.member, self.file(part.id, "image", number)) for number, one in numbered]
            except Refused as refused:
                if refused.status not in (404, 410):
                    raise
                return None

        judged = self.results(reviewed="true", **of_station)
        unreviewed = self.results(reviewed="false", decision="good", limit=100, **of_station)
        return write_set(judged, unreviewed, Path(output), words, kept)

    def stations(self) -> list[dict[str, Any]]:
        """Where parts come from."""
        found: list[dict[str, Any]] = self._patiently("GET", "/api/v1/stations")["stations"]
        return found

    def versions(self, model: str | None = None) -> list[dict[str, Any]]:
        """Versions of a model, or of all, newest first. Raises Refused (404) for an unknown model."""
        path = "/api/v1/models" if model is None else f"/api/v1/models/{model}/versions"
        found: list[dict[str, Any]] = self._patiently("GET", path)["versions"]
        return found

    def add_version(self, folder: str | Path, model: str | None = None) -> dict[str, Any]:
        """Upload a bundle or a trained model, which the service proves on its machine; a candidate then.

        model: its name there, by default that of the folder. Raises DataError for a folder that cannot be
        read, Refused with what is wrong.
        """
        path = Path(folder)
        name = model or path.resolve().name
        kind = {"Content-Type": "application/zip"}
        with packed(path) as file:
            kind["Content-Length"] = str(file.seek(0, SEEK_END))
            file.seek(0)
            # Sent once: a stream cannot be repeated, and who sends it again meets what there is.
            path_there = f"/api/v1/models/{name}/versions"
            made: dict[str, Any] = self._answer(
                "POST", path_there, 0, content=_pieces(file), headers=kind, timeout=UPLOAD_SECONDS
            ).json()
            return made

    def shadow(self, model: str, version: str, station: str = DEFAULT_STATION) -> dict[str, Any]:
        """Let a version score the parts of a station, too."""
        return self._act(f"/api/v1/models/{model}/versions/{version}:shadow", station=station)

    def end_shadow(self, station: str = DEFAULT_STATION) -> None:
        """Raises Refused (404) where there is none."""
        self._answer("DELETE", f"/api/v1/stations/{station}/shadow", self.patience)

    def comparison(self, station: str = DEFAULT_STATION) -> dict[str, Any]:
        """How the shadow of a station fares beside the active version. Raises Refused (404)."""
        found: dict[str, Any] = self._patiently("GET", f"/api/v1/stations/{station}/shadow")
        return found

    def activate(
        self, model: str, version: str, station: str = DEFAULT_STATION, reason: str | None = None
    ) -> dict[str, Any]:
        """Let a version judge. Raises Refused (409) with what speaks against it; a reason overrules that."""
        path = f"/api/v1/models/{model}/versions/{version}:activate"
        return self._act(path, station=station, reason=reason)

    def roll_back(self, station: str = DEFAULT_STATION, reason: str | None = None) -> dict[str, Any]:
        """Let the version judge that did before. Raises Refused (409) where there was no other."""
        return self._act(f"/api/v1/stations/{station}/version:rollback", reason=reason)

    def retire(self, model: str, version: str, reason: str | None = None) -> dict[str, Any]:
        """Take a version out of use. Raises Refused (409) where it runs."""
        return self._act(f"/api/v1/models/{model}/versions/{version}:retire", reason=reason)

    def is_ready(self) -> bool:
        """Whether the service takes parts."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _act(self, path: str, **content: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._patiently("POST", path, json=content)
        return found

    def _patiently(self, verb: str, path: str, **content: Any) -> Any:
        return self._answer(verb, path, self.patience, **content).json()

    def _answer(self, verb: str, path: str, patience: float, **content: Any) -> httpx.Response:
        until, wait = time.monotonic() + patience, 0.2
        while True:
            try:
                answer = self._http.request(verb, path, **content)
            except httpx.TransportError as error:
                problem: Exception = DataError(
                    f"{self.address}: does not answer ({type(error).__name__} {error}); "
                    "is the service started?"
                )
                pause = wait = min(2 * wait, LONGEST_PAUSE)
            else:
                if answer.is_success:
                    return answer
                later = answer.headers.get("retry-after", "")
                pause = min(float(later), LONGEST_PAUSE) if later.isdigit() else 1.0
                problem = Refused(_said(answer), answer.status_code, round(pause))
                if answer.status_code != 503:
                    raise problem
            if time.monotonic() + pause > until:
                raise problem
            time.sleep(pause)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(1 << 20):
        yield piece


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code} of {answer.request.url}"
