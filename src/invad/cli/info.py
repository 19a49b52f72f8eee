"""invad info"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from invad.cli.options import BundleArgument, JsonOption
from invad.cli.voice import Voice
from invad.records import Hw
from invad.scoring.rates import POOLED

if TYPE_CHECKING:
    from invad.detector.opening import Trained
    from invad.runtime.bundle import ExportInfo
    from invad.runtime.fusing import Tiled
    from invad.scoring.calibration import Calibration
    from invad.scoring.fusion import Fusion


def info(model: BundleArgument, json: JsonOption = None) -> None:
    """Say what a model or a bundle is: settings, what it learned from, limits, licence, content hash."""
    voice = Voice(json)
    from invad.runtime.bundle import is_bundle

    if is_bundle(model):
        _say_bundle(voice, model)
        return
    from invad.detector.card import normals_in_words, promised
    from invad.detector.opening import open_model
    from invad.runtime.smallest import counting

    detector = open_model(model, "cpu")
    made, fusion = detector.info, detector.fusion
    pooled = detector.calibrations[POOLED] if fusion is None else fusion.calibration
    review, bad = pooled.score_limits()
    voice.facts(
        {
            "model": model,
            "made": f"{made.created} by invad {made.invad_version}",
            "preset": f"{made.preset}, seed {_seed(detector)}",
            "learned from": normals_in_words(made.fit) or "images not recorded in the imported checkpoint",
            **_of_parts(fusion),
            "calibrated on": f"{pooled.n} {pooled.unit if fusion is None else fusion.unit}",
            "review above": f"score {review:.4g}, for {pooled.rates.review:.2%} of good images",
            "bad above": f"score {bad:.4g}, for {pooled.rates.bad:.2%} of good images",
            "what the limits keep": promised(made, detector.calibrations, fusion),
            "input": "{} x {} pixels, grid {} x {}".format(*made.input_hw, *made.grid_hw),
            **counting(made.region, made.smallest, made.regions),
            **_tiles(made.tiles),
            "backbone": f"{made.settings.backbone} ({made.backbone_source}); {made.backbone_licence}",
            "parameters": f"{_count(detector):,}",
            "content hash": detector.content_hash,
        }
    )
    voice.warn(*detector.warnings())
    voice.hand_over(_described(detector, str(model)))


def _of_parts(fusion: "Fusion | None") -> dict[str, str]:
    if fusion is None:
        return {}
    how = "the largest score" if fusion.kind == "scores" else "the largest value of each cell"
    return {"pictures of a part": f"{', '.join(fusion.members)}, found by {fusion.rule}, fused by {how}"}


def _say_bundle(voice: Voice, folder: Path) -> None:
    from invad.runtime.bundle import read_bundle
    from invad.runtime.smallest import counting

    made, content_hash = read_bundle(folder)
    pooled = _of_pictures(made)[POOLED] if made.parts is None else made.parts.calibration
    review, bad = pooled.score_limits()
    voice.facts(
        {
            "bundle": folder,
            "made": f"{made.created} by invad {made.invad_version}",
            "graph": f"{made.format}, {made.precision}",
            "images": f"{_size(made.size_hw)}, {made.batch or 'any number'} at a time",
            "preset": made.preset,
            **_of_parts(made.parts),
            "calibrated on": f"{pooled.n} {pooled.unit if made.parts is None else made.parts.unit}",
            "review above": f"score {review:.4g}, for {pooled.rates.review:.2%} of good images",
            "bad above": f"score {bad:.4g}, for {pooled.rates.bad:.2%} of good images",
            "input": "{} x {} pixels, grid {} x {}".format(*made.input_hw, *made.grid_hw),
            **counting(made.region, made.smallest, made.regions),
            "another region": "needs the trained model" if made.held is None else "invad calibrate takes one",
            **_tiles(made.tiles),
            "backbone": f"{made.backbone}; {made.backbone_licence}",
            "parameters": f"{made.parameters:,}",
            "model's hash": made.model_hash or "never saved",
            "content hash": content_hash,
        }
    )
    voice.warn(*pooled.warnings())
    voice.hand_over({"bundle": str(folder), **_plain(made), "content_hash": content_hash})


def _plain(made: "ExportInfo") -> dict[str, Any]:
    from dataclasses import asdict

    plain = asdict(made)
    del plain["calibrations"], plain["exported"], plain["limits"], plain["held"]
    plain |= {"takes_region": made.held is not None, "limits_changed": made.limits is not None}
    plain["tiles"] = _plain_tiles(made.tiles)
    limits = {name: _limits(calibration) for name, calibration in _of_pictures(made).items()}
    return {**plain, "calibration": limits.pop(POOLED), "categories": limits}


def _of_pictures(made: "ExportInfo") -> "dict[str, Calibration]":
    return made.calibrations if made.tiles is None else made.tiles.calibrations


def _tiles(tiles: "Tiled | None") -> dict[str, str]:
    if tiles is None:
        return {}
    from invad.runtime.fusing import counting_in

    tiling = tiles.tiling
    where = (
        ""
        if tiling.picture_hw is None
        else " of pictures of {} x {} (height x width)".format(*tiling.picture_hw)
    )
    return {
        "tiles": f"{tiling.tile_px} pixels, cells of {tiling.tile_px / max(tiles.grid_hw):.0f}, "
        f"overlapping by {tiling.overlap:.0%}, positions {tiling.positions}{where}",
        **counting_in(tiles),
    }


def _plain_tiles(tiles: "Tiled | None") -> dict[str, Any] | None:
    from invad.system.plain import to_plain

    return None if tiles is None else {**to_plain(tiles.tiling), "min_area": tiles.min_area}


def _size(size_hw: Hw | None) -> str:
    return "of any size" if size_hw is None else "{} x {} pixels (height x width)".format(*size_hw)


def _described(detector: "Trained", model: str) -> dict[str, Any]:
    from invad.detector.card import promised
    from invad.system.plain import to_plain

    told, fusion = to_plain(detector.info), detector.fusion
    del told["fit"]["trained"]  # digests, which tell people nothing
    told["tiles"] = _plain_tiles(detector.info.tiles)
    own = sorted(name for name in detector.calibrations if name != POOLED)
    return {
        "model": model,
        **told,
        "seed": _seed(detector),
        "parameters": _count(detector),
        "calibration": _limits(detector.calibrations[POOLED]),
        "parts": None if fusion is None else {**_limits(fusion.calibration), **fusion.summary},
        "categories": {name: _limits(detector.calibrations[name]) for name in own},
        "limits": to_plain(promised(detector.info, detector.calibrations, fusion)),
        "warnings": list(detector.warnings()),
        "content_hash": detector.content_hash,
    }


def _limits(calibration: "Calibration") -> dict[str, Any]:
    review, bad = calibration.score_limits()
    return {
        "n": calibration.n,
        "review_rate": calibration.rates.review,
        "false_alarm_rate": calibration.rates.bad,
        "score_limits": {"review": review, "bad": bad},
    }


def _seed(detector: "Trained") -> int:
    return detector.info.settings.train.seed


def _count(detector: "Trained") -> int:
    model = detector.model
    networks = (
        [model.extract.backbone] if model.denoiser is None else [model.extract.backbone, model.denoiser]
    )
    return sum(p.numel() for network in networks for p in network.parameters())
