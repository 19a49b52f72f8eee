"""Frozen feature extractors: one file per family, registered in `registry.py`."""
