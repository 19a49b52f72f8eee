"""The row of a part that was judged: what is decided, and everything that is kept of how."""

import math
import random

import numpy as np
from numpy.typing import NDArray

from invad.errors import InvadError
from invad.scoring.regions import regions
from invad.serve.limits import Limits
from invad.serve.parts import Job, map_limits_of, members_of, since
from invad.serve.records import SCHEMA, Milliseconds, Picture, Result, utc
from invad.serve.store import results

MOST_REGIONS = 100
"""Of one part in the database; a map of noise has thousands."""


def peak_of(map_HW: NDArray[np.float32]) -> float:
    """The largest value of a map. Raises InvadError where that is no number."""
    peak = float(map_HW.max())
    if not math.isfinite(peak):
        raise InvadError("the engine gave a map that is not of numbers; test the model with 'invad verify'")
    return peak


def row_of(
    job: Job, limits: Limits, peak: float, map_sha256: str | None, audit_share: float
) -> results.Stored:
    """The row of a judged part, without its id. peak: of its map. map_sha256: of the file of its map, where
    that is kept. audit_share: of good parts that people look at."""
    part, prediction = job.part, job.prediction
    assert prediction is not None
    assert job.pixels is not None
    wrong = "" if job.of_part is None else job.of_part.reason
    p_value, decision = limits.judge(prediction.score, wrong)
    map_limits = map_limits_of(job) or limits.map
    detector, size_hw = job.model.detector, prediction.anomaly_map.shape[:2]
    found = (
        regions(
            prediction.anomaly_map,
            map_limits[0],
            detector.grid_for(size_hw),
            MOST_REGIONS,
            detector.least_pixels(size_hw),
        )
        if peak > map_limits[0]
        else ()
    )
    record = Result(
        schema=SCHEMA,
        id="",
        station=part.station,
        time=utc(job.came),
        part_id=part.part_id,
        lot=part.lot,
        category=job.key or None,
        source=part.source,
        request_id=part.request_id,
        image_sha256=job.digest,
        width=job.pixels.shape[1],
        height=job.pixels.shape[0],
        model=job.model.name,
        model_version=job.model.hash,
        calibration=limits.revision,
        score=prediction.score,
        peak=peak,
        p_value=p_value,
        decision=decision,
        review_limit=limits.score[0],
        bad_limit=limits.score[1],
        regions=found,
        image_kept=job.image_kept,
        map_kept=map_sha256 is not None,
        audit=decision == "good" and random.random() < audit_share,
        late=False,
        verdict=None,
        picture=Picture(grey=job.picture[0], clipped=job.picture[1], sharpness=job.picture[2]),
        ms=Milliseconds(
            queue=round(job.queue_ms, 3),
            decode=round(job.decode_ms, 3),
            infer=round(job.infer_ms, 3),
            store=round(since(job.judged), 3),
        ),
        members=members_of(job),
        seen_by=None if job.of_part is None else job.of_part.seen_by,
        reason=None if job.of_part is None else job.of_part.reason or None,
    )
    return results.Stored(result=record, map_sha256=map_sha256, map_limits=map_limits)
