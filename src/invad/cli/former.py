"""Spellings of verbs that now are in a group: one line names the new one."""

from difflib import get_close_matches
from typing import Any

from typer.core import TyperGroup

from invad.errors import ConfigError

MOVED = {
    "rescore": "benchmark rescore",
    "recipes": "paper recipes",
    "ablate": "paper ablate",
    "import-reference": "paper import",
    "distill": "backbones distill",
}
"""Verb -> group and verb."""

BECAME_GROUPS = {"benchmark": "run", "backbones": "list"}
"""Group -> the verb that does what a verb of the group's name did."""


def refuse_moved(word: str) -> None:
    """Raises ConfigError for a verb that is in a group."""
    if word in MOVED:
        raise ConfigError(f"there is no 'invad {word}'; write: invad {MOVED[word]} ...")


class FormerVerb(TyperGroup):
    """A group called like a verb that there was: arguments meant for that verb are recognised."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        word = args[0] if args else ""
        shows_help = word in ctx.help_option_names or (not args and self.no_args_is_help)
        known = word in self.commands or get_close_matches(word, list(self.commands))
        if not (shows_help or known or ctx.resilient_parsing):
            verb = f"{self.name} {BECAME_GROUPS[str(self.name)]}"
            rest = f" {word} ..." if word else ""
            raise ConfigError(f"'invad {self.name}' is a group of commands; write: invad {verb}{rest}")
        return list(super().parse_args(ctx, args))
