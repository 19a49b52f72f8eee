"""The command line. Each verb is one function; heavy imports are inside it, so that help is quick.

Order of imports: voice, rows, progress, folder, options, regions, bundled, former, archive, server,
backbones, calibrate, data, compare, doctor, drift, defects, evaluate, export, info, recipes, reference,
roi, tiling, train, lot, videos, pictures, parts, predict, stateless, serve, kept, outputs, users, versions,
labels, models, demo, bench, ablate, benchmark, app.
"""

from invad.cli.app import main

__all__ = ["main"]
