"""Further versions of a bundle, made without another export."""

import io
import json
import shutil

from invad.runtime.bundle import BUNDLE, content_hash, sha256
from invad.serve.archives import pack


def altered(bundle, folder, change=lambda plain: None):
    """Another version: a copy of a bundle that says something else of itself, with hashes that are right."""
    shutil.copytree(bundle, folder)
    plain = json.loads((folder / BUNDLE).read_text())
    plain["created"] = f"2026-01-01T00:00:00 {folder.name}"
    change(plain)
    for name in plain["files"]:
        plain["files"][name] = sha256(folder / name)
    rest = {key: value for key, value in plain.items() if key not in ("files", "content_hash")}
    plain["content_hash"] = content_hash(rest, plain["files"])
    (folder / BUNDLE).write_text(json.dumps(plain))
    return folder


def zipped(folder):
    stream = io.BytesIO()
    pack(folder, stream)
    return stream.getvalue()
