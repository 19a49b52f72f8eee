"""invad export, invad verify: a model for other engines, proved to say the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invad.cli.options import (
    EXPORT_LAYOUTS,
    FORMATS,
    PRECISIONS,
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelArgument,
    ThreadsOption,
    one_of,
)
from invad.cli.voice import Voice
from invad.detector.opening import AUTO
from invad.errors import ArtifactError, ConfigError
from invad.records import Hw

if TYPE_CHECKING:
    from invad.runtime.certificate import Certificate

SHAPE, INT8, TRITON_SERVER = "Shape of the input", "Precision int8", "Triton Inference Server"


def export(
    model: ModelArgument,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the bundle; new or empty.")],
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=one_of(*FORMATS),
            help="onnx, openvino, or torch (a program of torch.export).",
        ),
    ] = "onnx",
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=one_of(*PRECISIONS),
            help="Of the networks: fp32, fp16, bf16 or int8 (needs --calibration).",
        ),
    ] = "fp32",
    json: JsonOption = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            rich_help_panel=SHAPE,
            help="Images of this height and width alone: faster. Default: any size.",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            rich_help_panel=SHAPE,
            help="Images at a time: a number, or dynamic for any number. Default: 1; for Triton 8, which it "
            "gathers at most.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            rich_help_panel=INT8,
            help="Normal images: int8 is fitted to them, and each is compared.",
        ),
    ] = None,
    max_changed: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            rich_help_panel=INT8,
            help="Share of images whose decision int8 may change.",
        ),
    ] = 0.01,
    layout: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=TRITON_SERVER,
            autocompletion=one_of(*EXPORT_LAYOUTS),
            help="bundle, or triton: the folder of a model in Triton's repository.",
        ),
    ] = EXPORT_LAYOUTS[0],
    bits: Annotated[
        int | None,
        typer.Option(
            metavar="8|16",
            rich_help_panel=TRITON_SERVER,
            help="Of the pixels it is sent. Default: 8.",
        ),
    ] = None,
) -> None:
    """Write a model as a bundle for ONNX Runtime, OpenVINO or PyTorch, and prove that it says the same.

    Probe images run through PyTorch and through the engine; the bundle holds them and a certificate of the
    differences. Over tolerance nothing is written.
    """
    voice = Voice(json)
    from invad.data.listing import survey
    from invad.detector.opening import open_model
    from invad.export import ExportConfig
    from invad.export import export as write

    config = ExportConfig(
        format=format,
        precision=precision,
        size_hw=parse_size(size),
        batch=None if batch == "dynamic" else _number(batch or ("8" if layout == EXPORT_LAYOUTS[1] else "1")),
        calibration=calibration,
        max_changed=max_changed,
        layout=layout,
        bits=bits,
    )
    if calibration is not None:
        voice.warn(*survey(calibration).in_words())
    content, certificate = write(open_model(model, "cpu"), output, config)
    _say(voice, certificate)
    voice.say(f"Bundle: {output}", f"Next: invad predict {output} IMAGES, or invad verify {output}")
    if layout == EXPORT_LAYOUTS[1]:
        voice.say(f"Model repository: {output.absolute().parent}")
    voice.hand_over({"bundle": str(output), "content_hash": content, "certificate": certificate.to_plain()})


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder written by 'invad export'.")],
    engine: EngineOption = AUTO,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Repeat the comparison with PyTorch's stored results, on this machine and engine."""
    voice = Voice(json)
    from invad.runtime import load
    from invad.runtime.certificate import certify
    from invad.runtime.loading import as_certified

    detector = load(bundle, engine, threads=threads, device=device, prove=False)
    certificate = certify(as_certified(detector), bundle)
    _say(voice, certificate)
    if detector.info.limits is not None:
        voice.say("This is the graph as it was exported; region of interest or limits were changed since.")
    voice.hand_over(
        {
            "bundle": str(bundle),
            "content_hash": detector.content_hash,
            "certificate": certificate.to_plain(),
        }
    )
    if certificate.problems:
        raise ArtifactError(f"{bundle}: differs from PyTorch: {certificate.problems[0]}")


def parse_size(text: str | None) -> Hw | None:
    """`200x300` as (200, 300). Raises ConfigError for anything else."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"size {text!r}: give height x width in pixels, such as 480x640")
    return int(parts[0]), int(parts[1])


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"batch {text!r}: give a number of images, or dynamic")
    return int(text)


def _say(voice: Voice, certificate: "Certificate") -> None:
    rows: list[list[str]] = [["probe", "PyTorch", certificate.engine, "map differs by", "decision"]]
    for row in certificate.rows:
        kept = row.decision if not row.changed else f"{row.decision} -> {row.decision_found}"
        name = row.probe if not row.category else f"{row.probe} as {row.category}"
        rows.append([name, f"{row.score:.5f}", f"{row.score_found:.5f}", f"{row.map_difference:.2g}", kept])
    voice.table(rows)
    plain: dict[str, Any] = certificate.to_plain()
    said = "the same as PyTorch" if plain["passed"] else "NOT the same as PyTorch"
    where = f"{certificate.engine} {certificate.engine_version} on {certificate.device}"
    changed = f"{plain['changed_decisions']} of {certificate.decisions} decisions changed"
    voice.say(f"{where}, {certificate.precision}: {said} within tolerance; {changed}")
