"""Weights from the Hugging Face hub's local cache, and whether the hub can be reached at all.

A PC on a line has no network. The hub's client would try again for most of a minute before it says so,
and its time limits can be set only before it is imported; a connection of our own says it at once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from invad.errors import WeightsError
from invad.system.network import is_reachable

OFFLINE_WAYS = (
    "offline, use one of: the backbone 'invad-s' (needs nothing); --weights FILE with a checkpoint of this "
    "network; or a Hugging Face cache filled on another machine (set HF_HOME to it)"
)

FILES = ("model.safetensors", "pytorch_model.bin")


def cached_weights(config: Mapping[str, Any]) -> Path | None:
    """The file of a timm pretrained config in the local cache of the hub (or of torch), if it is there."""
    from huggingface_hub import try_to_load_from_cache

    if not config.get("hf_hub_id"):
        plain = Path(torch.hub.get_dir()) / "checkpoints" / Path(str(config.get("url"))).name
        return plain if plain.is_file() else None
    repository, _, revision = str(config["hf_hub_id"]).partition("@")
    own = config.get("hf_hub_filename")
    for file in (own,) if own else FILES:
        cached = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    return None


def require_hub(name: str, config: Mapping[str, Any]) -> None:
    """Raises WeightsError within a few seconds when the server of these weights does not answer."""
    from huggingface_hub import constants

    address = constants.ENDPOINT if config.get("hf_hub_id") else config.get("url")
    if not address:
        raise WeightsError(f"backbone {name}: timm knows no weights for it; give --weights FILE")
    url = urlsplit(str(address))
    cache = constants.HF_HUB_CACHE if config.get("hf_hub_id") else torch.hub.get_dir()
    if str(cache).startswith("~"):
        variable = "HF_HOME" if config.get("hf_hub_id") else "TORCH_HOME"
        raise WeightsError(
            f"backbone {name}: no home folder to keep its weights in; set {variable} to a folder, "
            "or give --weights FILE"
        )
    if constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    elif is_reachable(str(address)):
        return
    else:
        reason = f"{url.hostname} cannot be reached"
    raise WeightsError(
        f"backbone {name}: its weights are not in the local cache and {reason}; {OFFLINE_WAYS}"
    )
