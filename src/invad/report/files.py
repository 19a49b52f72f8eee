"""Writing without ever leaving half a file behind; kept here for those who write reports."""

from invad.data.files import write_atomically

__all__ = ["write_atomically"]
