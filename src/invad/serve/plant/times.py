"""Keys of a `line.toml` that are in seconds, and how long each may be."""

from invad.errors import ConfigError

LONG, SHORT = 3600.0, 60.0
"""At most: of what a plant may set so, and of what a part is waited for, where more was meant in ms."""


def require_seconds(name: str, value: float, least: float, most: float = LONG) -> None:
    """Raises ConfigError for a time out of range; of one that is too long it says that it is no ms."""
    if not least <= value <= most:
        said = f"{name} = {value:g}: give {least:g} to {most:g} seconds"
        raise ConfigError(f"{said}, {value / 1000:g} for {value:g} ms" if value > most else said)
