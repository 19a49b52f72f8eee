"""From norms to map, score, p-value and decision; limits from held-out normals.

Order of imports: spread, rates, likeness, groups, holding, offsets, calibration, fusion, norms, typicality,
shapes, sizes, regions, scale, lengths, defects, crossfit, drift, labels, events.
"""
