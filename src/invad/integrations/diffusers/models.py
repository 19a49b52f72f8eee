"""Pipelines of diffusers as the readings see them: an encoder, a noise predictor and a schedule.

Three kinds are read. UNet2DModel in pixels from -1 to 1, as in DDPMPipeline. UNet2DConditionModel in the
latents of an AutoencoderKL, as in StableDiffusionPipeline, with the embedding of an empty prompt.
DiTTransformer2DModel in such latents, as in DiTPipeline, with the null class of its classifier-free guidance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from invad.diffusion.schedule import NoiseSchedule
from invad.errors import ConfigError, in_one_line
from invad.integrations.diffusers.noise import as_noise, prediction_of, schedule_of
from invad.records import Hw
from invad.system.packages import importing, using

HOST = ("diffusers",)

with importing(HOST, "diffusers", __package__):
    from diffusers import AutoencoderKL, DiTTransformer2DModel, UNet2DConditionModel, UNet2DModel

ALIGNMENT = 64
"""Bytes; memory that PyTorch asks for starts at a multiple of it."""

Encode = Callable[[Tensor], Tensor]
Network = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class NoiseModel:
    """What a detector needs of a pipeline. Get one with `noise_model`.

    encode: images B x 3 x H x W in [0, 1] to what is noised, float32 B x C x h x w. network: its output for
    such an x_BChw at levels t_B. prediction: what that is, a name of PREDICTIONS. input_hw: the size of
    images it was made for, None where the pipeline does not say. device, dtype: of the network.
    """

    encode: Encode
    network: Network
    prediction: str
    schedule: NoiseSchedule
    input_hw: Hw | None
    device: torch.device
    dtype: torch.dtype

    def predict_noise(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        """The noise in x_BChw at levels t_B (int64), float32; the network runs in its own type."""
        signal, spread = (power[t_B].view(-1, 1, 1, 1) for power in self._powers)
        output = self.network(x_BChw.to(self.dtype), t_B)
        return as_noise(self.prediction, output, x_BChw, signal, spread)

    @cached_property
    def _powers(self) -> tuple[Tensor, Tensor]:
        """sqrt(abar) and sqrt(1 - abar) of all levels, rounded once."""
        abar_T = torch.tensor(self.schedule.alphas_cumprod, dtype=torch.float64)
        return abar_T.sqrt().float().to(self.device), (1 - abar_T).sqrt().float().to(self.device)


@using(HOST, __package__)
def noise_model(pipe: Any, prompt_embeds: Tensor | None = None) -> NoiseModel:
    """The encoder and noise predictor in a pipeline, whose networks are set to inference.

    prompt_embeds: 1 x tokens x width, in place of those of an empty prompt. Raises ConfigError for a pipeline
    of another kind, flow matching among them, and where diffusers has changed.
    """
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is None:
        raise ConfigError(f"{type(pipe).__name__} is no pipeline of diffusers: it has no scheduler")
    prediction, schedule = prediction_of(scheduler), schedule_of(scheduler)
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            _align(part.eval())
    vae = getattr(pipe, "vae", None)
    if isinstance(network, UNet2DModel):
        encode, ask = _pixels(pipe, network)
    elif isinstance(network, UNet2DConditionModel):
        encode, ask = _latents(pipe, network, vae), _prompted(pipe, network, prompt_embeds)
    elif isinstance(network, DiTTransformer2DModel):
        encode, ask = _latents(pipe, network, vae), _unlabelled(network)
    else:
        raise _unknown(
            pipe, f"a {type(network).__name__}" if network is not None else "neither unet nor transformer"
        )
    factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 1
    size = _size(network.config.sample_size, factor)
    return NoiseModel(encode, ask, prediction, schedule, size, network.device, network.dtype)


def _align(network: nn.Module) -> None:
    """Give each weight memory of its own that starts where PyTorch would have it start.

    Weights that were read from a file lie at any address in it, and some processors round the products of
    such weights otherwise, so a detector that was saved and read again would score otherwise.
    """
    for weight in (*network.parameters(), *network.buffers()):
        # Quantised weights are tensors of other kinds, which may have no memory of their own.
        if type(weight.data) is Tensor and weight.data_ptr() % ALIGNMENT:
            weight.data = weight.data.clone()


def require_runs(model: NoiseModel, input_hw: Hw) -> Hw:
    """Rows and columns of what is noised for images of this size, after asking the network once.

    Raises ConfigError when it does not answer with noise of that shape.
    """
    shown = f"input_hw = {input_hw}: images of {input_hw[0]} x {input_hw[1]} (height x width)"
    try:
        x = model.encode(torch.zeros(1, 3, *input_hw))
        noise = model.predict_noise(x, torch.zeros(1, dtype=torch.int64, device=x.device))
    except Exception as error:  # whatever a network raises about shapes, or about inputs it misses
        raise ConfigError(
            f"{shown} do not pass the pipeline ({in_one_line(error)}); give another size"
        ) from None
    if noise.shape != x.shape:
        raise ConfigError(f"{shown} give noise {tuple(noise.shape)} for {tuple(x.shape)}; give another size")
    return x.shape[2], x.shape[3]


def _pixels(pipe: Any, unet: Any) -> tuple[Encode, Network]:
    if getattr(pipe, "vqvae", None) is not None or unet.config.in_channels not in (1, 3):
        raise _unknown(pipe, f"a UNet2DModel of {unet.config.in_channels} channels that are no pixels")
    if unet.class_embedding is not None:
        raise _unknown(pipe, "a UNet2DModel that wants a class, and has none that means nothing")

    def encode(x_B3HW: Tensor) -> Tensor:
        x = 2 * x_B3HW.to(unet.device) - 1
        return x.mean(dim=1, keepdim=True) if unet.config.in_channels == 1 else x

    return encode, lambda x, t: unet(x, t).sample


def _latents(pipe: Any, network: Any, vae: Any) -> Encode:
    if not isinstance(vae, AutoencoderKL):
        raise _unknown(pipe, f"a {type(vae).__name__} where an AutoencoderKL is")
    if network.config.in_channels != vae.config.latent_channels:
        raise _unknown(
            pipe, f"a network that takes more than latents ({network.config.in_channels} channels)"
        )
    shift, scale = getattr(vae.config, "shift_factor", None) or 0.0, vae.config.scaling_factor

    def encode(x_B3HW: Tensor) -> Tensor:
        x = (2 * x_B3HW - 1).to(vae.device, vae.dtype)
        # The mode: a drawn latent would give an image another score each time.
        latent: Tensor = (vae.encode(x).latent_dist.mode().float() - shift) * scale
        return latent

    return encode


def _prompted(pipe: Any, unet: Any, prompt_embeds: Tensor | None) -> Network:
    asked = ("class_embed_type", "num_class_embeds", "addition_embed_type")
    if wanted := [name for name in asked if getattr(unet.config, name, None) is not None]:
        raise _unknown(pipe, f"a UNet2DConditionModel that wants more than a prompt ({', '.join(wanted)})")
    if prompt_embeds is None:
        if getattr(pipe, "text_encoder", None) is None or not hasattr(pipe, "encode_prompt"):
            raise ConfigError(
                f"{type(pipe).__name__} has no text encoder; give prompt_embeds, 1 x tokens x "
                f"{unet.config.cross_attention_dim}, as of an empty prompt"
            )
        with torch.no_grad():
            prompt_embeds = pipe.encode_prompt("", unet.device, 1, False)[0]
    embeds = prompt_embeds.to(unet.device, unet.dtype)
    return lambda x, t: unet(x, t, encoder_hidden_states=embeds.expand(len(x), -1, -1)).sample


def _unlabelled(transformer: Any) -> Network:
    # The row behind the classes is what classifier-free guidance trains as no class.
    null = transformer.config.num_embeds_ada_norm

    def ask(x: Tensor, t: Tensor) -> Tensor:
        labels = torch.full((len(x),), null, dtype=torch.int64, device=x.device)
        said: Tensor = transformer(x, timestep=t, class_labels=labels).sample
        return said

    return ask


def _size(sample_size: Any, factor: int) -> Hw | None:
    if sample_size is None:
        return None
    h, w = sample_size if isinstance(sample_size, tuple | list) else (sample_size, sample_size)
    return h * factor, w * factor


def _unknown(pipe: Any, what: str) -> ConfigError:
    return ConfigError(
        f"{type(pipe).__name__} has {what}; read are UNet2DModel in pixels, and UNet2DConditionModel or "
        "DiTTransformer2DModel with an AutoencoderKL"
    )
