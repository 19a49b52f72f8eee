"""Writing without ever leaving half a file behind."""

import os
from pathlib import Path

from invad.errors import DataError


def write_atomically(path: Path, content: bytes) -> Path:
    """Write `content` next to `path` under a temporary name, then rename it to `path`.

    Raises DataError if the folder does not exist or cannot be written; an older file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"cannot write {path}: {reason}; name a file in a folder that can be written"
        ) from error
    return path
