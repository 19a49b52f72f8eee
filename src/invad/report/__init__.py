"""Pictures and the evaluation report: everything a person looks at, nothing that is measured.

Order of imports: colours, maps, tables, wording, rendering, defects, charts, curves, sheet, gallery, panel,
places, order, spread, lot, comparison, page, region.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invad.report.colours import heatmap, overlay
    from invad.report.page import write_report
    from invad.report.panel import save_overlay

# Imported on first use: an overlay must not wait for the libraries of the report, or need them.
_LAZY = {
    "heatmap": "invad.report.colours",
    "overlay": "invad.report.colours",
    "save_overlay": "invad.report.panel",
    "write_report": "invad.report.page",
}

__all__ = ["heatmap", "overlay", "save_overlay", "write_report"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'invad.report' has no attribute {name!r}")
