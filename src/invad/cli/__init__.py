"""The command line. Each verb is one function; heavy imports are inside it, so that help is quick."""

from invad.cli.app import main

__all__ = ["main"]
