"""The exported detector as a folder: `bundle.json`, the graph, probe images and the certificate. No pickle.

`bundle.json` names every file with its SHA-256 and is written last, so a folder that has it is complete.
"""

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from invad.data.region import Region
from invad.errors import ArtifactError, reason
from invad.records import Hw
from invad.runtime.fusing import Tiled
from invad.scoring.calibration import Calibration
from invad.scoring.fusion import Fusion
from invad.scoring.lengths import SizeModel
from invad.scoring.rates import POOLED
from invad.scoring.sizes import Smallest
from invad.system.digests import file_sha256, plain_sha256
from invad.system.files import PARTIAL, is_file, is_folder, is_there, staged, take_place
from invad.system.plain import from_plain, read_json, to_plain

FORMAT = 2
OLDEST = 1
"""Format that is still read: it lacks sections that change what a bundle says."""
BUNDLE = "bundle.json"
CERTIFICATE = "certificate.json"

AGAIN = "copy the bundle again or repeat 'invad export'"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportInfo:
    """What `bundle.json` says of an exported detector.

    format: onnx, openvino or torch; graph: the graph's file in the folder. precision: fp32, fp16, bf16 or
    int8. size_hw: the one size of images it takes, None for any. batch: images at a time, None for any
    number. window: see Preprocess. calibrations: by category, POOLED first; their order numbers the
    categories. pixels: the one type of pixels that the graph takes, with black and white in it; None where it
    takes float32 levels and their range. region: the part of the pictures that counts, which the graph has in
    it; None where all of it does. smallest: of defects, with which the score follows from the map of the
    graph; None without one. preset, backbone, backbone_licence, input_hw, grid_hw, parameters, model_hash: of
    the model it was made from (model_hash None when that was never saved). tiles: of a model of tiles, whose
    calibrations of pictures are in it; the graph then takes tiles. parts: how several pictures of a part
    become one decision, None for a model of single images. sizes: as of the model. regions: of categories
    that look at a part of the pictures of their own, which the graph has in it. held: file of norm maps of
    held-out images, of which limits for another region can be made; None without. exported: of a bundle whose
    limits were, what the graph itself has in it, which the certificate is about; limits: file of the
    statistics by which it judges in place of those in the graph.
    """

    format: str
    graph: str
    precision: str
    size_hw: Hw | None
    batch: int | None
    window: tuple[float, float]
    preset: str
    backbone: str
    backbone_licence: str
    input_hw: Hw
    grid_hw: Hw
    parameters: int
    model_hash: str | None
    created: str
    invad_version: str
    calibrations: dict[str, Calibration]
    pixels: Literal["uint8", "uint16"] | None = None
    region: Region | None = None
    smallest: Smallest | None = None
    tiles: Tiled | None = None
    parts: Fusion | None = None
    sizes: SizeModel | None = None
    regions: dict[str, Region] = field(default_factory=dict)
    held: str | None = None
    limits: str | None = None
    exported: "Exported | None" = None

    @property
    def as_exported(self) -> "ExportInfo":
        """What it said when the bundle was exported."""
        if self.exported is None:
            return self
        own = {one.name: getattr(self.exported, one.name) for one in fields(self.exported)}
        return replace(self, **own, limits=None, exported=None)

    @property
    def in_graph(self) -> "Exported":
        """What the graph has in it, however often limits were made anew."""
        said = self.as_exported
        return Exported(**{one.name: getattr(said, one.name) for one in fields(Exported)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What a graph has in it; see ExportInfo."""

    calibrations: dict[str, Calibration]
    region: Region | None
    regions: dict[str, Region]
    smallest: Smallest | None
    tiles: Tiled | None = None
    parts: Fusion | None = None


def is_bundle(folder: str | Path) -> bool:
    """Whether a folder was written by 'invad export'."""
    return is_file(Path(folder) / BUNDLE)


def write_bundle(
    folder: Path, info: ExportInfo, fill: Callable[[Path], None], changeable: Collection[str] = ()
) -> str:
    """Write a bundle whose other files `fill` puts into the folder it is given; returns its content hash.

    changeable: files that may be changed afterwards, and are not part of it.

    Whatever goes wrong in `fill`, nothing stays behind. Raises ArtifactError when the folder is not empty
    or cannot be written.
    """
    if is_there(folder) and (
        not is_folder(folder) or not all(p.name.startswith(PARTIAL) for p in folder.iterdir())
    ):
        raise ArtifactError(f"{folder}: exists and is not empty; give --output a new folder")
    with staged(folder, ArtifactError) as staging:
        fill(staging)
        files = {name: sha256(staging / name) for name in _names(staging) if name not in changeable}
        content = _write_head(staging / BUNDLE, info, files)
        open_to_all(staging)
        for made in sorted(staging.iterdir(), key=lambda made: made.name == BUNDLE):
            made.replace(folder / made.name)
    return content


def changed(folder: Path, info: ExportInfo, fill: Callable[[Path], None], drop: Callable[[str], bool]) -> str:
    """Let a bundle say this, with the files that `fill` puts into the folder it is given, in place of those
    that `drop` knows by name; returns its content hash.

    What it says comes last and at once, so it is whole at any time. Raises ArtifactError when it cannot be
    read or written.
    """
    files: dict[str, str] = read_json(folder / BUNDLE, ArtifactError, AGAIN)["files"]
    with staged(folder, ArtifactError) as staging:
        fill(staging)
        new = {name: sha256(staging / name) for name in _names(staging)}
        content = _write_head(
            staging / BUNDLE, info, {**{n: digest for n, digest in files.items() if not drop(n)}, **new}
        )
        open_to_all(staging)
        for name in (*new, BUNDLE):
            take_place(staging / name, folder / name)
        for name in files:
            if drop(name) and name not in new:
                with suppress(OSError):
                    (folder / name).unlink()
    return content


def _write_head(path: Path, info: ExportInfo, files: Mapping[str, str]) -> str:
    plain = {"format_version": FORMAT, **to_plain(info)}
    content = content_hash(plain, files)
    whole = {**plain, "files": files, "content_hash": content}
    path.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return content


def read_bundle(folder: Path) -> tuple[ExportInfo, str]:
    """Check every file of a bundle; returns what it says and its content hash.

    Raises ArtifactError naming the file that is missing, altered, truncated or too new.
    """
    if not is_folder(folder):
        raise ArtifactError(f"{folder}: no such bundle; 'invad export MODEL --output {folder}' makes one")
    if not is_bundle(folder):
        if is_file(folder / "config.json"):
            raise ArtifactError(
                f"{folder}: is a model, no exported bundle; 'invad export {folder} --output BUNDLE' makes one"
            )
        raise ArtifactError(f"{folder}: {BUNDLE} is missing, this is no complete bundle; {AGAIN}")
    plain = read_json(folder / BUNDLE, ArtifactError, AGAIN)
    version = plain.pop("format_version", None)
    if type(version) is not int or not OLDEST <= version <= FORMAT:
        raise ArtifactError(
            f"{folder}: bundle format {version!r}, this invad reads {OLDEST} to {FORMAT}; export the model "
            "again or use the invad it was made with"
        )
    files, content = plain.pop("files", None), plain.pop("content_hash", None)
    if not isinstance(files, dict) or content_hash({"format_version": version, **plain}, files) != content:
        raise ArtifactError(f"{folder / BUNDLE}: altered since it was written; {AGAIN}")
    for name, digest in files.items():
        require_inside(folder, name)
        path = folder / name
        if not is_file(path):
            raise ArtifactError(f"{path}: is missing; {AGAIN}")
        if sha256(path) != digest:
            raise ArtifactError(f"{path}: altered or truncated since it was written; {AGAIN}")
    info = from_plain(ExportInfo, plain, str(folder / BUNDLE), ArtifactError, AGAIN)
    if info.graph not in files:
        raise ArtifactError(f"{folder / BUNDLE}: the graph {info.graph!r} is no file of it; {AGAIN}")
    if next(iter(info.calibrations), None) != POOLED:
        raise ArtifactError(
            f"{folder / BUNDLE}: the calibration over all categories does not come first; {AGAIN}"
        )
    return info, content


def named_files(folder: Path) -> list[str]:
    """The files of a bundle or of a trained model by its own list, which comes last; no others are of it.

    Raises ArtifactError where there is no such list.
    """
    head = BUNDLE if is_bundle(folder) else "config.json"
    if not is_file(folder / head):
        raise ArtifactError(f"{folder}: holds neither {BUNDLE} nor config.json, so it is no model; {AGAIN}")
    files = read_json(folder / head, ArtifactError, AGAIN).get("files")
    if not isinstance(files, dict):
        raise ArtifactError(f"{folder / head}: altered since it was written; {AGAIN}")
    for name in files:
        require_inside(folder, name)
    card = ["README.md"] if is_file(folder / "README.md") else []
    return [*dict.fromkeys([*files, *card]), head]


def require_inside(folder: Path, name: str) -> None:
    """Whoever made a bundle must not have other files read."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ArtifactError(f"{folder}: names the file {name!r}, which lies outside; {AGAIN}")


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if is_file(path))


def open_to_all(folder: Path) -> None:
    """mkdtemp and some writers leave files that their owner alone can read."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if is_folder(path) else 0o644)


def sha256(path: Path) -> str:
    """Of the bytes of a file, hexadecimal. Raises ArtifactError when it cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise ArtifactError(f"{path}: {reason(error, writing=False)}") from None


def content_hash(plain: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """Over plain data and the digests of files, hexadecimal."""
    return plain_sha256([plain, files])
