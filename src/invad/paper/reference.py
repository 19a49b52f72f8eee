"""Import of published InvAD checkpoints (DiT denoisers) into dit.DiT.

A published file is a bare state dict of the training wrapper: `net.` holds the DiT, `cls_embed` and two
embedders are never used by the unconditional path. Files are read without running any code in them.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invad.backbones.checkpoint import read_weights
from invad.diffusion.denoiser import DenoiserConfig
from invad.diffusion.dit import DiT
from invad.errors import ConfigError, WeightsError
from invad.records import Hw
from invad.system.files import replacing, writing
from invad.system.plain import from_plain, read_json
from invad.system.tensors import save_tensors

WRAPPER = "net."
"""What the training wrapper puts before the names of the DiT, beside what `read_weights` takes away."""

UNUSED = ("x_embedder_linear.", "y_embedder.", "cls_embed.")
FOREIGN = {"res_blocks.": "an MLP", "input_blocks.": "a UNet", "middle_block.": "a UNet"}
DEFAULT_HEADS = 8
FORMAT = "invad-denoiser-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceInfo:
    """What a checkpoint turned out to hold. grid_hw: cells of the feature grid it was trained on."""

    config: DenoiserConfig
    channels: int
    grid_hw: Hw


def load_reference(
    path: str | Path, *, heads: int | None = None, grid_hw: Hw | None = None
) -> tuple[DiT, ReferenceInfo]:
    """Read a `.pth`, `.pt`, `.ckpt`, `.bin` or `.safetensors` checkpoint into an evaluation-mode float32 DiT.

    Depth, width, channels and patch follow from the shapes of the tensors. The number of heads leaves no
    trace in them: it is `heads`, else what a JSON file of the same name says, else 8. The grid is grid_hw,
    else the JSON's, else taken as square. Of several state dicts in one file the averaged one (`ema`) wins.
    Raises WeightsError when the file is unreadable, unsafe, of another architecture, or does not fit.
    """
    path = Path(path)
    state = _clean(read_weights(path), path)
    beside = _read_beside(path)
    config = _infer_config(state, beside.heads if heads is None else heads, path)
    channels = state["x_embedder.proj.weight"].shape[1]
    tokens_hw = _token_grid(state, config.patch, beside.grid_hw if grid_hw is None else grid_hw, path)
    options = asdict(config)
    del options["kind"], options["gaussian"]
    # Without storage: initialising a billion weights only to overwrite them takes seconds and doubles memory.
    with torch.device("meta"):
        network = DiT(channels, stored_grid_hw=tokens_hw, **options)
    _require_fit(network, state, path)
    network.load_state_dict(state, assign=True)
    cells_hw = (tokens_hw[0] * config.patch, tokens_hw[1] * config.patch)
    return network.eval(), ReferenceInfo(config=config, channels=channels, grid_hw=cells_hw)


def convert_reference(
    path: str | Path,
    output_dir: str | Path,
    *,
    heads: int | None = None,
    grid_hw: Hw | None = None,
) -> ReferenceInfo:
    """Write `denoiser.safetensors` and `denoiser.json` into output_dir; load_reference reads the pair back.

    Each file appears whole or not at all. Raises WeightsError as load_reference does, or when output_dir
    cannot be written.
    """
    network, info = load_reference(path, heads=heads, grid_hw=grid_hw)
    record = {
        "format": FORMAT,
        "source": Path(path).name,
        "channels": info.channels,
        "grid_hw": list(info.grid_hw),
        "config": asdict(info.config),
    }
    folder = Path(output_dir)
    described, weights = folder / "denoiser.json", folder / "denoiser.safetensors"
    with writing(folder, WeightsError):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(described) as new_description, replacing(weights) as new_weights:
            save_tensors(new_weights, network.state_dict())
            new_description.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return info


def _clean(content: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Plain names of dit.DiT, float32 tensors, without the parts the unconditional path never uses."""
    state = {}
    for name, tensor in content.items():
        name = name.removeprefix(WRAPPER)
        if not name.startswith(UNUSED):
            state[name] = tensor.float()
    for mark, kind in FOREIGN.items():
        if any(mark in name for name in state):
            raise WeightsError(
                f"{path}: holds {kind} denoiser, which cannot be imported; only DiT checkpoints can"
            )
    return state


@dataclass(frozen=True, slots=True)
class _Beside:
    heads: int = DEFAULT_HEADS
    grid_hw: Hw | None = None


def _read_beside(path: Path) -> _Beside:
    """What the JSON file of the same name says, if there is one. It may be another program's and say more."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return _Beside()
    advice = 'it should say {"config": {"heads": ...}}; correct or remove it, and give heads'
    record = read_json(beside, WeightsError, advice)
    config = record.get("config")
    if not isinstance(config, dict) or "heads" not in config:
        raise WeightsError(f"{beside}: does not say how many heads; {advice}")
    version = record.get("format", FORMAT)
    if record.get("source") and version != FORMAT:
        raise WeightsError(
            f"{beside}: format {version!r} is not the one this invad reads ({FORMAT}); update invad"
        )
    told = {"heads": config["heads"], "grid_hw": record.get("grid_hw")}
    return from_plain(_Beside, told, str(beside), WeightsError, advice)


def _infer_config(state: Mapping[str, Tensor], heads: Any, path: Path) -> DenoiserConfig:
    needed = {"x_embedder.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2, "pos_embed": 3}
    lacking = [name for name, axes in needed.items() if name not in state or state[name].ndim != axes]
    if lacking:
        raise WeightsError(
            f"{path}: is no DiT denoiser, it lacks {_first(lacking)}; give a published checkpoint"
        )
    width, _, patch, _ = state["x_embedder.proj.weight"].shape
    blocks = {int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))}
    try:
        return DenoiserConfig(
            kind="dit",
            width=width,
            depth=len(blocks),
            heads=heads,
            mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / width,
            patch=patch,
        )
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from None


def _token_grid(state: Mapping[str, Tensor], patch: int, grid_hw: Hw | None, path: Path) -> Hw:
    tokens = state["pos_embed"].shape[1]
    if grid_hw is None:
        side = math.isqrt(tokens)
        if side * side != tokens:
            raise WeightsError(f"{path}: its {tokens} positions form no square; give the grid (h, w)")
        return side, side
    h, w = grid_hw[0] // patch, grid_hw[1] // patch
    if h * w != tokens or (h * patch, w * patch) != tuple(grid_hw):
        raise WeightsError(
            f"{path}: has {tokens} positions of {patch} x {patch} cells, not a {grid_hw[0]} x {grid_hw[1]} "
            "grid; use the input size it was trained with"
        )
    return h, w


def _require_fit(network: DiT, state: Mapping[str, Tensor], path: Path) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    mis_shaped = [
        f"{name} {shapes[name]} instead of {wanted[name]}"
        for name in wanted
        if name in shapes and shapes[name] != wanted[name]
    ]
    problems = {
        "missing": [name for name in wanted if name not in shapes],
        "unexpected": [name for name in shapes if name not in wanted],
        "mis-shaped": mis_shaped,
    }
    said = "; ".join(f"{kind}: {_first(names)}" for kind, names in problems.items() if names)
    if said:
        raise WeightsError(
            f"{path}: does not fit the DiT it seems to be ({said}); give a published checkpoint"
        )


def _first(names: list[str], count: int = 3) -> str:
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "")
