"""Versions of models: each kept as a folder named by its content hash, and ready to run where one is used."""

import logging
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invad.data.region import digest_of
from invad.detector.opening import AUTO, open_detector
from invad.detector.regional import save
from invad.errors import ArtifactError, ConfigError, DataError, NotCalibratedError
from invad.runtime.bundle import is_bundle, named_files, read_bundle
from invad.runtime.predictor import Predictor
from invad.scoring.calibration import Calibration
from invad.scoring.rates import POOLED
from invad.serve.archives import pack, unpack
from invad.serve.options import Options
from invad.serve.records import Refused
from invad.serve.store.backup import UNFINISHED_MODEL
from invad.serve.store.files import Pictures
from invad.system.files import is_folder, make_folder, writing

if TYPE_CHECKING:
    from invad.detector.regional import Made

LOG = logging.getLogger("invad.serve")
GPU_BATCH = 8
MOST_SHARED = 1 << 40
"""Bytes of a version that another service has shared, which was bounded when it came."""

TOLD = (
    *("preset", "format", "precision", "backbone", "backbone_source", "input_hw", "grid_hw", "size_hw"),
    *("created", "recalibrated", "invad_version", "model_hash"),
)
"""What is kept of a version's own account, as far as a bundle or a trained model has it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """A version that is ready to run. name: of the model. batch: parts of one run at most. made_of: the hash
    of the model that it was made of here, for a region of interest; None where nothing was."""

    hash: str
    name: str
    detector: Predictor
    batch: int
    made_of: str | None = None

    @property
    def calibrations(self) -> Mapping[str, Calibration]:
        """What its limits are made of, by category; of a model of parts those of whole parts."""
        fusion = self.detector.fusion
        return self.detector.calibrations if fusion is None else {POOLED: fusion.calibration}

    @property
    def members(self) -> tuple[str, ...]:
        """The pictures of a part, by name; none of a model of single pictures."""
        fusion = self.detector.fusion
        return () if fusion is None else fusion.members

    @property
    def engine(self) -> str:
        """What runs it."""
        return str(getattr(getattr(self.detector, "engine", None), "name", "torch"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How versions are opened: engine, device and threads as of `invad predict`."""

    engine: str = AUTO
    device: str | None = None
    threads: int | None = None


class Models:
    """The versions of a service, and which of them judges or shadows at each station."""

    def __init__(self, folder: Path, options: Options, opening: Opening, shared: Pictures | None = None):
        """folder: holds a folder for each version. shared: where other services find versions of this one,
        and this one theirs. Raises DataError when nothing can be written there."""
        self.folder, self.options, self.opening, self.shared = folder, options, opening, shared
        make_folder(folder)
        for left in folder.glob(f"{UNFINISHED_MODEL}*"):
            shutil.rmtree(left, ignore_errors=True)
        self._ready: dict[tuple[str, bool], Loaded] = {}
        self._active: Mapping[str, Loaded] = {}
        self._shadows: Mapping[str, Loaded] = {}
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ what runs where

    def active(self, station: str) -> Loaded:
        """What judges there."""
        return self._active[station]

    def judges_at(self, station: str) -> bool:
        """Whether one of them judges there."""
        return station in self._active

    def shadow(self, station: str) -> Loaded | None:
        """What scores the parts there, too, if anything."""
        return self._shadows.get(station)

    def all_active(self) -> dict[str, Loaded]:
        """What judges somewhere, by hash."""
        return {one.hash: one for one in self._active.values()}

    def assign(self, active: Mapping[str, Loaded], shadows: Mapping[str, Loaded]) -> None:
        """From the next part on. Versions that are used nowhere any more are let go of; parts that were
        admitted under one are still judged by it."""
        with self._lock:
            self._active, self._shadows = active, shadows
            used = {(one.hash, False) for one in active.values()}
            used |= {(one.hash, True) for one in shadows.values()}
            # What has no folder cannot be read again.
            self._ready = {
                key: one
                for key, one in self._ready.items()
                if key in used or not is_folder(self.path(key[0]))
            }

    # ------------------------------------------------------------------ opening

    def path(self, hash: str) -> Path:
        return self.folder / hash

    def hold(self, name: str, detector: Predictor) -> Loaded:
        """Take a detector as it is. Raises NotCalibratedError, ConfigError."""
        loaded = _loaded(name, detector, self.options)
        with self._lock:
            self._ready[loaded.hash, False] = self._ready[loaded.hash, True] = loaded
        return loaded

    def give(self, folder: Path) -> Loaded:
        """Open the folder of a model or bundle, and keep a copy of it.

        Raises ArtifactError, ConfigError, NotCalibratedError, DataError.
        """
        name = folder.resolve().name or "model"
        loaded = self.hold(name, _opened(folder, self.options, self.opening))
        if not is_folder(self.path(loaded.hash)):
            try:
                self.keep(folder, loaded.hash)
            except DataError as error:  # it runs without; it is only not there when its folder is gone
                LOG.error("the model was not kept: %s", error)
        return loaded

    def try_out(self, folder: Path) -> Loaded:
        """The folder of a model or bundle, ready to run, of which no copy is kept. Raises as `give`."""
        return open_alone(folder, folder.resolve().name or "model", self.options, self.opening)

    def give_made(self, detector: "Made", given: Loaded) -> Loaded:
        """Keep what was made of a model that was given. Raises ArtifactError, DataError."""
        folder = self.folder / f"{UNFINISHED_MODEL}made-{given.hash[:16]}"
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            try:
                hash = save(detector, folder)
                if not is_folder(self.path(hash)):
                    self.keep(folder, hash)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return replace(self.hold(given.name, detector), made_of=given.hash)

    def keep(self, source: Path, hash: str) -> None:
        """Copy a folder whose content hash was found right. Raises DataError."""
        partial = self.folder / f"{UNFINISHED_MODEL}{hash[:16]}"
        with writing(partial):
            shutil.rmtree(partial, ignore_errors=True)
            for name in named_files(source):
                copy = partial / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, copy)
                with copy.open("rb") as file:
                    os.fsync(file.fileno())
            partial.replace(self.path(hash))

    def look(self, folder: Path, name: str) -> Loaded:
        """A folder ready to run, on one thread, without keeping it. Raises as `give`."""
        return open_alone(folder, name, self.options, replace(self.opening, threads=1))

    def adopt(self, folder: Path, hash: str) -> None:
        """Keep a folder that lies here already and is on the disk, without what is no file of it.

        Raises DataError.
        """
        names = set(named_files(folder))
        with writing(self.path(hash)):
            for path in [path for path in folder.rglob("*") if path.is_file()]:
                if path.relative_to(folder).as_posix() not in names:
                    path.unlink()
            folder.replace(self.path(hash))

    def open(self, hash: str, name: str, *, shadowing: bool = False) -> Loaded:
        """A kept version, ready to run. shadowing: on one thread, to leave the others to parts.

        Raises ArtifactError when its folder is gone or damaged.
        """
        with self._lock:
            ready = self._ready.get((hash, shadowing))
        if ready is not None:
            return replace(ready, name=name)
        if not is_folder(self.path(hash)) and not self._fetched(hash):
            raise ArtifactError(f"{self.path(hash)}: is gone; restore a backup, or start with another model")
        opening = replace(self.opening, threads=1) if shadowing else self.opening
        loaded = open_alone(self.path(hash), name, self.options, opening)
        if loaded.hash != hash:
            raise ArtifactError(f"{self.path(hash)}: holds version {loaded.hash[:12]}; restore a backup")
        with self._lock:
            self._ready[hash, shadowing] = loaded
        return loaded

    def share(self, hash: str) -> None:
        """Let other services find a version, if there are any. Raises DataError, ArtifactError."""
        if self.shared is None or not is_folder(self.path(hash)) or self.shared.has(_shared_name(hash)):
            return
        with self._archive(hash) as archive:
            with archive.open("wb") as file:
                pack(self.path(hash), file)
            self.shared.save(_shared_name(hash), archive)

    def _fetched(self, hash: str) -> bool:
        """Whether another service has shared a version, which then is kept here. Raises ArtifactError,
        DataError."""
        if self.shared is None:
            return False
        folder = self.folder / f"{UNFINISHED_MODEL}{hash[:16]}"
        with self._archive(hash) as archive:
            if not self.shared.fetch(_shared_name(hash), archive):
                return False
            shutil.rmtree(folder, ignore_errors=True)
            unpack(archive, folder, MOST_SHARED)
        # What it holds is looked at before it runs: graphs may have code of their own.
        if is_bundle(folder) and read_bundle(folder)[1] != hash:
            raise ArtifactError(f"{self.shared.where}: holds another version as {hash[:12]}; upload it again")
        self.adopt(folder, hash)
        return True

    @contextmanager
    def _archive(self, hash: str) -> Iterator[Path]:
        """A file beside the folders, which is gone afterwards."""
        archive = self.folder / f"{UNFINISHED_MODEL}{hash[:16]}.zip"
        with writing(archive):
            try:
                yield archive
            finally:
                archive.unlink(missing_ok=True)

    def remove(self, hash: str) -> None:
        """Delete the folder of a version that the database names as retired. Raises DataError."""
        if self.shared is not None:
            self.shared.drop(_shared_name(hash))
        with writing(self.path(hash)):
            if is_folder(self.path(hash)):
                shutil.rmtree(self.path(hash))

    def remove_all(self, hashes: Iterable[str]) -> None:
        """As `remove`, of several."""
        for hash in hashes:
            self.remove(hash)


def _shared_name(hash: str) -> str:
    return f"model/{hash}.zip"


def open_alone(folder: Path, name: str, options: Options, opening: Opening) -> Loaded:
    """The folder of a model or bundle, ready to run, without a copy of it. Raises as `Models.give`."""
    return _loaded(name, _opened(folder, options, opening), options)


def require_pictures(model: Loaded, *, several: bool) -> None:
    """Raises Refused (400) for one picture where parts have several, and the other way round."""
    fusion = model.detector.fusion
    if fusion is not None and not several:
        raise Refused(
            f"{model.name} judges parts by several pictures; send one form with a file in each of the fields "
            f"{', '.join(fusion.members)}",
            400,
        )
    if fusion is None and several:
        raise Refused(f"{model.name} judges one picture of each part; send it in the field 'image'", 400)


def require_single(model: Loaded, what: str) -> None:
    """Raises ConfigError for a model of parts, with what takes one picture of each part."""
    if model.detector.fusion is not None:
        raise ConfigError(
            f"{model.name}: judges parts by several pictures, and {what} takes one picture for each part; "
            "send them to 'invad serve' over HTTP, or give a model that was trained without --parts"
        )


def told_of(model: Loaded) -> dict[str, Any]:
    """What is remembered of a version, as JSON data."""
    info = getattr(model.detector, "info", None)
    told = {name: getattr(info, name) for name in TOLD if getattr(info, name, None) is not None}
    region = model.detector.region
    told |= {} if region is None else {"region": digest_of(region)}
    regions = {name: digest_of(one) for name, one in model.detector.regions.items()}
    told |= {"regions": regions} if regions else {}
    told |= {} if model.made_of is None else {"made_of": model.made_of}
    return {
        "engine": model.engine,
        **told,
        "categories": [name for name in model.calibrations if name],
    }


def _opened(folder: Path, options: Options, opening: Opening) -> Predictor:
    if is_bundle(folder):
        from invad.runtime import load

        return load(
            folder,
            opening.engine,
            threads=opening.threads,
            streams=options.streams,
            device=opening.device,
        )
    if options.streams > 1:
        raise ConfigError(f"streams = {options.streams}: only exported bundles run several at a time")
    return open_detector(folder, opening.engine, opening.device, opening.threads)


def _loaded(name: str, detector: Predictor, options: Options) -> Loaded:
    if not detector.calibrations:
        raise NotCalibratedError(f"{name}: has no limits; run 'invad calibrate MODEL NORMALS' first")
    if detector.content_hash is None:
        raise ConfigError("the detector was never saved, so results could not name it; save it first")
    batch = detector.group_size(options.batch or _batch(detector))
    return Loaded(hash=detector.content_hash, name=name, detector=detector, batch=batch)


def _batch(detector: Predictor) -> int:
    """Parts of one run: more than one pays on a GPU alone."""
    if (size := getattr(getattr(detector, "info", None), "batch", None)) is not None:
        return int(size)
    return GPU_BATCH if _device(detector).split(":")[0].lower() not in ("cpu", "") else 1


def _device(detector: Any) -> str:
    engine = getattr(detector, "engine", None)
    return str(engine.device if engine is not None else detector.model.extract.device)
