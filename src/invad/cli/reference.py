"""invad import-reference"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from invad.cli.options import JsonOption
from invad.cli.voice import Voice


def import_reference(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A published .pth or .safetensors checkpoint.")
    ],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for denoiser.safetensors and denoiser.json.")
    ],
    heads: Annotated[
        int | None,
        typer.Option(min=1, help="Attention heads, which the weights do not tell. Default: 8."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Convert a denoiser checkpoint of the published InvAD code; nothing in the file is run."""
    voice = Voice(json)
    from invad.diffusion.reference import convert_reference

    info = convert_reference(file, output, heads=heads)
    config = info.config
    voice.say(
        f"DiT of depth {config.depth}, width {config.width}, {config.heads} heads, patch {config.patch}, for "
        f"{info.channels} channels on a {info.grid_hw[0]} x {info.grid_hw[1]} grid",
        f"Written: {output / 'denoiser.safetensors'}, {output / 'denoiser.json'}",
    )
    voice.hand_over(
        {
            "output": str(output),
            "channels": info.channels,
            "grid_hw": list(info.grid_hw),
            "config": asdict(config),
        }
    )
