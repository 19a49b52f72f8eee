"""Scoring archives of images on Ray Data: one machine or a cluster, restartable, nothing lost or doubled.

The paths are cut into blocks. A worker scores a block and writes it as one Parquet file, whole, under a name
that follows from its paths: a block that Ray gives to another worker after a crash overwrites its own file. A
path with a row in some file is finished, so a run continues where the one before it stopped. The row of a
file that could not be read, or was replaced since, is made again.

Order of imports: sources, worker, run.
"""

from invad.archive.run import ArchiveSummary, score_archive

__all__ = ["ArchiveSummary", "score_archive"]
