"""A result as a row of a table: the columns of CSV and Parquet files, which stay as they are."""

import json
from dataclasses import asdict
from typing import Any, Literal

from invad.serve.records import Result

Kind = Literal["text", "time", "number", "count", "flag", "regions"]

COLUMNS: dict[str, Kind] = {
    "id": "text",
    "time": "time",
    "station": "text",
    "part_id": "text",
    "lot": "text",
    "category": "text",
    "source": "text",
    "request_id": "text",
    "decision": "text",
    "score": "number",
    "p_value": "number",
    "review_limit": "number",
    "bad_limit": "number",
    "peak": "number",
    "region_count": "count",
    "regions": "regions",
    "width": "count",
    "height": "count",
    "image_sha256": "text",
    "model": "text",
    "model_version": "text",
    "calibration": "count",
    "audit": "flag",
    "late": "flag",
    "grey": "number",
    "clipped": "number",
    "sharpness": "number",
    "ms_queue": "number",
    "ms_decode": "number",
    "ms_infer": "number",
    "ms_store": "number",
    "members": "text",
    "seen_by": "text",
    "reason": "text",
}
"""New ones are added at the end; a file keeps those that it began with."""

REGION = (
    *("x", "y", "width", "height", "area", "peak", "mean", "centroid_x", "centroid_y"),
    *("length_px", "width_px", "cell_px", "share_of_limit"),
)
"""As `Region` has them; new ones are added at the end."""


def values(one: Result) -> dict[str, Any]:
    """By column. time: ISO, UTC. regions: dicts with the keys `REGION`."""
    found = {name: getattr(one, name) for name in COLUMNS if hasattr(one, name)}
    return {
        **found,
        **asdict(one.picture),
        **{f"ms_{name}": took for name, took in asdict(one.ms).items()},
        "members": json.dumps([asdict(member) for member in one.members]) if one.members else None,
        "region_count": len(one.regions),
        "regions": [asdict(region) for region in one.regions],
    }


def texts(one: Result) -> list[str]:
    """In the order of the columns: "" for None, true and false, regions as JSON."""
    return [_text(value) for value in map(values(one).__getitem__, COLUMNS)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | list):
        return json.dumps(value, separators=(",", ":"))
    return str(value)
