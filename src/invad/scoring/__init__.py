"""From norms to map, score, p-value and decision; limits from held-out normals.

Order of imports: likeness, calibration, typicality, regions, crossfit.
"""
