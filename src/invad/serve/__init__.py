"""A service beside the line: images come in, decisions go out, and every result is kept.

from invad.serve import Client, Service
with Service("model", "line") as service:
    print(service.inspect("part.png").decision)
print(Client("http://127.0.0.1:8000", key="inv_...").inspect("part.png").decision)

The package needs `pip install 'invad[serve]'`; each class is imported when it is first used, so a client
needs no server.

Order of imports: ids, options, groups, records, payload, verdicts, archives, client, store, limits, metrics,
models, given, pictures, parts, rows, maps, storing, line, shadowing, delivery, webhook, recalibration, hints,
monitors, watching, judging, following, sweeping, readiness, accounts, service, trends, reviewing,
arriving, versions, web, plant, pages, app, connections, listening, stateless, running.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invad.serve.client import Client
    from invad.serve.options import Options, Retention
    from invad.serve.records import Refused, Result
    from invad.serve.service import Service

_LAZY = {
    "Client": "invad.serve.client",
    "Options": "invad.serve.options",
    "Refused": "invad.serve.records",
    "Result": "invad.serve.records",
    "Retention": "invad.serve.options",
    "Service": "invad.serve.service",
}

__all__ = ["Client", "Options", "Refused", "Result", "Retention", "Service"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'invad.serve' has no attribute {name!r}")
