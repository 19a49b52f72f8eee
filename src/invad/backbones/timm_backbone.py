"""Any timm network as a backbone: channels, strides and normalisation are read off the network."""

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from invad.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, BackboneInfo
from invad.backbones.checkpoint import read_weights
from invad.backbones.hub import OFFLINE_WAYS, cached_weights, require_hub
from invad.errors import ConfigError, WeightsError, in_one_line

DEFAULT_STRIDES = (4, 8, 16)
DEFAULT_SIZE = 256
TRANSFORMER_TAPS = 3
PROBE_CELLS = (4, 6)
"""Size of the trial input in units of the largest stride, not a square."""


class TimmBackbone(Backbone):
    """Taps of a timm `features_only` network."""

    def __init__(
        self, info: BackboneInfo, net: nn.Module, mean: Sequence[float], std: Sequence[float], multiple: int
    ):
        super().__init__(info, mean, std, size_multiple=multiple)
        self.net = net

    def features(self, x_B3HW: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.net(x_B3HW)
        return maps


def load_timm(
    name: str,
    *,
    weights: Path | None = None,
    strides: Sequence[int] = DEFAULT_STRIDES,
    pretrained: bool = True,
    image_size: int = DEFAULT_SIZE,
) -> Backbone:
    """Build a timm network by name, in evaluation mode.

    Convolutional networks are tapped at the last block of each stride in `strides`; transformers, which keep
    one stride, at three blocks spread over their second half. weights: a local checkpoint (.safetensors, or
    .pth read without unpickling code), of which the classifier is dropped; None takes the hub or its local
    cache. pretrained=False without weights leaves them random (a saved model brings its own).

    Raises ConfigError for an unknown name or stride or a network that gives no maps, WeightsError when
    weights cannot be had or do not fit.
    """
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 4)
        hint = f"; did you mean {' or '.join(near)}" if near else ""
        raise ConfigError(
            f"backbone {name!r} is unknown to timm {timm.__version__}{hint}? see 'invad backbones list'"
        )
    published: Any = timm.get_pretrained_cfg(name)
    config: dict[str, Any] = published.to_dict() if published is not None else {}
    options, multiple = _taps(name, strides, image_size)
    source = str(weights) if weights is not None else (config.get("hf_hub_id") or "timm")
    if weights is None and pretrained:
        weights = cached_weights(config)
    if weights is not None:
        net = _from_file(name, options, weights, config)
    elif pretrained:
        net = _from_hub(name, options, config)
    else:
        net = _create(name, **options)
    info = BackboneInfo(
        name=name, source=source, licence=config.get("license") or "see the weights' own page"
    )
    mean, std = config.get("mean") or IMAGENET_MEAN, config.get("std") or IMAGENET_STD
    backbone = TimmBackbone(info, net, mean, std, multiple).eval()
    _require_maps(backbone)
    return backbone


def _taps(name: str, strides: Sequence[int], image_size: int) -> tuple[dict[str, Any], int]:
    """Options that choose the taps, and what the sides of an input must be a multiple of."""
    bare = _bare(name)
    if all(hasattr(bare, part) for part in ("patch_embed", "blocks", "pos_embed")):
        patch, depth = int(bare.patch_embed.patch_size[0]), len(bare.blocks)
        taps = [depth * (i + 2) // (TRANSFORMER_TAPS + 1) - 1 for i in range(TRANSFORMER_TAPS)]
        side = max(patch, round(image_size / patch) * patch)
        return {
            "out_indices": sorted({max(0, t) for t in taps}),
            "img_size": side,
            "dynamic_img_size": True,
        }, patch
    info = _bare(name, features_only=True).feature_info
    reductions = list(info.reduction())
    missing = [s for s in strides if s not in reductions]
    if missing or not strides:
        asked = ", ".join(map(str, missing)) or "none"
        raise ConfigError(
            f"backbone {name}: no map at stride {asked}; it has strides {sorted(set(reductions))}"
        )
    last = dict(zip(reductions, info.out_indices, strict=True))
    return {"out_indices": [last[s] for s in sorted(strides)]}, max(strides)


def _bare(name: str, **options: Any) -> Any:
    """The network without weights, to read its shape."""
    import timm

    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, **options)
    except (RuntimeError, NotImplementedError):  # some compute with tensors while they are built
        return _create(name, **options)
    except (AttributeError, TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"backbone {name}: cannot be used for features ({in_one_line(error)})") from None


def _create(name: str, **options: Any) -> nn.Module:
    import timm

    options.setdefault("pretrained", False)
    options.setdefault("features_only", "out_indices" in options)
    try:
        net: nn.Module = timm.create_model(name, **options)
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ConfigError(f"backbone {name}: cannot be used for features ({in_one_line(error)})") from None
    return net


def _from_hub(name: str, options: Mapping[str, Any], config: Mapping[str, Any]) -> nn.Module:
    import timm

    require_hub(name, config)
    try:
        with _quiet():
            net: nn.Module = timm.create_model(name, pretrained=True, features_only=True, **options)
    except Exception as error:  # hub, network and file formats raise whatever comes to hand
        raise WeightsError(
            f"backbone {name}: its weights could not be fetched ({in_one_line(error)}); {OFFLINE_WAYS}"
        ) from None
    return net


def _from_file(name: str, options: Mapping[str, Any], weights: Path, config: Mapping[str, Any]) -> nn.Module:
    """The network with the tensors of a file, which must be all of its tensors and no others.

    timm renames foreign checkpoints and drops the classifier, and then accepts whatever is missing. What was
    missing shows in a second network: its initial values are others.
    """
    state = read_weights(weights)
    _require_no_more(name, state, weights, config)
    first, second = (_filled(name, options, state, weights) for _ in range(2))
    again = second.state_dict()
    missing = [k for k, v in first.state_dict().items() if not torch.equal(v, again[k])]
    if missing:
        raise WeightsError(
            f"{weights}: does not fit backbone {name}, it lacks {missing[0]} and {len(missing) - 1} more; "
            "give its own checkpoint"
        )
    return first


def _filled(name: str, options: Mapping[str, Any], state: Mapping[str, Tensor], weights: Path) -> nn.Module:
    import timm

    overlay = {"state_dict": dict(state), "custom_load": False}
    try:
        with _quiet():
            net: nn.Module = timm.create_model(
                name, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay, **options
            )
    except Exception as error:  # renaming a foreign checkpoint fails in as many ways as there are networks
        raise WeightsError(
            f"{weights}: does not fit backbone {name} ({in_one_line(error)}); give its own checkpoint"
        ) from None
    for module in net.modules():  # timm keeps the checkpoint in its configuration
        for kept in (getattr(module, "pretrained_cfg", None), getattr(module, "default_cfg", None)):
            if isinstance(kept, dict):
                kept.pop("state_dict", None)
    return net


def _require_no_more(
    name: str, state: Mapping[str, Tensor], weights: Path, config: Mapping[str, Any]
) -> None:
    """A deeper sibling has all the tensors of this network, and more."""
    heads = config.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    own = {k for k in _bare(name).state_dict() if not (heads and k.startswith(heads))}
    more = [k for k in state if k not in own and not (heads and k.startswith(heads))]
    if more and own <= set(state):
        raise WeightsError(
            f"{weights}: holds {len(more)} tensors that backbone {name} does not have, such as {more[0]}; "
            "give its own checkpoint"
        )


def _require_maps(backbone: TimmBackbone) -> None:
    """Try it once: some networks have one input size only, or put the channels last."""
    name, multiple = backbone.info.name, backbone.size_multiple
    hw = (PROBE_CELLS[0] * multiple, PROBE_CELLS[1] * multiple)
    feature_info: Any = backbone.net.feature_info
    try:
        shapes = backbone.probe(hw)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"backbone {name}: takes no {hw[0]} x {hw[1]} input ({in_one_line(error)}); choose another"
        ) from None
    taps = zip(feature_info.channels(), feature_info.reduction(), strict=True)
    wanted = [(channels, hw[0] // stride, hw[1] // stride) for channels, stride in taps]
    if list(shapes) != wanted:
        raise ConfigError(f"backbone {name}: gives maps {shapes[0]}, not {wanted[0]}; choose another")


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm", "httpx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
