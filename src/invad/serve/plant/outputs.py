"""Who is told of the results of a station, as a `line.toml` says it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from invad.errors import ConfigError
from invad.records import Decision

EVERY: tuple[Decision, ...] = ("good", "review", "bad")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOutput:
    """Each result is posted to an address. secret_variable: of the environment, holds what signs it."""

    kind: Literal["webhook"]
    url: str
    secret_variable: str | None = None
    name: str = "webhook"
    decisions: tuple[Decision, ...] = EVERY

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url = {self.url!r}: give one that begins with https:// or http://")

    def below(self, base: Path) -> "WebhookOutput":
        """With paths that do not depend on where the program was started."""
        return self


AnyOutput = WebhookOutput
"""Grows with each kind; the key `kind` tells them apart."""


def secret(variable: str | None) -> str:
    """What a variable of the environment holds, "" for None. Raises ConfigError where it is not set.

    Secrets are never in a `line.toml`, which people copy and mail.
    """
    if variable is None:
        return ""
    if variable not in os.environ:
        raise ConfigError(f"the environment has no variable {variable}; set it before the service starts")
    return os.environ[variable]
