"""The fitted model as one graph of tensors, from pixels to decision, for `Detector.compile` and exports.

Order of imports: resample, fold, inspected, graph, looking, pixels.
"""
