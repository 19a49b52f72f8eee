"""From normal images to a fitted model: features once, training, held-out readings; many processes.

Order of imports: launch, tracking, distributed, cache, distill, state, training, run, moving, features,
plan, fit, tile_choice, tiles.
"""
