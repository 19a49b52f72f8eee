"""A version that comes as an archive: it is kept where it is whole, proved, and of the kind of its model."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from invad.errors import DataError, InvadError
from invad.runtime.bundle import is_bundle, read_bundle
from invad.serve.archives import unpack
from invad.serve.models import told_of
from invad.serve.records import Refused, require_word
from invad.serve.service import Service
from invad.serve.store import stations
from invad.serve.store.backup import UNFINISHED_MODEL
from invad.serve.store.database import note
from invad.serve.store.stations import Version

LOG = logging.getLogger("invad.serve")
VERIFY_SECONDS = 600
LIKE = ("grid_hw", "input_hw", "size_hw")
"""What all versions of a model have in common: maps and scores of others are of another kind."""


@contextmanager
def room_for_upload(service: Service, declared: int) -> Iterator[Path]:
    """A folder to put an upload in, which is gone afterwards. declared: bytes that are announced.

    Raises Refused (503) while another comes, 507 when the disk has not room for it.
    """
    if not service.uploading.acquire(blocking=False):
        raise Refused("another model is being uploaded; send it again", 503, 5)
    folder = service.models.folder / f"{UNFINISHED_MODEL}upload"
    try:
        if service.free_bytes() - 2 * declared < service.options.reserve:
            raise Refused(f"the disk has no room for {declared} bytes, packed and unpacked", 507)
        rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)
        service.uploading.release()


def add(service: Service, name: str, archive: Path, who: str) -> tuple[Version, bool]:
    """A version from an archive of its folder, proved on this machine; and whether it is new.

    It is a candidate then: nothing runs it. Raises Refused (400, 409, 422) with what is wrong.
    """
    require_word("model", name)
    if "/" in name:
        raise Refused(f"model {name!r}: give a name without a slash", 400)
    folder = archive.with_name("model")
    try:
        unpack(archive, folder, service.options.max_model)
        _require_fitting(service, folder, name)
        proved = _proved(service, folder)
        model = service.models.look(folder, name)
    except ImportError:
        text = "a trained model needs PyTorch, which is not installed here; upload an exported bundle"
        raise Refused(text, 400) from None
    except InvadError as error:
        if isinstance(error, Refused):
            raise
        raise Refused(
            f"not taken: {str(error).replace(f'{folder}/', '').replace(str(folder), 'it')}", 400
        ) from None
    content = {**told_of(model), "proved": proved, "by": who, "bytes": _size(folder)}
    _require_alike(service, name, content)
    with service.database.read() as connection:
        known = stations.version(connection, model.hash)
    if known is not None and known.model != name:
        raise Refused(f"this is version {model.hash[:12]} of model {known.model} already", 409)
    if not service.models.path(model.hash).is_dir():
        service.models.adopt(folder, model.hash)
    try:
        service.models.share(model.hash)
    except DataError as error:
        raise Refused(f"other services could not have it: {error}; send it again", 503, 5) from None
    is_new = known is None or known.retired is not None
    with service.database.write() as connection:
        stations.add_version(connection, model.hash, name, content)
        if is_new:
            note(connection, who, "add version", {"model": name, "version": model.hash})
        made = stations.version(connection, model.hash)
    assert made is not None
    return made, is_new


def _require_fitting(service: Service, folder: Path, name: str) -> None:
    """What can be said of a bundle before it runs: files as they were made, no graph that runs code of its
    own, and of the grid of its model. Raises ArtifactError, Refused (400, 409)."""
    if not is_bundle(folder):
        return
    info, _ = read_bundle(folder)
    if info.format == "torch":
        raise Refused(
            "a PyTorch graph may run code of its own, so it is not taken from afar; start the service with "
            "it, or export the model as onnx or openvino",
            400,
        )
    _require_alike(service, name, {what: getattr(info, what) for what in LIKE})


def _proved(service: Service, folder: Path) -> dict[str, Any]:
    """What 'invad verify' says of a bundle here, in a process of its own, which may fail without harm."""
    if not is_bundle(folder):
        return {"passed": True, "probes": 0}  # a trained model has none
    opening = service.models.opening
    command = [sys.executable, "-m", "invad", "verify", folder, "--engine", opening.engine, "--threads", 1]
    command += ["--json", "-", *(["--device", opening.device] if opening.device else [])]
    try:
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            timeout=VERIFY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"not proved within {VERIFY_SECONDS} s; run 'invad verify' by hand", 422) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"'invad verify' ended with {done.returncode}"]
        raise Refused(f"does not hold here: {lines[-1].replace(f'{folder}', 'it')}", 422)
    certificate = json.loads(done.stdout)["certificate"]
    kept = (
        *("passed", "engine", "engine_version", "device", "processor", "changed_decisions"),
        *("largest_score_difference", "largest_map_difference"),
    )
    return {"probes": len(certificate["rows"]), **{name: certificate[name] for name in kept}}


def _require_alike(service: Service, name: str, content: Mapping[str, Any]) -> None:
    """Raises Refused (409) where other versions of the model have another grid or size."""
    with service.database.read() as connection:
        there = stations.versions(connection, name)
    for other in there:
        for what in LIKE:
            before, now = other.content.get(what), content.get(what)
            if before is not None and now is not None and list(before) != list(now):
                raise Refused(
                    f"{what} is {_by(now)}, versions of {name} have {_by(before)}; upload it under another "
                    "name",
                    409,
                )


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
