"""The ablations of the paper: one network, read in many ways, or the same reading of several networks."""

from invad.ablation.run import Ablation, ablate

__all__ = ["Ablation", "ablate"]
