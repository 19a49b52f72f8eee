"""What the parts of the interface share: parameters, refusals, dates."""

from typing import Annotated, Any, TypeAlias

from fastapi import Path

from invad.serve.records import Refused, milliseconds

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
