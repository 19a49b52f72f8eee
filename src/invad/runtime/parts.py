"""One answer for a part from several pictures, above `Predictor.judge`, so that a bundle gives it, too."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from invad.data.images import ImageSource
from invad.data.listing import survey
from invad.data.members import PartFiles, Rule, parts_of_files
from invad.data.pages import Page
from invad.data.preprocess import resize_map
from invad.errors import ConfigError, DataError
from invad.records import PartPrediction, Prediction
from invad.runtime.smallest import map_score_of
from invad.scoring.fusion import Fusion, decide, fuse
from invad.scoring.sizes import Smallest

Pixels = NDArray[Any]

Members: TypeAlias = "Mapping[str, ImageSource | DataError]"
"""The pictures of a part by member; a DataError says why there is none."""

Decoded: TypeAlias = "dict[str, Pixels | DataError]"

JudgedPart: TypeAlias = "tuple[Decoded, PartPrediction]"
"""The pixels that were judged, by member, or why there are none, and what is said of the part."""


def parts_in(x: "str | Path | Iterable[PartFiles | Members]", rule: str) -> "Iterable[PartFiles | Members]":
    """The parts of a folder, or those given. Raises DataError for files in it that are of no part."""
    if not isinstance(x, str | Path):
        return x
    folder = Path(x)
    files = [(image, image.relative_to(folder)) for image in survey(folder).images]
    parts, others = parts_of_files(files, Rule.parse(rule))
    if others:
        raise others[0][1]
    return parts


def decoded(part: "PartFiles | Members", decode: Callable[[ImageSource], Pixels]) -> Decoded:
    """The pixels of each picture, or why there are none."""

    def one(source: ImageSource | DataError) -> Pixels | DataError:
        try:
            return source if isinstance(source, DataError) else decode(source)
        except DataError as error:
            return error

    return {member: one(source) for member, source in _members(part).items()}


def judge_part(
    part: "PartFiles | Members",
    pixels: Decoded,
    fusion: Fusion,
    judge: Callable[[Sequence[Pixels], str | None], list[Prediction]],
    smallest: Smallest | None = None,
) -> PartPrediction:
    """What is said of a part. Whatever is wrong with its pictures is in `reason`, and it is then not good.

    smallest: area of a defect, by which `judge` scores, too.
    """
    sources = _members(part)
    problems = [f"no {member}" for member in fusion.members if member not in pixels]
    judged: dict[str, Prediction] = {}
    for member in sorted(pixels, key=lambda name: (name not in fusion.members, name)):
        found = pixels[member]
        if member not in fusion.members:
            problems.append(f"{member} is unknown, the model has {', '.join(fusion.members)}")
        elif isinstance(found, DataError):
            problems.append(str(found))
        else:
            (one,) = judge([found], member)
            judged[member] = replace(one, path=_named(sources[member]))
    judged = {member: judged[member] for member in fusion.members if member in judged}
    sizes = {one.anomaly_map.shape for one in judged.values()}
    if fusion.kind == "cells" and len(sizes) > 1:
        said = ", ".join(f"{w} x {h}" for h, w in sorted(sizes))
        problems.append(f"its pictures are of several sizes ({said}) and should show one frame")
    reason = "; ".join(problems)
    name = part.part if isinstance(part, PartFiles) else None
    if not judged:
        return PartPrediction(
            part=name, score=None, p_value=None, decision="review", reason=reason or "no pictures",
            members={}, above={}, seen_by=None,
        )  # fmt: skip
    fused = fuse(
        fusion.kind,
        fusion.scales,
        {member: one.score for member, one in judged.items()},
        {member: one.cells for member, one in judged.items() if one.cells is not None},
        fusion.top_cells,
        map_score_of(smallest),
    )
    p_value, decision = decide(fusion, fused.score, reason)
    fused_map = None
    if fused.map_hw is not None and len(sizes) == 1:
        fused_map = resize_map(fused.map_hw.astype("float32"), sizes.pop())
    return PartPrediction(
        part=name,
        score=fused.score,
        p_value=p_value,
        decision=decision,
        reason=reason,
        members=judged,
        above=fused.above,
        seen_by=max(fused.above, key=lambda member: fused.above[member]),
        anomaly_map=fused_map,
    )


def require_fusion(fusion: Fusion | None) -> Fusion:
    """Raises ConfigError for a model of single images."""
    if fusion is None:
        raise ConfigError("this model judges single images; train one with --parts to judge parts")
    return fusion


def rule_of(fusion: Fusion | None, given: str | None) -> str | None:
    """How files become parts: the rule that was given, else that of the model; None for single images.

    Raises ConfigError where a rule is given for a model of single images.
    """
    if given is not None and fusion is None:
        raise ConfigError(f"--parts {given}: this model judges single images; train one with --parts")
    return given if given is not None or fusion is None else fusion.rule


def require_single(fusion: Fusion | None, category: str | None) -> None:
    """Raises ConfigError where a picture of a part comes without its member: its limits hang on that."""
    if fusion is not None and not category:
        raise ConfigError(
            "this model judges parts by their pictures, use predict_parts; for one picture give its member "
            f"as the category: {', '.join(fusion.members)}"
        )


def _members(part: "PartFiles | Members") -> Members:
    return part.members if isinstance(part, PartFiles) else part


def _named(source: object) -> str | None:
    return str(source) if isinstance(source, str | Path | Page) else None
