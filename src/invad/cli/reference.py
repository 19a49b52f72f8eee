"""invad paper import"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invad.cli.folder import training_folder
from invad.cli.options import (
    BACKBONES,
    DEFAULT_RATES,
    FEATURES,
    DeviceOption,
    FalseAlarmRateOption,
    JsonOption,
    ReviewRateOption,
    WeightsOption,
    one_of,
)
from invad.cli.progress import observing
from invad.cli.voice import Voice
from invad.errors import ConfigError
from invad.scoring.rates import POOLED, Rates
from invad.system.plain import to_plain

if TYPE_CHECKING:
    from invad.detector.detector import Detector


def import_reference(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A published .pth or .safetensors checkpoint.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for denoiser.safetensors and denoiser.json; with --normals, for the model.",
        ),
    ],
    heads: Annotated[
        int | None,
        typer.Option(min=1, help="Attention heads, which the weights do not tell. Default: 8."),
    ] = None,
    normals: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Good images it was not trained on: make a model that decides, as 'train'."
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=FEATURES,
            autocompletion=one_of(*BACKBONES),
            help="Feature network it was trained on. Default: efficientnet_b4, the paper's.",
        ),
    ] = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    review_rate: ReviewRateOption = DEFAULT_RATES.review,
    false_alarm_rate: FalseAlarmRateOption = DEFAULT_RATES.bad,
    json: JsonOption = None,
) -> None:
    """Convert a checkpoint of the published InvAD code, or make a model of it; no code in it is run."""
    voice = Voice(json)
    if normals is None:
        if backbone is not None or weights is not None:
            raise ConfigError(
                "--backbone and --weights make a model: give --normals, a folder of good images"
            )
        _convert(voice, file, output, heads)
        return
    rates = Rates(review=review_rate, bad=false_alarm_rate)
    with training_folder(output, resume=False), observing(voice.err) as observer:
        from invad.paper.adopt import adopt

        detector = adopt(
            file,
            normals,
            heads=heads,
            backbone=backbone,
            weights=weights,
            rates=rates,
            device=device,
            observer=observer,
        )
        detector.save(output)
    result = _summary(detector, output)
    voice.say(
        f"Denoiser of {file}, calibrated on {result['calibrated_on']} {detector.calibrations[POOLED].unit}.",
        f"Model: {output}",
        f"Next: invad predict {output} IMAGES, or invad evaluate {output} FOLDER --protocol paper",
    )
    voice.hand_over(result)


def _summary(detector: "Detector", output: Path) -> dict[str, Any]:
    info = detector.info
    return {
        "output": str(output),
        "channels": info.channels,
        "grid_hw": list(info.grid_hw),
        "config": to_plain(info.settings)["denoiser"],
        "backbone": info.settings.backbone,
        "calibrated_on": detector.calibrations[POOLED].n,
        "warnings": list(detector.warnings()),
        "content_hash": detector.content_hash,
    }


def _convert(voice: Voice, file: Path, output: Path, heads: int | None) -> None:
    from invad.paper.reference import convert_reference

    info = convert_reference(file, output, heads=heads)
    config = info.config
    voice.say(
        f"DiT of depth {config.depth}, width {config.width}, {config.heads} heads, patch {config.patch}, for "
        f"{info.channels} channels on a {info.grid_hw[0]} x {info.grid_hw[1]} grid",
        f"Written: {output / 'denoiser.safetensors'}, {output / 'denoiser.json'}",
        f"For a model that decides: invad paper import {file} --normals GOOD_IMAGES --output MODEL",
    )
    voice.hand_over(
        {
            "output": str(output),
            "channels": info.channels,
            "grid_hw": list(info.grid_hw),
            "config": asdict(config),
        }
    )
