"""Batch norms folded into the convolutions before them."""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fuse_batch_norm(net: nn.Module, *example: Tensor) -> nn.Module:
    """Batch norms that follow a convolution go into its weights, in place; `net` is in evaluation mode.

    Which norm follows which convolution is read off one run on `example`, not off names.
    """
    made: dict[int, nn.Conv2d] = {}
    calls: dict[nn.Module, int] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    alive = []  # an id is taken anew once its tensor is gone

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        alive.append(output)
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module
        elif id(inputs[0]) in made and isinstance(module, nn.BatchNorm2d):
            pairs.append((made[id(inputs[0])], module))

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [m.register_forward_hook(watch) for m in layers]
    with torch.no_grad():
        net(*example)
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in net.named_modules()}
    for conv, norm in pairs:
        if calls[conv] == calls[norm] == 1 and norm.track_running_stats:
            _replace(net, names[conv], fuse_conv_bn_eval(conv, norm))
            # timm's norms carry their activation
            _replace(net, names[norm], getattr(norm, "act", None) or nn.Identity())
    return net


def _replace(net: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(net.get_submodule(parent), own, module)
