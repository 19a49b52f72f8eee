"""The page /docs: the interface as OpenAPI describes it, without a script and without another host."""

from typing import Any

from invad.serve.pages.rendering import render


def reference_page(openapi: dict[str, Any], prefix: str) -> str:
    """HTML. prefix: path that a proxy puts before all others."""
    return render(
        "reference.html",
        title="Interface",
        name=openapi["info"]["title"],
        token="",
        version=openapi["info"]["version"],
        description=openapi["info"].get("description", ""),
        calls=list(_calls(openapi)),
        prefix=prefix,
    )


def _calls(openapi: dict[str, Any]) -> "list[dict[str, Any]]":
    return [
        {
            "verb": verb.upper(),
            "path": path,
            "summary": call.get("summary", ""),
            "description": call.get("description", ""),
            "parameters": [
                {
                    "name": parameter["name"],
                    "where": parameter["in"],
                    "kind": _kind(parameter["schema"]),
                    "required": parameter.get("required", False),
                    "description": parameter.get("description", ""),
                }
                for parameter in call.get("parameters", ())
            ],
            "body": ", ".join(call.get("requestBody", {}).get("content", {})),
            "answers": {
                status: answer.get("description", "") for status, answer in call.get("responses", {}).items()
            },
        }
        for path, verbs in openapi["paths"].items()
        for verb, call in verbs.items()
    ]


def _kind(schema: dict[str, Any]) -> str:
    """A type in words."""
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return str(schema.get("const", schema.get("type", "")))
