"""Models by name: a JSON file that says where each lies and which files it has.

The index is a file, or an address under http or https. The files of a model lie below its `url`, an address
or a path; one that is neither absolute is taken from where the index lies.
"""

import hashlib
import http.client
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from json import dumps, loads
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import Request, urlopen

from invad.errors import ArtifactError, ConfigError, DataError, reason
from invad.observer import Observer, Silent
from invad.runtime.bundle import BUNDLE, named_files, open_to_all, require_inside, sha256
from invad.system.digests import PIECE
from invad.system.files import PARTIAL, is_folder, is_there, write_atomically, writing
from invad.system.plain import from_plain, read_json, to_plain
from invad.system.version import __version__

FORMAT = 1
INDEX = "index.json"
"""Name of the index in a folder, and below an address that ends in a slash."""

PATIENCE = 30.0
"""Seconds to wait for a server, each time it is asked for something."""

MOST_INDEX_BYTES = 16_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """sha256: of its bytes, hexadecimal. size: bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A trained model or an exported bundle. url: see the module. files: by path below it.

    content_hash: what the model calls itself. description, licence: for people.
    """

    url: str
    files: dict[str, File]
    content_hash: str
    description: str = ""
    licence: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Models by name. base: the address or folder that relative addresses are taken from."""

    base: str
    models: dict[str, Entry]

    def entry(self, name: str) -> Entry:
        """Raises ConfigError for a name that is not in the index."""
        if name not in self.models:
            known = ", ".join(sorted(self.models)) or "none"
            raise ConfigError(f"{self.base}: has no model {name!r}; its models are: {known}")
        return self.models[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plain:
    """What the file holds."""

    format: int
    models: dict[str, Entry] = field(default_factory=dict)


def read_index(place: str) -> Index:
    """Read an index: a file, a folder with `index.json`, or the address of either.

    Raises DataError of one line when it is not there, cannot be fetched or is no index.
    """
    advice = "give an index that 'invad models index' wrote"
    if "://" in place and not _is_address(place):
        raise DataError(
            f"{place}: is read under http and https; of a Hugging Face repository give "
            f"https://huggingface.co/OWNER/NAME/resolve/main/{INDEX}"
        )
    if _is_address(place):
        where = place + INDEX if place.endswith("/") else place
        with _opened(where) as stream:
            content = stream.read(MOST_INDEX_BYTES)
        try:
            plain = loads(content)
        except ValueError:
            raise DataError(f"{where}: is no JSON; {advice}") from None
        base = where
    else:
        path = Path(place) / INDEX if is_folder(Path(place)) else Path(place)
        plain, where, base = read_json(path, DataError, advice), str(path), str(path.parent)
    if isinstance(plain, dict) and type(plain.get("format")) is int and plain["format"] > FORMAT:
        raise DataError(f"{where}: format {plain['format']} is newer than this invad reads; update invad")
    return Index(base=base, models=from_plain(_Plain, plain, where, DataError, advice).models)


def pull(index: Index, name: str, output: Path, observer: Observer | None = None) -> Entry:
    """Fetch a model into a new or empty folder: whole and as the index says it is, or not at all.

    Raises ConfigError for a name that is not in the index, DataError for a file that cannot be fetched or a
    folder that cannot be written, ArtifactError for a file of another size or hash.
    """
    told = observer or Silent()
    entry = index.entry(name)
    for file in entry.files:
        require_inside(Path(index.base), file)
    if is_there(output) and (not is_folder(output) or any(output.iterdir())):
        raise DataError(f"{output}: is not empty; write into a new folder")
    place = output.absolute().parent
    with writing(output):
        place.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=place))
    try:
        told.stage("files", len(entry.files))
        for file, said in entry.files.items():
            target = staging / file
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            _fetch(_join(index.base, entry.url, file), target, said)
            told.advance()
        _require_model(staging, name, entry)
        open_to_all(staging)
        with writing(output):
            staging.replace(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return entry


def make_index(folders: Mapping[str, Path], base: Path) -> dict[str, Any]:
    """The index of models in these folders, by name, as plain data for a file in the folder `base`.

    Raises ArtifactError for a folder that holds no model, or one that lacks files.
    """
    models = {}
    for name, folder in folders.items():
        files = {file: _said(folder / file) for file in named_files(folder)}
        plain = read_json(folder / _head(files), ArtifactError, "export or train it again")
        models[name] = Entry(
            url=quote(Path(os.path.relpath(folder, base)).as_posix()) + "/",
            files=files,
            content_hash=str(plain.get("content_hash")),
            description=_description(plain),
            licence=str(plain.get("backbone_licence") or ""),
        )
    return to_plain(_Plain(format=FORMAT, models=models))


def write_index(folders: Mapping[str, Path], path: Path) -> dict[str, Any]:
    """`make_index` in a file, beside which the models lie. Raises DataError when it cannot be written."""
    plain = make_index(folders, path.parent)
    write_atomically(path, (dumps(plain, indent=1, allow_nan=False) + "\n").encode())
    return plain


def _said(path: Path) -> File:
    if not path.is_file():
        raise ArtifactError(f"{path}: is missing; export or train the model again")
    return File(sha256=sha256(path), size=path.stat().st_size)


def _head(files: Iterable[str]) -> str:
    return BUNDLE if BUNDLE in files else "config.json"


def _description(plain: Mapping[str, Any]) -> str:
    kind = " ".join(str(plain[key]) for key in ("format", "precision") if isinstance(plain.get(key), str))
    return f"bundle, {kind}" if kind else "trained model"


def _require_model(folder: Path, name: str, entry: Entry) -> None:
    """Raises ArtifactError when the files are no whole model, or another one."""
    lacking = sorted(set(named_files(folder)) - set(entry.files))
    if lacking:
        raise ArtifactError(f"{name}: the index lacks its file {lacking[0]}; make the index again")
    content = read_json(folder / _head(entry.files), ArtifactError, "make the index again").get(
        "content_hash"
    )
    if content != entry.content_hash:
        raise ArtifactError(
            f"{name}: is the model {content}, the index says {entry.content_hash}; make it again"
        )


def _fetch(where: str, target: Path, said: File) -> None:
    digest, size = hashlib.sha256(), 0
    with _opened(where) as stream, writing(target), target.open("wb") as file:
        for piece in _pieces(stream, where):
            size += len(piece)
            if size > said.size:
                break
            digest.update(piece)
            file.write(piece)
    if size != said.size or digest.hexdigest() != said.sha256:
        what = "another SHA-256" if size == said.size else f"other than {said.size} bytes"
        raise ArtifactError(
            f"{where}: has {what}, against the index; nothing was kept, ask who made the index"
        )


def _pieces(stream: IO[bytes], where: str) -> Iterator[bytes]:
    with _named(where):
        while piece := stream.read(PIECE):
            yield piece


@contextmanager
def _opened(where: str) -> Iterator[IO[bytes]]:
    """A file or an address, opened. Raises DataError of one line."""
    with _named(where):
        if _is_address(where):
            request = Request(where, headers={"User-Agent": f"invad/{__version__}"})
            stream: IO[bytes] = urlopen(request, timeout=PATIENCE)
        else:
            stream = Path(where).open("rb")  # noqa: SIM115 - closed below
    with stream:
        yield stream


@contextmanager
def _named(where: str) -> Iterator[None]:
    advice = "check the address and the network"
    try:
        yield
    except HTTPError as error:
        with error:
            raise DataError(f"{where}: the server answers {error.code} {error.reason}; {advice}") from None
    except URLError as error:
        why = getattr(error.reason, "strerror", None) or error.reason
        raise DataError(f"{where}: cannot be fetched ({why}); {advice}") from None
    except TimeoutError:
        raise DataError(f"{where}: does not answer within {PATIENCE:.0f} s; {advice}") from None
    except (http.client.HTTPException, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{where}: cannot be fetched ({why[:120]}); {advice}") from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {reason(error, writing=False)}") from None


def _is_address(place: str) -> bool:
    return urlsplit(place).scheme in ("http", "https")


def _join(base: str, url: str, file: str) -> str:
    """Where a file lies. Raises DataError for an address of another kind."""
    scheme = urlsplit(url).scheme
    if len(scheme) > 1 and scheme not in ("http", "https"):  # one letter is a drive of Windows
        raise DataError(f"{url}: has the scheme {scheme!r}; an index names http, https or a path")
    below = url if url.endswith("/") else url + "/"
    if _is_address(url):
        return below + quote(file)
    if _is_address(base):
        return urljoin(base, below) + quote(file)
    return str(Path(base) / unquote(below) / file)
