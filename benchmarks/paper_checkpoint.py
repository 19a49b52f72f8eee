"""A checkpoint of the paper's size with random weights, and a backbone for it: to try what takes memory.

    python benchmarks/paper_checkpoint.py FOLDER

writes FOLDER/model.safetensors (4.9 GB, a DiT of 1,223 M parameters under the names of the published code)
and FOLDER/b4.safetensors (timm's EfficientNet-B4, untrained). Nothing is learned by either.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from invad.diffusion.dit import DiT
from invad.model.settings import preset_named

CHANNELS = 272
GRID_HW = (16, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    backbone = timm.create_model("efficientnet_b4", pretrained=False)
    save_file(backbone.state_dict(), folder / "b4.safetensors")
    options = asdict(preset_named("paper").denoiser)
    del options["kind"], options["gaussian"]
    with torch.device("meta"):
        names = DiT(CHANNELS, stored_grid_hw=GRID_HW, **options).state_dict()
    drawn = {k: torch.randn(v.shape) * (0.02 if v.ndim > 1 else 0.01) for k, v in names.items()}
    save_file(drawn, folder / "model.safetensors")
    print(f"{sum(t.numel() for t in drawn.values()) / 1e6:.0f} M parameters in {folder}")


if __name__ == "__main__":
    main()
