"""The command that scores archives in a process that keeps one Ray running for several of them.

Not in the process of the tests: after `ray.shutdown` threads of Ray stay, and the handlers by which Python
tells of a crash are gone, so whatever goes wrong later ends that process without a word.
"""

import logging

from typer.testing import CliRunner

from invad.archive.run import OBJECT_STORE, _ray
from invad.cli.app import app


def begin() -> None:
    """Start a Ray of two CPUs that the commands of this process join."""
    _ray().init(
        "local",
        num_cpus=2,
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def score(words: list[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `invad predict --engine ray`."""
    result = CliRunner().invoke(app, ["predict", *words, "--engine", "ray"])
    return result.exit_code, result.stdout, result.stderr


def end() -> None:
    _ray().shutdown()
