"""From what a `line.toml` says to what does it; what a kind needs is imported when it is first made."""

from invad.serve.delivery import Route, Sink
from invad.serve.plant.folder import FolderWatch
from invad.serve.plant.lineup import Station
from invad.serve.plant.outputs import AnyOutput, secret
from invad.serve.plant.sources import AnySource, Source
from invad.serve.service import Service
from invad.serve.webhook import Webhook


def made_source(service: Service, station: Station, source: AnySource) -> Source:
    """A source that was not started."""
    return FolderWatch(service, station, source)


def made_sink(output: AnyOutput) -> Sink:
    """Raises ConfigError for a secret that is not there."""
    return Webhook(output.url, secret(output.secret_variable))


def route(station: Station, output: AnyOutput) -> Route:
    """What the outbox calls an output, and what goes there."""
    return Route(name=f"{station.name}/{output.name}", station=station.name, decisions=output.decisions)
