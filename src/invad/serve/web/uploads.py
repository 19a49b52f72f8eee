"""The image of a request: the whole body, or the field `image` of a form."""

from collections.abc import AsyncGenerator

from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from invad.serve.records import Refused

FIELD = "image"
RAW = ("image/", "application/octet-stream")


class _InMemory(MultiPartParser):
    """The guard has bounded the body already, and a temporary file would be one more copy."""

    spool_max_size = 1 << 40


async def image_of(request: Request) -> bytes:
    """The encoded image. Raises Refused (400, 415)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            body = await _field(request.headers, request.stream())
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
    return body


async def _field(headers: Headers, stream: AsyncGenerator[bytes, None]) -> bytes:
    try:
        form = await _InMemory(headers, stream, max_files=1, max_fields=10).parse()
    except (MultiPartException, MultipartParseError, KeyError, ValueError) as error:
        said = getattr(error, "message", None) or str(error)
        raise Refused(f"the form cannot be read: {' '.join(said.split())[:200]}", 400) from None
    image = form.get(FIELD)
    if not isinstance(image, UploadFile):
        raise Refused(f"the form has no file in the field '{FIELD}'", 400)
    try:
        return await image.read()
    finally:
        await form.close()
