"""Frozen feature extractors: one file per family, registered in `registry.py`.

Order of imports: base, beside, student, checkpoint, hub, invad_s, lite, timm_backbone, registry.
"""
