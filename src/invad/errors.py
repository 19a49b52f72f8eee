"""Errors a user can act on. The message is one line: what is wrong, where, what to do."""

import errno
import os
import re

_SHARE = (
    *("ESTALE", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "ENETRESET"),
    *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "ENODEV", "ENXIO", "ENOLINK", "ECOMM", "EREMOTEIO"),
    *("ESHUTDOWN", "ENOMEDIUM"),
)
_FORBIDDEN = ("EACCES", "EPERM")
_ADVICE = {
    **dict.fromkeys(_SHARE, "is the share mounted?"),
    "EIO": "is the share mounted, and is the disk sound?",
    **dict.fromkeys(("ENOSPC", "EDQUOT"), "free space or choose another folder"),
    "EFBIG": "the disk takes no file of this size; choose another folder",
    "EROFS": "choose another folder",
    "ENOENT": "check the path",
    "ENOTDIR": "check the path, a part of it is a file",
    "EISDIR": "give a file",
    "EEXIST": "choose another name",
    "ENOTEMPTY": "choose another folder",
    "ENAMETOOLONG": "give a shorter name",
    "ELOOP": "its links lead back to themselves; check the path",
    "EBUSY": "try again when nothing else uses it",
    "EMFILE": "allow more open files (ulimit -n)",
    "ENFILE": "close other programs, the machine has too many files open",
    "ENOMEM": "free memory",
    "EPIPE": "whoever read it has stopped",
}
"""What to do, by the name of the error number; not every system has all of them."""

_OF_RUST = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust, such as safetensors, tell the number of an error."""

_PERMISSION = {
    True: "choose a folder that you may write to",
    False: "allow reading it, and the folders it lies in",
    None: "check who may read it, or write to it",
}


class InvadError(Exception):
    """Base of every error that invad raises on purpose; the CLI prints it without a traceback."""


class ConfigError(InvadError):
    """An option or configuration key is unknown or out of range."""


class DataError(InvadError):
    """An image, mask or folder cannot be used."""


class WeightsError(InvadError):
    """Network weights cannot be found or do not fit the architecture."""


class TrainingError(InvadError):
    """Training cannot continue (not-a-number loss, unusable output folder, foreign checkpoint)."""


class ArtifactError(InvadError):
    """A saved model is missing, truncated, altered or of a newer format."""


class NotCalibratedError(InvadError):
    """A decision was asked of a detector that has seen no held-out normal images."""


def reason(error: OSError, *, writing: bool | None = None) -> str:
    """What the system says and what to do about it, such as `Stale file handle; is the share mounted?`.

    writing: whether a file was to be written or to be read, where that is known: what to do about a
    permission depends on it. The path is not part of it.
    """
    said, number = error.strerror, error.errno
    if number is None and (match := _OF_RUST.search(str(error))):
        number = int(match[1])
        said = os.strerror(number)
    said = said or (" ".join(str(error).split()) or type(error).__name__)[:300]
    name = errno.errorcode.get(number or 0, "")
    if name in _FORBIDDEN:
        return f"{said}; {_PERMISSION[writing]}"
    return f"{said}; {_ADVICE[name]}" if name in _ADVICE else said


def in_one_line(error: BaseException, *, writing: bool | None = None, most: int = 200) -> str:
    """What any exception says, `most` characters at most; of an OSError its `reason`."""
    if isinstance(error, OSError):
        return reason(error, writing=writing)
    return (" ".join(str(error).split()) or type(error).__name__)[:most]
