"""What an archive consists of, and how an image of it is opened."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

from invad.data.formats import IMAGE_SUFFIXES
from invad.data.listing import is_companion, is_image, is_passed_over, natural_key, not_taken_in_words, survey
from invad.data.lists import Named, table_rows, text_lines
from invad.errors import ConfigError, DataError, in_one_line
from invad.system.files import is_file, is_folder

LISTS = (".csv", ".parquet", ".txt")
"""Endings of files that name images: one a line, or in a column `path`."""

State: TypeAlias = tuple[int, int | None]
"""By which a replaced file is known: its bytes, and when it was last modified, in nanoseconds."""


class Source(NamedTuple):
    """images: local paths, absolute, or URLs, each once. left_out: what was not taken, in words."""

    images: list[str]
    left_out: tuple[str, ...] = ()


def list_source(source: str | Path) -> Source:
    """The images of a source, see `score_archive`. Raises DataError when there are none."""
    text = os.fspath(source)
    if "://" in text:
        parts = urlsplit(text)
        if parts.password or "secret_key" in parse_qs(parts.query):
            raise ConfigError(
                "the URL holds a password, which would be written with every row; use the environment"
            )
        return _list_url(text)
    path = Path(source)
    left_out: tuple[str, ...] = ()
    if is_folder(path):
        listed = survey(path)
        images, left_out = [_as_text(p.absolute()) for p in listed.images], listed.in_words()
    elif path.suffix.lower() in LISTS and is_file(path):
        images = list(_named(path))
    elif is_file(path) and is_image(path):
        images = [_as_text(path.absolute())]
    else:
        raise DataError(f"{path}: give a folder, a list of images ({', '.join(LISTS)}) or a URL")
    if not images:
        said = "".join(f"; {line}" for line in left_out)
        raise DataError(f"{path}: no images in it{said}; give a folder or list of images")
    return Source(list(dict.fromkeys(images)), left_out)


def _named(path: Path) -> Iterator[str]:
    """The images that a list names: local paths from the root, or URLs."""
    if path.suffix.lower() == ".txt":
        names = text_lines(path)
    else:
        names = [row["path"] for _, row in table_rows(path, lambda columns: _path_column(path, columns))]
    files = Named(path.parent)
    for name in names:
        yield name if "://" in name else _as_text(files.path(name).absolute())


def _path_column(path: Path, columns: Sequence[str]) -> Collection[str]:
    if "path" not in columns:
        raise DataError(f"{path}: no list of images; give a column named path")
    return ("path",)


def _as_text(path: Path) -> str:
    """A name that is no UTF-8 goes into Parquet as a URL, which is text and leads back to the file."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return path.as_uri()
    return os.fspath(path)


def _list_url(url: str) -> Source:
    import pyarrow as pa
    from pyarrow import fs

    parts = urlsplit(url)
    options = f"?{parts.query}" if parts.query else ""
    try:
        files, root = fs.FileSystem.from_uri(url)
        entries = files.get_file_info(fs.FileSelector(root, recursive=True))
    except (OSError, ValueError, pa.ArrowException) as error:
        line = in_one_line(error)
        raise DataError(f"{url}: cannot be listed ({line}); check the address and the access to it") from None
    below = [
        f.path
        for f in entries
        if f.is_file and not any(map(is_passed_over, Path(f.path).relative_to(root).parts))
    ]
    names = [name for name in below if name.lower().endswith(IMAGE_SUFFIXES)]
    others = sorted(name for name in set(below).difference(names) if not is_companion(name))
    left_out = not_taken_in_words([(name, Path(name).suffix.lower()) for name in others])
    if not names:
        said = "".join(f"; {line}" for line in left_out)
        raise DataError(f"{url}: no images{said}; give a prefix with {', '.join(IMAGE_SUFFIXES)} files")
    names.sort(key=lambda name: natural_key(Path(name)))
    return Source([f"{parts.scheme}://{quote(name)}{options}" for name in names], left_out)


def states(paths: Iterable[str]) -> dict[str, State]:
    """How the files at these paths, local or URLs, are now; those that nobody can look at are left out.

    Raises OSError when a server does not answer.
    """
    by_path: dict[str, State] = {}
    remote: dict[tuple[str, str, str], list[str]] = {}
    for path in paths:
        local = _local(path)
        if local is None:
            parts = urlsplit(path)
            remote.setdefault((parts.scheme, parts.netloc, parts.query), []).append(path)
            continue
        with suppress(OSError, ValueError):
            looked = os.stat(local)  # noqa: PTH116
            by_path[path] = looked.st_size, looked.st_mtime_ns
    for urls in remote.values():
        by_path |= _states_of(urls)
    return by_path


def _states_of(urls: Sequence[str]) -> dict[str, State]:
    """Of files on one server."""
    from pyarrow import fs

    files, _ = fs.FileSystem.from_uri(urls[0])
    infos = files.get_file_info([fs.FileSystem.from_uri(url)[1] for url in urls])
    return {url: (info.size, info.mtime_ns) for url, info in zip(urls, infos, strict=True) if info.is_file}


def _local(path: str) -> str | None:
    """The name of a local file; None for a URL of anything else."""
    if "://" not in path:
        return path
    parts = urlsplit(path)
    return os.fsdecode(unquote_to_bytes(parts.path)) if parts.scheme == "file" else None


def readable(path: str) -> str | bytes:
    """A local path as it is, the bytes behind a URL."""
    local = _local(path)
    if local is not None:
        return local
    from pyarrow import fs

    files, inside = fs.FileSystem.from_uri(path)
    with files.open_input_stream(inside) as stream:
        return bytes(stream.read())
