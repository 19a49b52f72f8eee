"""What lies at a path, and writing there without ever leaving half a file behind."""

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import RawIOBase
from pathlib import Path

from invad.errors import DataError, InvadError, reason

PARTIAL = ".partial-"
"""Begins the name of a folder whose files are not all there yet; what is killed may leave one."""

MOST_BYTES = 255
"""Bytes of a file name, where the file system does not say."""

_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|thread-self|\d+))/fd/(\d+)")


def is_folder(path: Path) -> bool:
    """As `Path.is_dir`. Raises DataError when nobody can say, as of a share that is gone.

    Python before 3.14 raises some errors there and takes others for "no"; later ones take all for "no".
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_file(path: Path) -> bool:
    """As `Path.is_file`, with the errors of `is_folder`."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_there(path: Path) -> bool:
    """As `Path.exists`, with the errors of `is_folder`."""
    return _mode(path) is not None


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from error


def fitting_name(stem: str, ending: str, folder: Path | None = None) -> str:
    """`stem` and `ending` as a name that `folder` takes: a long stem is cut, in bytes, and gets a hash.

    Two stems never give one name.
    """
    try:
        most = os.pathconf(folder, "PC_NAME_MAX") if folder is not None else MOST_BYTES
    except (OSError, ValueError, AttributeError):
        most = MOST_BYTES
    whole = stem.encode("utf-8", "surrogatepass")
    if len(whole) + len(ending.encode()) <= most:
        return stem + ending
    ending = f"~{sha256(whole).hexdigest()[:10]}{ending}"
    return whole[: most - len(ending.encode())].decode("utf-8", "ignore") + ending


@contextmanager
def writing(path: str | Path, error: type[InvadError] = DataError) -> Iterator[None]:
    """What the system says of writing to `path`, as one line of `error` that says what to do."""
    try:
        yield
    except OSError as failed:
        raise error(f"{path}: cannot be written: {reason(failed, writing=True)}") from failed


@contextmanager
def staged(folder: Path, error: type[InvadError] = DataError) -> Iterator[Path]:
    """A folder within `folder`, for files that take their places when all are written.

    `folder` is made if need be, and is filled in place, because an empty one may be a link or a mount point,
    which stays. What is left in the other goes at the end, and so does a new `folder` that stayed empty.
    Raises `error` as `writing`.
    """
    new = not is_there(folder)
    staging: Path | None = None
    try:
        with writing(folder, error):
            folder.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder))
            yield staging
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        if new:
            with suppress(OSError):  # what holds something stays
                folder.rmdir()


def make_folder(folder: Path, error: type[InvadError] = DataError) -> None:
    """The folder, made if need be. Raises `error` when there can be none or nothing can be written in it."""
    with writing(folder, error):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def sync_folder(folder: Path) -> None:
    """So that the name of a new file outlives a power cut, too."""
    with suppress(OSError):  # not every system opens folders
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


class Output:
    """A file that is filled bit by bit and then takes its name.

    Until `keep` it lies beside `path` as `NAME.PROCESS.partial`, so that `path` holds its old content or all
    of the new. A link stays, its target is replaced. What can hold nothing (a pipe, a device, an open
    descriptor such as /dev/stdout) is written to at once. All methods raise OSError.
    """

    def __init__(self, path: Path):
        self.path = path
        self.partial: Path | None = None
        self.length = 0
        descriptor = _own_descriptor(path)
        if descriptor is not None:
            # Opened by its name a file would begin anew, and a socket not open at all.
            self.stream: RawIOBase = os.fdopen(os.dup(descriptor), "wb", buffering=0)
            return
        # A loop of links stays a path that does not open.
        self.target = Path(os.path.realpath(path))
        if not _is_replaceable(self.target):
            self.stream = self.target.open("wb", buffering=0)
            return
        partial = _beside(self.target)
        try:
            self.stream = partial.open("wb", buffering=0)
            self.partial = partial
        except OSError as error:
            # A folder that is read-only may hold a file that is not, as in a container.
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not self.target.exists():
                raise
            self.stream = self.target.open("wb", buffering=0)

    def write(self, content: bytes) -> None:
        """Add to the file; when this returns, the content has left the process.

        Of content that does not fit (a full disk) nothing is added, unless it went into a pipe or device.
        """
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[self.stream.write(rest) or 0 :]
        except BaseException:
            if self.partial is not None:
                with suppress(OSError):
                    self.stream.truncate(self.length)
                    self.stream.seek(self.length)
            raise
        self.length += len(content)

    def keep(self) -> None:
        """Give the file its name."""
        try:
            self.stream.close()
            if self.partial is not None:
                take_place(self.partial, self.target)
        except OSError:
            self.drop()
            raise

    def drop(self) -> None:
        """Leave what was at `path` before. What a pipe or device took stays there."""
        with suppress(OSError):
            self.stream.close()
        if self.partial is not None:
            with suppress(OSError):
                self.partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> Path:
    """Write all of `content` to `path` or nothing, as `Output` does; returns `path`.

    Raises DataError when it cannot be written; an older file is then untouched.
    """
    with writing(path):
        output = Output(path)
        try:
            output.write(content)
        except BaseException:
            output.drop()
            raise
        output.keep()
    return path


def write_all(contents: Mapping[Path, bytes]) -> None:
    """`write_atomically` for each; one that fails keeps no other from being written.

    Raises DataError naming all that could not be written.
    """
    failed = []
    for path, content in contents.items():
        try:
            write_atomically(path, content)
        except DataError as error:
            failed.append(str(error))
    if failed:
        raise DataError("; ".join(failed))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write a file under that takes the place of `path` when the block ends without an error.

    For writers that want a name; otherwise as `Output`. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    if not _is_replaceable(target):
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / target.name
            yield made
            with made.open("rb") as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream)
        return
    partial = _beside(target)
    try:
        yield partial
        take_place(partial, target)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    return target.with_name(fitting_name(target.name, f".{os.getpid()}.partial", target.parent))


def take_place(partial: Path, path: Path) -> None:
    """Give a finished file the name `path`, where a link stays. Raises OSError."""
    target = Path(os.path.realpath(path))
    try:
        partial.replace(target)
    except OSError:
        if not target.exists():
            raise
        shutil.copyfile(partial, target)  # a file that is a mount point can be filled, not replaced
        partial.unlink()


def _is_replaceable(target: Path) -> bool:
    """Whether a file may take this name: a device or pipe would be lost."""
    try:
        return stat.S_ISREG(target.stat().st_mode)
    except FileNotFoundError:
        return True


def is_standard_output(path: str | Path) -> bool:
    """Whether writing there is writing to standard output, as `/dev/stdout`."""
    return _own_descriptor(Path(path)) == 1


def _own_descriptor(path: Path) -> int | None:
    """N where a path is another name of this process's open descriptor N."""
    here = path.absolute()
    for _ in range(40):  # as many links as Linux follows
        if match := _DESCRIPTOR.fullmatch(os.path.normpath(here)):
            return int(match[1])
        try:
            here = here.parent / here.readlink()
        except (OSError, ValueError):
            return None
    return None
