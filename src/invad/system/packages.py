"""Packages that extras bring: whether they are there, and of a version that invad can use.

Older ones than the lower bound of their extra are refused. None is refused for being new, because nothing is
known that breaks; where one turns out to have changed, the line says how far invad was tested.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile

from invad.errors import ConfigError, InvadError, in_one_line


@dataclass(frozen=True, slots=True)
class Package:
    """oldest: that invad uses, the lower bound of its extras in pyproject.toml. below: the first release that
    was not tested, the bound in constraints.txt. module: by which Python finds it, where the name differs."""

    oldest: str
    below: str
    module: str = ""


PACKAGES = {
    "accelerate": Package("1.2", "1.16"),
    "alembic": Package("1.16", "1.21"),
    "anomalib": Package("2.7", "2.8"),
    "apprise": Package("1.9", "2.4"),
    "asyncua": Package("2.0", "2.2"),
    "av": Package("17", "18.2"),
    "diffusers": Package("0.30", "0.43"),
    "fastapi": Package("0.115", "0.166"),
    "fiftyone": Package("1.2", "1.23"),  # masks of detections as files
    "fsspec": Package("2024.2", "2026.10"),
    "harvesters": Package("1.4", "1.5"),
    "httpx": Package("0.27", "0.29"),
    "huggingface-hub": Package("1.0", "2.5", "huggingface_hub"),
    "jinja2": Package("3.1", "3.2"),
    "lightning": Package("2.6", "2.7"),
    "mlflow-skinny": Package("3.1", "3.18", "mlflow"),
    "onnx": Package("1.17", "1.24"),
    "onnxruntime": Package("1.20", "1.33"),
    "onnxscript": Package("0.5", "0.8"),
    "openvino": Package("2025.0", "2026.5"),
    "paho-mqtt": Package("2.0", "2.3", "paho.mqtt"),
    "pandas": Package("2.2", "3.2"),
    "pillow-heif": Package("0.18", "1.9", "pillow_heif"),
    "prometheus-client": Package("0.20", "0.27", "prometheus_client"),
    "psycopg": Package("3.2", "3.4"),
    "pyarrow": Package("17", "26.1"),
    "pydicom": Package("3.0", "3.1"),
    "pymodbus": Package("3.16", "3.17"),
    "pyspark": Package("4.0", "4.4"),
    "python-multipart": Package("0.0.12", "0.1", "python_multipart"),
    "ray": Package("2.40", "2.61"),
    "s3fs": Package("2024.2", "2026.10"),
    "scikit-learn": Package("1.6", "1.10", "sklearn"),
    "sqlalchemy": Package("2.0", "2.2"),
    "supervision": Package("0.27", "0.32"),
    "tensorboard": Package("2.15", "2.22"),
    "tomli": Package("2", "3"),
    "uvicorn": Package("0.30", "0.55"),
    "watchfiles": Package("1.0", "2"),
}
"""By their names in package registries."""


def require(
    names: Sequence[str], extra: str | None, what: str, error: type[InvadError] = ConfigError
) -> None:
    """Raises `error`, one line, where one of `names` is missing or too old.

    extra: what brings them; None for packages of no extra. what: needs them, the begin of the line.
    """
    if said := lacking(names, extra):
        raise error(f"{what} needs {said}")


def lacking(names: Sequence[str], extra: str | None) -> str | None:
    """Which of `names` are missing or too old, and what to run; None where all are there.

    Such as `pyspark>=4.0 (3.5.1 is installed), pandas>=2.2 (not installed); pip install 'invad[spark]'`.
    """
    said = []
    for name in names:
        wanted = f"{name}>={PACKAGES[name].oldest}"
        if not is_there(name):
            said.append(f"{wanted} (not installed)")
        elif (found := version(name)) and () < _numbers(found) < _numbers(PACKAGES[name].oldest):
            said.append(f"{wanted} ({found} is installed)")
    if not said:
        return None
    return f"{', '.join(said)}; {install([one.split()[0] for one in said], extra)}"


@contextmanager
def importing(
    names: Sequence[str], extra: str | None, what: str, error: type[InvadError] = ConfigError
) -> Iterator[None]:
    """For imports from `names`, which the block makes, and nothing else.

    Raises `error`, one line, where one is missing, too old, or raises anything itself when imported.
    """
    if not all(map(is_there, names)):
        require(names, extra, what, error)
    try:
        yield
    except InvadError:
        raise
    except Exception as raised:
        require(names, extra, what, error)
        raise error(_broken(names, what, raised)) from raised
    require(names, extra, what, error)


@contextmanager
def using(names: Sequence[str], what: str) -> Iterator[None]:
    """For calls of what `names` bring, once they are imported.

    Raises ConfigError, one line, where one is newer than was tested and no longer has what is called, or no
    longer takes it so. Within the tested releases such an error is one of invad and stays what it is.
    """
    try:
        yield
    except (AttributeError, ImportError, NotImplementedError, TypeError) as error:
        if not _untested(names):
            raise
        raise ConfigError(_broken(names, what, error)) from error


def is_there(name: str) -> bool:
    """Whether Python finds it, without importing it."""
    module = PACKAGES[name].module or name
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # of what it lies in
        return False
    except ValueError:  # loaded, in a way that tells nothing
        return True
    # A folder of this name without files of Python is no package.
    return spec is not None and spec.loader is not None and spec.origin is not None


def version(name: str) -> str | None:
    """What is installed, by its own word where it is loaded; None where nothing says so.

    So of a package that lies on PYTHONPATH without what pip writes, as Spark's own on a cluster.
    """
    module = PACKAGES[name].module or name
    own = getattr(sys.modules.get(module), "__version__", None)
    if isinstance(own, str):
        return own
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    for distribution in dict.fromkeys((name, module)):  # mlflow brings what mlflow-skinny does
        try:
            return installed(distribution)
        except PackageNotFoundError:
            continue
    return None


def install(wanted: Sequence[str], extra: str | None) -> str:
    """The command that installs an extra of the distribution that is here, or else what is `wanted`."""
    if extra is None:
        return "pip install " + " ".join(f"'{one}'" for one in wanted)
    from importlib.metadata import PackageNotFoundError, metadata

    own = "invad"
    try:
        metadata("invad")
    except PackageNotFoundError:
        try:
            if extra in (metadata("invad-runtime").get_all("Provides-Extra") or []):
                own = "invad-runtime"
        except PackageNotFoundError:
            pass
    return f"pip install '{own}[{extra}]'"


def _broken(names: Sequence[str], what: str, error: Exception) -> str:
    """What to say of packages that are there, not too old, and do not work."""
    said = f"{type(error).__name__}: {in_one_line(error)}"
    newer = _untested(names)
    told = ", ".join(f"{name} {version(name) or '(of an unknown version)'}" for name in newer or names)
    if newer:
        wanted = [f"{name}<{PACKAGES[name].below}" for name in newer]
        advice = f"newer than invad was tested with; {install(wanted, None)}"
    else:
        advice = f"install anew what 'pip check' names, or {' and '.join(names)}"
    return f"{what} cannot use {told} ({said}): {advice}"


def _untested(names: Sequence[str]) -> list[str]:
    return [
        name
        for name in names
        if (found := version(name)) and _numbers(found) >= _numbers(PACKAGES[name].below)
    ]


def _numbers(release: str) -> tuple[int, ...]:
    """Of a version, without what follows its numbers and without zeros at the end: 2.0.0rc1 is (2,).

    None are left of 0+unknown, which is what a build from sources may call itself.
    """
    match = re.match(r"v?(\d+(?:\.\d+)*)", release)
    numbers = [int(part) for part in match[1].split(".")] if match else []
    zeros = sum(1 for _ in takewhile(lambda part: part == 0, reversed(numbers)))
    return tuple(numbers[: len(numbers) - zeros])
