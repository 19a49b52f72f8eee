"""invad calibrate of an exported bundle, where no PyTorch is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from invad.cli.regions import asked_regions
from invad.cli.voice import Voice
from invad.errors import ConfigError
from invad.scoring.rates import POOLED, Rates

if TYPE_CHECKING:
    from invad.runtime.promise import Promise
    from invad.scoring.calibration import Calibration


def calibrate_bundle(
    voice: Voice,
    bundle: Path,
    output: Path | None,
    *,
    roi: Sequence[str] | None,
    min_area: "float | Literal['none'] | None",
    review_rate: float | None,
    false_alarm_rate: float | None,
) -> None:
    """Make the limits of a bundle anew of what it keeps, and write it, there or to a new folder."""
    from invad.runtime import changing, load

    before = load(bundle)
    changing.require_held(before)
    rates = before.calibrations[POOLED].rates
    rates = Rates(
        review=rates.review if review_rate is None else review_rate,
        bad=rates.bad if false_alarm_rate is None else false_alarm_rate,
    )
    region, regions = asked_regions(roi)
    made = changing.calibrated(before, region=region, regions=regions, min_area=min_area, rates=rates)
    written = bundle if output is None else output
    content_hash = changing.save(made, written)
    fusion, warnings = made.fusion, list(changing.warnings_about(made))
    pooled = made.calibrations[POOLED] if fusion is None else fusion.calibration
    told, keeping = limits_as_json(made, pooled, rates), promise_if_known(made)
    voice.say(
        limits_line(pooled, pooled.unit if fusion is None else fusion.unit, rates),
        *([] if keeping is None else [f"{keeping}."]),
        f"Bundle: {written}",
    )
    voice.warn(*warnings)
    result: dict[str, Any] = {
        "bundle": str(written),
        **told,
        "warnings": warnings,
        "content_hash": content_hash,
    }
    voice.hand_over(result)


def require_no_pictures(bundle: Path, normals: Path | None) -> None:
    """Raises ConfigError: good images are read by the trained model."""
    if normals is not None:
        raise ConfigError(
            f"{bundle}: is an exported bundle, which is calibrated on what it keeps; give {normals} to the "
            "trained model, and export that again"
        )


def limits_line(pooled: "Calibration", unit: str, rates: Rates) -> str:
    """What was calibrated, for people. unit: of what `pooled` counts."""
    review, bad = pooled.score_limits()
    return (
        f"Calibrated on {pooled.n} {unit}: review above score {review:.4g} ({rates.review:.2%} of "
        f"good images), bad above {bad:.4g} ({rates.bad:.2%})."
    )


def limits_as_json(made: Any, pooled: "Calibration", rates: Rates) -> dict[str, Any]:
    """The same for programs, of a detector or a bundle, with what of pictures counts."""
    from invad.system.plain import to_plain

    review, bad = pooled.score_limits()
    keeping = promise_if_known(made)
    return {
        "n": pooled.n,
        "review_rate": rates.review,
        "false_alarm_rate": rates.bad,
        "score_limits": {"review": review, "bad": bad},
        "categories": {name: {"n": c.n} for name, c in made.calibrations.items() if name != POOLED},
        "min_area": None if made.smallest is None else made.smallest.area,
        "region": None if made.region is None else to_plain(made.region),
        "regions": {name: to_plain(one) for name, one in made.regions.items()},
        "limits": None if keeping is None else to_plain(keeping),
    }


def promise_if_known(made: Any) -> "Promise | None":
    """What the limits of a detector or a bundle keep; None where SciPy is not installed, which knows the
    distribution behind it and is no part of the runtime."""
    try:
        from invad.runtime.promise import made_once, promise
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "scipy":
            raise
        return None
    return promise(made.calibrations, made.fusion, once=made_once(made.info))
