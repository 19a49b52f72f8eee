"""Pictures the package draws itself: inspection scenes with exact defect masks, and random mixtures.

Order of imports: fields, lights, scenes, shapes, textures, chip, flaws, parts, mixtures, categories, drawing,
folders.
"""

from invad.data.synthetic.categories import CATEGORIES, Category, Flaw, defects_of
from invad.data.synthetic.drawing import draw
from invad.data.synthetic.folders import write_dataset
from invad.data.synthetic.lights import draw_lights, write_lights
from invad.data.synthetic.mixtures import random_picture

__all__ = [
    "CATEGORIES",
    "Category",
    "Flaw",
    "defects_of",
    "draw",
    "draw_lights",
    "random_picture",
    "write_dataset",
    "write_lights",
]
