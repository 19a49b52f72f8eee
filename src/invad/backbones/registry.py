"""Backbones by name: the one that ships, and all of timm."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from invad.backbones.base import Backbone
from invad.backbones.beside import EACH, JOINT, OVER, Divided, Each, SideBySide
from invad.backbones.invad_s import NAME as INVAD_S
from invad.backbones.invad_s import empty_invad_s, load_invad_s
from invad.backbones.lite import FILES as LITE
from invad.backbones.lite import empty_lite, load_lite
from invad.backbones.timm_backbone import DEFAULT_SIZE, DEFAULT_STRIDES, load_timm
from invad.errors import ConfigError, WeightsError, in_one_line

SUGGESTED = {
    "invad-s": "ships with the package, needs no network; strides 4/8/16; about 10 ms an image on 2 cores",
    "efficientnet-lite0": "the paper's family at its lightest, trained on ImageNet; extra lite",
    "efficientnet-lite1": "the same, with deeper stages",
    "efficientnet-lite2": "the same, with wider stages; the second backbone of standard",
    "resnet50": "the classic of PatchCore-like detectors; strides 4/8/16",
    "wide_resnet50_2": "what most published results use; heavy",
    "efficientnet_b4": "the paper's backbone (it taps strides 2/4/8/16)",
    "mobilenetv3_large_100": "light, for small CPUs",
    "vit_small_patch14_dinov2": "self-supervised transformer, one stride of 14",
    "vit_base_patch14_reg4_dinov2": "the backbone of Dinomaly",
}


@dataclass(frozen=True, slots=True)
class Family:
    """How a backbone is made: with weights (from a file, or its own for None), or empty from its shape.

    load: also takes the strides to tap, which one that has no others may ignore.
    """

    load: Callable[[Path | None, Sequence[int]], Backbone]
    empty: Callable[[Mapping[str, Any]], Backbone]


def load_backbone(
    name: str,
    *,
    weights: Path | None = None,
    strides: Sequence[int] = DEFAULT_STRIDES,
    pretrained: bool = True,
    image_size: int | None = None,
    shape: Mapping[str, Any] | None = None,
) -> Backbone:
    """A frozen backbone by name, or several: with known cells of their own (`A,B`), side by side in one
    feature space (`A+B`), or one for the grid and one for the fine grid (`A//B`).

    weights: a file in place of those that the name stands for, of one backbone alone. pretrained=False makes
    it empty, for a saved model to fill: `shape` is then its BackboneInfo.shape. image_size: for networks of
    timm that have to know it; None for 256.
    Raises ConfigError or WeightsError with what to do (see `load_timm`).
    """
    joint = next((one for one in (EACH, OVER) if one in name), JOINT)
    if joint in name:
        if weights is not None:
            raise ConfigError(
                f"backbone {name}: a file of weights is of one backbone; give their names alone"
            )
        names = name.split(joint, 1 if joint == OVER else -1)
        shapes = shape or {}
        parts = [
            load_backbone(
                part,
                strides=strides,
                pretrained=pretrained,
                image_size=image_size,
                shape=shapes.get(part, {}),
            )
            for part in names
        ]
        if joint == OVER:
            return Divided(*parts).freeze()
        return (Each(parts) if joint == EACH else SideBySide(parts)).freeze()
    if name not in BACKBONES:
        return load_timm(
            name,
            weights=weights,
            strides=strides,
            pretrained=pretrained,
            image_size=image_size or DEFAULT_SIZE,
        ).freeze()
    if pretrained or weights is not None:
        return BACKBONES[name].load(weights, strides).freeze()
    try:
        return BACKBONES[name].empty(shape or {}).freeze()
    except (ConfigError, ValueError, RuntimeError) as error:
        said = in_one_line(error)
        raise WeightsError(f"backbone {name}: cannot be built in the shape {shape} ({said})") from None


BACKBONES: dict[str, Family] = {
    INVAD_S: Family(lambda weights, strides: load_invad_s(weights), empty_invad_s),
    **{name: Family(partial(load_lite, name), partial(empty_lite, name)) for name in LITE},
}
