"""A bundle made ready to run, and proved again where it comes to another processor than its certificate's."""

from pathlib import Path

from invad.errors import ArtifactError
from invad.runtime.bundle import read_bundle
from invad.runtime.cache import cache_folder, keep, kept, key_of
from invad.runtime.certificate import made_by, short_proof, stored_certificate
from invad.runtime.detector import ExportedDetector
from invad.runtime.engines import AUTO, Options, open_engine
from invad.runtime.predictor import Predictor
from invad.runtime.tiled import TiledPredictor, made_whole


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
    folder = Path(bundle)
    info, content = read_bundle(folder)
    options = Options(threads=threads, streams=streams, device=device, content=content)
    opened = open_engine(engine, info.format, folder / info.graph, options)
    inside = ExportedDetector(info, opened, content_hash=content, streams=streams)
    detector = made_whole(inside)
    if prove:
        _prove(inside, detector, folder)
    return detector


def _prove(inside: ExportedDetector, detector: Predictor, folder: Path) -> None:
    here = made_by(inside)
    certificate = stored_certificate(folder)
    if here == {name: getattr(certificate, name) for name in here}:
        return
    cache = cache_folder("proofs")
    known = cache and cache / key_of(detector.content_hash, here)
    if known and kept(known) is not None:
        return
    problem = short_proof(detector, folder)
    if problem:
        raise ArtifactError(
            f"{folder}: differs here from its certificate ({here['engine']} {here['engine_version']} on "
            f"{here['processor']}, {problem}); use another engine, or export the model again, an int8 bundle "
            f"as fp32; 'invad verify {folder}' shows every probe"
        )
    if known:
        keep(known, b"proved")
