"""Talks to a service; needs httpx and nothing of the service itself."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from invad.errors import ConfigError, DataError, reason
from invad.serve.ids import Ids
from invad.serve.options import DEFAULT_STATION
from invad.serve.records import Refused, Result

KEY_VARIABLE = "INVAD_KEY"
"""Where the key is looked for when none is given: a command line is seen by everybody on a machine."""

LONGEST_PAUSE = 30.0


class Client:
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

    def inspect(
        self,
        image: str | Path | bytes,
        *,
        station: str = DEFAULT_STATION,
        part_id: str | None = None,
        lot: str | None = None,
        category: str | None = None,
        request_id: str | None = None,
    ) -> Result:
        """The stored result of an image: a path or encoded bytes.

        request_id: one of its own unless given. Raises DataError for a file that cannot be read or a service
        that does not answer, Refused with the status of what the service does not take.
        """
        words = {
            "part_id": part_id,
            "lot": lot,
            "category": category,
            "request_id": request_id or self._ids.new(),
        }
        given = {name: value for name, value in words.items() if value is not None}
        body = image if isinstance(image, bytes) else _content(image)
        path = f"/api/v1/stations/{station}/inspect"
        return Result.of_plain(self._patiently("POST", path, params=given, files={"image": ("image", body)}))

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

    def file(self, id: str, kind: str) -> bytes:
        """A file of a result. kind: image, map or overlay. Raises Refused (404, 410) where it is not kept."""
        return self._answer("GET", f"/api/v1/results/{id}/{kind}", self.patience).content

    def stations(self) -> list[dict[str, Any]]:
        """Where parts come from."""
        found: list[dict[str, Any]] = self._patiently("GET", "/api/v1/stations")["stations"]
        return found

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


def _content(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from None


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code} of {answer.request.url}"
