"""The image of a request, the whole body or the field `image` of a form, and what is said of its part.

Of a part of several pictures each has a field of its own, named by its member.
"""

from collections.abc import AsyncGenerator, Iterable

from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from invad.serve.groups import packed
from invad.serve.records import Refused, require_word

FIELD = "image"
WORDS = ("part_id", "lot", "category", "request_id")
"""What may be said of a part, in the address or in fields of the form."""

MOST_PICTURES = 1000
"""Of one part, as a volume has slices; their bytes are bounded already."""

RAW = ("image/", "application/octet-stream")


class _InMemory(MultiPartParser):
    """The guard has bounded the body already, and a temporary file would be one more copy."""

    spool_max_size = 1 << 40


async def image_of(request: Request) -> tuple[bytes, dict[str, str]]:
    """The encoded image, and what of WORDS the form says. Raises Refused (400, 415)."""
    words: dict[str, str] = {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            body, words = await _fields(request.headers, request.stream())
        elif kind.startswith(RAW):
            body = await request.body()
        else:
            raise Refused(
                f"content type {kind or 'is missing'}: send multipart/form-data with the field '{FIELD}', or "
                "the file itself as image/png, image/jpeg, ... or application/octet-stream",
                415,
            )
    except ClientDisconnect:
        raise Refused("the request ended before its body did", 400) from None
    if not body:
        raise Refused("the image is empty", 400)
    return body, words


async def pictures_of(request: Request) -> tuple[bytes, dict[str, str]]:
    """The archive of the pictures of a form, each in the field of its member, and what of WORDS it says.

    Raises Refused (400, 415).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise Refused("parts have several pictures here: send one form with a file for each of them", 415)
    try:
        form = await _InMemory(
            request.headers, request.stream(), max_files=MOST_PICTURES, max_fields=10
        ).parse()
    except ClientDisconnect:
        raise Refused("the request ended before its body did", 400) from None
    except (MultiPartException, MultipartParseError, KeyError, ValueError) as error:
        raise _unreadable(error) from None
    try:
        files = [(name, one) for name, one in form.multi_items() if isinstance(one, UploadFile)]
        said = [(name, one) for name, one in form.multi_items() if isinstance(one, str)]
        require_known([name for name, _ in said], WORDS, "the form field")
        if not files:
            raise Refused("the form has no file; send one for each picture, in the field of its member", 400)
        for name, _ in files:
            require_word("the name of a picture", name)
        return packed([(name, await one.read()) for name, one in files]), dict(said)
    finally:
        await form.close()


def require_known(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raises Refused for a name that nobody reads: what it says would be lost without a word."""
    for name in given:
        if name not in known:
            raise Refused(f"{what} {name!r} is unknown; known are {', '.join(known) or 'none'}", 400)


def said_once(name: str, in_address: str | None, in_form: str | None) -> str | None:
    """What is said of a part, wherever. Raises Refused where both places say something else."""
    if in_address and in_form and in_address != in_form:
        raise Refused(f"{name} is {in_address!r} in the address and {in_form!r} in the form", 400)
    return in_address or in_form or None


def _unreadable(error: Exception) -> Refused:
    said = getattr(error, "message", None) or str(error)
    return Refused(f"the form cannot be read: {' '.join(said.split())[:200]}", 400)


async def _fields(headers: Headers, stream: AsyncGenerator[bytes, None]) -> tuple[bytes, dict[str, str]]:
    try:
        form = await _InMemory(headers, stream, max_files=1, max_fields=10).parse()
    except (MultiPartException, MultipartParseError, KeyError, ValueError) as error:
        raise _unreadable(error) from None
    image = form.get(FIELD)
    if not isinstance(image, UploadFile):
        raise Refused(f"the form has no file in the field '{FIELD}'", 400)
    try:
        require_known(form.keys(), (FIELD, *WORDS), "the form field")
        words = {name: value for name in WORDS if (value := form.get(name)) is not None}
        if any(not isinstance(value, str) for value in words.values()):
            raise Refused(f"only the field '{FIELD}' of the form may be a file", 400)
        return await image.read(), {name: str(value) for name, value in words.items()}
    finally:
        await form.close()
