"""What compressed pixels say of their own size, for whoever must know it before a library decodes them.

A header around them, as DICOM has, may say another size than they decode to.
"""

_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers of JPEG without a length."""

_LONGEST_RLE = 15


def jpeg_shape(coded: bytes) -> tuple[int, int, int]:
    """Height, width and channels of JPEG, lossless JPEG or JPEG-LS. Raises ValueError where it says none."""
    at = 2 if coded[:2] == b"\xff\xd8" else len(coded)
    while at + 10 <= len(coded) and coded[at] == 0xFF:
        marker = coded[at + 1]
        if marker in _FRAME_HEADERS:
            height, width = _number(coded, at + 5, 2), _number(coded, at + 7, 2)
            return height, width, coded[at + 9]
        if marker == 0xFF:
            at += 1
        else:
            at += 2 + (0 if marker in _BARE else max(2, _number(coded, at + 2, 2)))
    raise ValueError("no header of a JPEG")


def jpeg2000_shape(coded: bytes) -> tuple[int, int, int]:
    """Height, width and channels of JPEG 2000, bare or in a file of its own. Raises ValueError for others."""
    if coded[4:8] == b"jP  ":
        coded = _in_boxes(coded)
    if coded[:4] != b"\xff\x4f\xff\x51" or len(coded) < 42:
        raise ValueError("no header of a JPEG 2000 codestream")
    right, bottom, left, top = (_number(coded, at, 4) for at in (8, 12, 16, 20))
    return bottom - top, right - left, _number(coded, 40, 2)


def _in_boxes(coded: bytes) -> bytes:
    """The head of the first codestream of a JP2 file."""
    at = 0
    while at + 16 <= len(coded):
        size, kind = _number(coded, at, 4), coded[at + 4 : at + 8]
        inner = at + (16 if size == 1 else 8)
        if kind == b"jp2c":
            return coded[inner : inner + 64]
        size = _number(coded, at + 8, 8) if size == 1 else size
        at += max(size, 8) if size else len(coded)
    return b""


def require_rle_length(coded: bytes, expected: int) -> None:
    """Raises ValueError unless each segment of a DICOM RLE frame unpacks to `expected` bytes, or a few more.

    Runs are counted, not unpacked: two bytes can stand for 128.
    """
    count = int.from_bytes(coded[:4], "little")
    if len(coded) < 64 or not 0 < count <= _LONGEST_RLE:
        raise ValueError("no header of RLE")
    starts = [int.from_bytes(coded[at : at + 4], "little") for at in range(4, 4 + 4 * count, 4)]
    for start, end in zip(starts, [*starts[1:], len(coded)], strict=True):
        at, length = start, 0
        end = min(end, len(coded))
        while at < end and length <= 2 * expected + 256:
            head = coded[at]
            if head < 128:
                length += min(head + 1, end - at - 1)
                at += head + 2
            else:
                length += 0 if head == 128 else 257 - head
                at += 1 if head == 128 else 2
        if not expected <= length <= 2 * expected + 256:
            raise ValueError(f"a segment of RLE has {length} bytes where {expected} are expected")


def _number(coded: bytes, at: int, size: int) -> int:
    return int.from_bytes(coded[at : at + size], "big")
