"""Exported detectors without PyTorch: numpy, Pillow, tifffile and one inference engine.

from invad import runtime
detector = runtime.load("bundle")
print(detector.predict("part.png").decision)

Order of imports: cache, processor, promise, smallest, fusing, bundle, index, held, limits, kept_tiles,
held_tiles, part_limits, tile_limits, tile_views, tile_anew, engines, parts, predictor, onnxruntime_engine,
openvino_engine, torch_engine, judging, detector, tiled, tile_controls, certificate, loading, tile_changing,
changing.
"""

from invad.runtime.bundle import ExportInfo, is_bundle
from invad.runtime.detector import ExportedDetector
from invad.runtime.engines import ENGINES
from invad.runtime.loading import load

__all__ = ["ENGINES", "ExportInfo", "ExportedDetector", "is_bundle", "load"]
