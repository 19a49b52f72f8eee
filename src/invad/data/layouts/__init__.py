"""What data sets look like on disk, one family a file. Files are listed, never moved or rewritten.

Order of imports: base, folder, mvtec, bmad, kolektor, manifest, meta, real_iad, visa.
"""
