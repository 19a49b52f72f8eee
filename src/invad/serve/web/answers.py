"""What the parts of the interface share: parameters, refusals, dates."""

from collections.abc import Iterator
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Path, Request

from invad.serve.records import Refused, milliseconds
from invad.serve.web.uploads import require_known

StationName = Annotated[str, Path(description="Where the part is. 'default' is there from the start.")]
Responses: TypeAlias = dict[int | str, dict[str, Any]]


def error(text: str) -> dict[str, Any]:
    return {"description": f'{text} `{{"error": text}}`'}


NO_KEY: Responses = {
    401: error("No key, or none that is known."),
    403: error("The key lacks the scope or station."),
}
NOT_THERE: Responses = {404: error("There is no such thing.")}
FILE_GONE: Responses = {**NOT_THERE, 410: error("It is not kept any more.")}


def time_of(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return milliseconds(text)
    except ValueError:
        raise Refused(f"{name} = {text!r}: give an ISO date, such as 2026-11-28T06:00:00Z", 400) from None


async def _only_known(request: Request) -> None:
    """Refuse what `/openapi.json` does not name: what it says would be lost without a word, and after a slip
    such as `?previev=true` what was only to be looked at would be changed."""
    whole = request.app.openapi()
    described = whole["paths"][request.scope["route"].path][request.method.lower()]
    words = [one["name"] for one in described.get("parameters", ()) if one["in"] == "query"]
    require_known(request.query_params, words, "the word of the address")
    content = described.get("requestBody", {}).get("content", {})
    if list(content) == ["application/json"] and await request.body():
        body = await request.json()
        if isinstance(body, dict):
            require_known(body, list(_fields(whole, content["application/json"]["schema"])), "the field")


def _fields(whole: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """Names of the fields of a body, which may be left out."""
    yield from schema.get("properties", ())
    if "$ref" in schema:
        yield from _fields(whole, whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    for key in ("anyOf", "allOf"):
        for one in schema.get(key, ()):
            yield from _fields(whole, one)


ONLY_KNOWN = [Depends(_only_known)]
"""Of every router of the interface."""
