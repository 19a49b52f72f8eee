"""A bundle made ready to run, and proved again where it comes to another processor than its certificate's."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from invad.data.region import Region
from invad.errors import ArtifactError
from invad.runtime.bundle import AGAIN, BUNDLE, ExportInfo, read_bundle
from invad.runtime.cache import cache_folder, keep, kept, key_of
from invad.runtime.certificate import made_by, short_proof, stored_certificate
from invad.runtime.detector import ExportedDetector, Source
from invad.runtime.engines import AUTO, Options, open_engine
from invad.runtime.held import EXPORT_AGAIN, Held, Look, look, read_held, read_stats
from invad.runtime.held_tiles import read_rule
from invad.runtime.judging import Judging, constants_of
from invad.runtime.tiled import TiledPredictor, made_whole
from invad.scoring.norms import CellRule, CellStats
from invad.system.arguments import path_of


def load(
    bundle: str | Path,
    engine: str = AUTO,
    *,
    threads: int | None = None,
    streams: int = 1,
    device: str | None = None,
    prove: bool = True,
) -> ExportedDetector | TiledPredictor:
    """Read an exported detector and make it ready to run.

    engine: onnxruntime, openvino or torch; auto takes the first installed one for this bundle. threads: per
    image, by default the engine's choice. streams: runs at the same time in `predict_many`. device: as the
    engine names it. prove: repeat a short comparison, once, where processor, engine or its version are not
    those of the certificate; its success is kept in the user's cache folder.
    Raises ArtifactError for a bundle that is damaged, of another format or decides otherwise here,
    ConfigError for an engine or device that is not there.
    """
    folder = path_of(bundle, "bundle")
    info, content = read_bundle(folder)
    source = Source(folder, engine, Options(threads=threads, streams=streams, device=device, content=content))
    kept = None if info.held is None else folder / info.held
    # Of tiles there may be many, and they are read when other limits are made of them.
    held = None if kept is None or info.tiles is not None else read_held(kept)
    if info.limits is None:
        inside = as_exported(source, info, held)
    else:
        stats = read_stats(folder / info.limits)
        if info.tiles is None:
            inside = looking(source, info, held, stats)
        elif kept is None:
            raise _without_maps(source)
        else:
            inside = looking_at_tiles(source, info, read_rule(kept), stats)
        inside.content_hash = content
        if prove:
            require_unseen(inside)
    if prove:
        _prove(inside, folder)
    return made_whole(inside)


def as_exported(source: Source, info: ExportInfo, held: Held | None = None) -> ExportedDetector:
    """What a bundle was when it was exported, which its certificate is about. Raises as `load`."""
    engine = open_engine(source.engine, info.format, source.folder / info.graph, source.options)
    return ExportedDetector(
        info.as_exported,
        engine,
        content_hash=source.options.content,
        streams=source.options.streams,
        held=held,
        source=source,
    )


def looking(
    source: Source, info: ExportInfo, held: Held | None, stats: Mapping[str, CellStats]
) -> ExportedDetector:
    """A bundle that judges by limits that are not those in its graph. Raises as `load`."""
    if held is None:
        raise _without_maps(source)
    looks = looks_of(held, {name: info.regions.get(name, info.region) for name in info.calibrations}, info)
    put = constants_of(held, looks, list(info.as_exported.calibrations), info.input_hw)
    options = replace(source.options, constants=put)
    engine = open_engine(source.engine, info.format, source.folder / info.graph, options)
    judging = Judging(held.told.rule, stats, info.calibrations, looks, info.smallest)
    return ExportedDetector(
        info, engine, streams=source.options.streams, judging=judging, held=held, source=source
    )


def looking_at_tiles(
    source: Source, info: ExportInfo, rule: CellRule, stats: Mapping[str, CellStats]
) -> ExportedDetector:
    """The same of a bundle of tiles; what counts of pictures is of their tiling. stats: by place."""
    engine = open_engine(source.engine, info.format, source.folder / info.graph, source.options)
    judging = Judging(rule, stats, info.calibrations, {})
    return ExportedDetector(info, engine, streams=source.options.streams, judging=judging, source=source)


def _without_maps(source: Source) -> ArtifactError:
    return ArtifactError(f"{source.folder / BUNDLE}: names limits, and no maps that they are of; {AGAIN}")


def as_certified(detector: ExportedDetector | TiledPredictor) -> ExportedDetector | TiledPredictor:
    """What the certificate of a loaded bundle is about: itself, or, where its limits were made anew, what it
    was when it was exported. Raises as `load`, ArtifactError also where the engine does not take its region.
    """
    inside = detector.inside if isinstance(detector, TiledPredictor) else detector
    if not isinstance(inside, ExportedDetector) or inside.judging is None or inside.source is None:
        return detector
    require_unseen(inside)
    return made_whole(as_exported(inside.source, inside.info))


def looks_of(held: Held, regions: Mapping[str, Region | None], info: ExportInfo) -> dict[str, Look | None]:
    """What counts for each category; one that has a region of its own sees its own mean picture in place of
    what it ignores. Raises DataError as `look`."""
    found = {}
    for name, region in regions.items():
        own = held.of_category(name) if name in info.regions else held
        found[name] = look(region, own, info.input_hw, info.grid_hw)
    return found


def require_unseen(detector: ExportedDetector) -> None:
    """Raises ArtifactError where what a region ignores changes what the graph says: then the engine did not
    take the region."""
    judging, rng = detector.judging, np.random.default_rng(0)
    for name, seen in ({} if judging is None else judging.looks).items():
        if seen is None:
            continue
        one, other = (rng.integers(0, 256, (*seen.inside_HW.shape, 3), np.uint8) for _ in range(2))
        pictures = [one, np.where(seen.inside_HW[..., None], one, other)]
        first, second = (detector.norms([picture], [name]) for picture in pictures)
        if not np.allclose(first, second, rtol=1e-3):
            folder = "" if detector.source is None else f"{detector.source.folder}: "
            raise ArtifactError(
                f"{folder}{detector.engine.name} did not take the region of interest into the graph; use "
                f"another engine, or {EXPORT_AGAIN}"
            )


def _prove(inside: ExportedDetector, folder: Path) -> None:
    here = made_by(inside)
    certificate = stored_certificate(folder)
    if here == {name: getattr(certificate, name) for name in here}:
        return
    cache = cache_folder("proofs")
    known = cache and cache / key_of(inside.content_hash, here)
    if known and kept(known) is not None:
        return
    assert inside.source is not None
    proved = inside if inside.judging is None else as_exported(inside.source, inside.info)
    problem = short_proof(made_whole(proved), folder)
    if problem:
        raise ArtifactError(
            f"{folder}: differs here from its certificate ({here['engine']} {here['engine_version']} on "
            f"{here['processor']}, {problem}); use another engine, or export the model again, an int8 bundle "
            f"as fp32; 'invad verify {folder}' shows every probe"
        )
    if known:
        keep(known, b"proved")
