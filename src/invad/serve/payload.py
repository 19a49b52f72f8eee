"""A result as receivers of messages get it, and the JSON schema of that."""

from typing import Any

from invad.serve.records import Result

SCHEMA_PATH = "/api/v1/schema/result.json"
IMAGE_URL = {
    "anyOf": [{"type": "string", "format": "uri"}, {"type": "null"}],
    "description": "Where the picture can be fetched, with a key; null where it is not kept. It is there "
    "only where an output has an address.",
}


def payload(result: Result, address: str | None) -> dict[str, Any]:
    """The record, and where its picture is. address: of the service, as the receiver reaches it."""
    plain = result.plain()
    if address is not None:
        base = address.rstrip("/")
        plain["image_url"] = f"{base}/api/v1/results/{result.id}/image" if result.image_kept else None
    return plain


def schema() -> dict[str, Any]:
    """Of `payload`, by JSON Schema 2020-12. Further keys may come; what is there keeps its meaning until the
    number in `schema` is raised."""
    from pydantic import TypeAdapter

    found = TypeAdapter(Result).json_schema(mode="serialization")
    found["properties"]["image_url"] = IMAGE_URL
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
