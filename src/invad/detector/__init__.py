"""The page a newcomer reads first: one image in, one decision out; and the folder a detector is kept in.

Order of imports: folder, kept, kept_tiles, sizing, parts, card, fusing, calibrating, renewing,
views, handing, compiling, detector, measuring, tile_controls, tile_limits, tile_views,
tiled, opening, regional.
"""
