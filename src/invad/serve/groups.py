"""Several pictures of one part as one file: an archive, so that a part has one digest, one age and one place.

The archive is a ZIP of stored entries, `000/light1`, `001/light2`, ..., sorted by member. The same pictures
give the same bytes, which is what tells a request that is sent again.
"""

import io
import zipfile
from collections.abc import Iterable

UNIX = 3
"""The system that an archive names as its maker: one on every system."""


def packed(pictures: Iterable[tuple[str, bytes]]) -> bytes:
    """The archive of encoded pictures by member; a member may be there twice."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for number, (member, content) in enumerate(sorted(pictures, key=lambda one: one[0])):
            entry = zipfile.ZipInfo(f"{number:03d}/{member}")
            entry.create_system = UNIX
            archive.writestr(entry, content)
    return stream.getvalue()


def unpacked(body: bytes) -> list[tuple[str, bytes]]:
    """(member, encoded picture), in the order of the archive, which is one of `packed`."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return [(one.filename.partition("/")[2], archive.read(one)) for one in archive.infolist()]
