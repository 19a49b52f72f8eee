"""The image of a request, the whole body or the field `image` of a form, and what is said of its part."""

from collections.abc import AsyncGenerator, Iterable

from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from invad.serve.records import Refused

FIELD = "image"
WORDS = ("part_id", "lot", "category", "request_id")
"""What may be said of a part, in the address or in fields of the form."""

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


def require_known(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raises Refused for a name that nobody reads: what it says would be lost without a word."""
    for name in given:
        if name not in known:
            raise Refused(f"{what} {name!r} is unknown; known are {', '.join(known)}", 400)


def said_once(name: str, in_address: str | None, in_form: str | None) -> str | None:
    """What is said of a part, wherever. Raises Refused where both places say something else."""
    if in_address and in_form and in_address != in_form:
        raise Refused(f"{name} is {in_address!r} in the address and {in_form!r} in the form", 400)
    return in_address or in_form or None


async def _fields(headers: Headers, stream: AsyncGenerator[bytes, None]) -> tuple[bytes, dict[str, str]]:
    try:
        form = await _InMemory(headers, stream, max_files=1, max_fields=10).parse()
    except (MultiPartException, MultipartParseError, KeyError, ValueError) as error:
        said = getattr(error, "message", None) or str(error)
        raise Refused(f"the form cannot be read: {' '.join(said.split())[:200]}", 400) from None
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
