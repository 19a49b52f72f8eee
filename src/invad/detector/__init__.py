"""The page a newcomer reads first: one image in, one decision out; and the folder a detector is kept in.

Order of imports: folder, kept, sizing, parts, card, fusing, calibrating, renewing,
views, handing, compiling, detector, measuring, tiled, opening, regional.
"""
