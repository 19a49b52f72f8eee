"""The kinds of denoisers, their configuration, and the table of ready sizes."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from invad.diffusion.base import Denoiser
from invad.diffusion.dit import DiT
from invad.diffusion.gaussian import GaussianPreconditioned
from invad.diffusion.mlp import TokenMLP
from invad.errors import ConfigError
from invad.records import Hw


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserConfig:
    """Architecture as plain data. Raises ConfigError when made with values no network can have.

    kind: a name of DENOISERS. width: values per token, a multiple of 4. depth: residual blocks.
    heads: attention heads, a divisor of width (dit). mlp_ratio: hidden values per width in a block.
    positional: whether a cell knows its place on the grid. patch: side of a token in cells (dit). gaussian:
    whether the network learns only what the Gaussian predictor of the features leaves over (see gaussian.py).
    """

    kind: str
    width: int
    depth: int
    heads: int = 8
    mlp_ratio: float = 4.0
    positional: bool = True
    patch: int = 1
    gaussian: bool = False

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raises ConfigError naming the key, its value and what to write instead."""
        if not isinstance(self.kind, str) or self.kind not in DENOISERS:
            raise ConfigError(f"denoiser.kind = {self.kind!r} is unknown; choose one of {sorted(DENOISERS)}")
        for key in ("width", "depth", "heads", "patch"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"denoiser.{key} = {value!r}: give an integer of at least 1")
        if self.width % 4:
            raise ConfigError(f"denoiser.width = {self.width}: give a multiple of 4 (positions need it)")
        if isinstance(self.mlp_ratio, bool) or not isinstance(self.mlp_ratio, int | float):
            raise ConfigError(f"denoiser.mlp_ratio = {self.mlp_ratio!r}: give a number such as 4.0")
        if not 1.0 <= self.mlp_ratio * self.width < float("inf"):
            raise ConfigError(f"denoiser.mlp_ratio = {self.mlp_ratio!r}: give a positive number such as 4.0")
        for key in ("positional", "gaussian"):
            if not isinstance(getattr(self, key), bool):
                raise ConfigError(f"denoiser.{key} = {getattr(self, key)!r}: give true or false")
        if problem := DENOISERS[self.kind].problem(self):
            raise ConfigError(f"denoiser.{problem}")


def build_denoiser(config: DenoiserConfig, channels: int, grid_hw: Hw) -> Denoiser:
    """An untrained network for B x channels x h x w features, predicting zero noise.

    Weights are drawn from torch's global generator. Raises ConfigError when the grid does not divide into
    patches.
    """
    if channels < 1 or min(grid_hw) < 1:
        raise ConfigError(f"channels = {channels}, grid = {grid_hw}: both must be positive")
    if any(side % config.patch for side in grid_hw):
        raise ConfigError(
            f"denoiser.patch = {config.patch}: give a divisor of the {grid_hw[0]} x {grid_hw[1]} grid's sides"
        )
    network = DENOISERS[config.kind].build(config, channels)
    return GaussianPreconditioned(network, channels) if config.gaussian else network


def sized(name: str) -> DenoiserConfig:
    """The configuration called `name` in SIZES. Raises ConfigError listing the names otherwise."""
    if name not in SIZES:
        raise ConfigError(f"denoiser = {name!r} is unknown; choose one of {list(SIZES)}")
    return SIZES[name]


def _mlp(config: DenoiserConfig, channels: int) -> TokenMLP:
    options = asdict(config)
    for foreign in ("kind", "heads", "patch", "gaussian"):
        del options[foreign]
    return TokenMLP(channels, **options)


def _mlp_problem(config: DenoiserConfig) -> str | None:
    if config.patch != 1:
        return f"patch = {config.patch}: the mlp works cell by cell; give 1"
    return None


def _dit(config: DenoiserConfig, channels: int) -> DiT:
    options = asdict(config)
    del options["kind"], options["gaussian"]
    return DiT(channels, **options)


def _dit_problem(config: DenoiserConfig) -> str | None:
    if config.width % config.heads:
        return f"heads = {config.heads}: give a divisor of denoiser.width = {config.width}"
    return None


@dataclass(frozen=True, slots=True)
class DenoiserKind:
    """An entry of DENOISERS. How its networks are trained and loaded they say themselves: see Denoiser.

    build: an untrained network for this many channels, which predicts zero noise. problem: what is wrong with
    a configuration of this kind, as 'key = value: what to write instead'; None when nothing is.
    """

    build: Callable[[DenoiserConfig, int], Denoiser]
    problem: Callable[[DenoiserConfig], str | None] = lambda config: None


DENOISERS: dict[str, DenoiserKind] = {
    "mlp": DenoiserKind(_mlp, _mlp_problem),
    "dit": DenoiserKind(_dit, _dit_problem),
}

# Parameters are counted for 192 channels, those of dit-paper for its 272.
SIZES: dict[str, DenoiserConfig] = {
    "mlp-s": DenoiserConfig(kind="mlp", width=384, depth=4, mlp_ratio=1.0, gaussian=True),  # 1.9 M
    "dit-s": DenoiserConfig(kind="dit", width=256, depth=4, gaussian=True),  # 5.1 M
    "dit-b": DenoiserConfig(kind="dit", width=512, depth=8, gaussian=True),  # 38.9 M
    "dit-l": DenoiserConfig(kind="dit", width=1024, depth=12, heads=16, gaussian=True),  # 230.5 M
    "dit-paper": DenoiserConfig(kind="dit", width=2048, depth=16),  # 1,222.7 M
}
