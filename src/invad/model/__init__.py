"""Settings, the feature space, and how a model reads an image: from pixels to norms of predicted noise.

Order of imports: space, settings, inspected, reading.
"""
