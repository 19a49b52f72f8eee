"""The ablations of the paper: one network, read in many ways, or the same reading of several networks.

Order of imports: scorings, studies, tables, run.
"""

from invad.paper.ablation.run import Ablation, ablate

__all__ = ["Ablation", "ablate"]
