"""A detector as a bundle that runs without PyTorch, proved to say the same.

Order of imports: probes, formats, int8, triton, bundle.
"""

from invad.export.bundle import FORMATS, PRECISIONS, ExportConfig, export

__all__ = ["FORMATS", "PRECISIONS", "ExportConfig", "export"]
