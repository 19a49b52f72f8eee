"""Spark: scores of images in a DataFrame, a detector for each Python process of the executors."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from invad.errors import ConfigError, DataError
from invad.runtime.bundle import read_bundle
from invad.runtime.predictor import Predictor
from invad.system.packages import importing, using

HOST = ("pyspark", "pandas", "pyarrow")
SCHEMA = "score double, p_value double, decision string, error string"


def score_udf(
    bundle: str | Path, *, category: str | None = None, engine: str = "auto", threads: int = 1
) -> Callable[..., Any]:
    """A pandas UDF from a column of paths or of encoded bytes to a struct of `SCHEMA`.

    `frame.select("path", score_udf("/share/bundle")("path").alias("invad"))`. bundle: an exported bundle, at
    a path that driver and executors share. threads: of each process; Spark starts one for each core. What
    cannot be read has an error and no decision, and the job goes on. Raises ArtifactError for a folder that
    is no whole bundle, ConfigError for a category that the bundle has no limits of, and where a package of
    `HOST` is missing, too old or changed.
    """
    with importing(HOST, "spark", __name__):
        import pandas as pd
        import pyarrow  # noqa: F401
        from pyspark.sql.functions import pandas_udf
    place = str(Path(bundle).absolute())
    info, _ = read_bundle(Path(place))
    if category is not None and category not in info.calibrations:
        known = ", ".join(name for name in info.calibrations if name) or "none"
        raise ConfigError(f"{place}: has no limits for category {category!r}; its categories are: {known}")

    def score(batches: Iterator[Any]) -> Iterator[Any]:
        import pandas as pd

        detector = detector_of(place, engine, threads)
        for images in batches:
            given = [one if isinstance(one, str) else bytes(one or b"") for one in images]
            rows = [
                (None, None, None, str(one))
                if isinstance(one, DataError)
                else (one.score, one.p_value, one.decision, None)
                for one in detector.predict_many(given, category=category)
            ]
            yield pd.DataFrame(rows, columns=["score", "p_value", "decision", "error"])

    # Annotations that Spark would read; it cannot read them where they are text.
    score.__annotations__ = {"batches": Iterator[pd.Series], "return": Iterator[pd.DataFrame]}
    with using(HOST, __name__):
        made: Callable[..., Any] = pandas_udf(score, returnType=SCHEMA)
    return made


@cache
def detector_of(bundle: str, engine: str, threads: int) -> Predictor:
    """The detector of a process: Spark calls the function anew for each partition."""
    from invad.runtime import load

    return load(bundle, engine, threads=threads)
