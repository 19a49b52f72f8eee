"""Pictures and the evaluation report: everything a person looks at, nothing that is measured."""

from invad.report.colours import heatmap, overlay
from invad.report.page import write_report
from invad.report.panel import save_overlay

__all__ = ["heatmap", "overlay", "save_overlay", "write_report"]
