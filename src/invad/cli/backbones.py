"""invad backbones list, invad backbones distill"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invad.cli.options import JsonOption, SeedOption
from invad.cli.progress import observing
from invad.cli.voice import Voice
from invad.errors import ConfigError, DataError

if TYPE_CHECKING:
    from invad.backbones.base import Backbone


def list_backbones(
    match: Annotated[
        str | None, typer.Option(metavar="TEXT", help="List the timm networks whose name contains this.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """List feature networks for 'train --backbone': the one that ships, well-tried ones, or all of timm."""
    voice = Voice(json)
    from invad.backbones.registry import SUGGESTED

    rows = [{"name": name, "description": said} for name, said in SUGGESTED.items()]
    if match is not None:
        import timm

        rows = [row for row in rows if match in row["name"]]
        known = {row["name"] for row in rows}
        networks = timm.list_models(f"*{match}*")
        rows += [{"name": name, "description": "timm"} for name in networks if name not in known]
    if rows:
        voice.table([(row["name"], row["description"]) for row in rows])
    else:
        voice.say(f"No backbone has {match!r} in its name.")
    if match is None:
        voice.say("", "Any other timm network works too: invad backbones list --match convnext")
        voice.say("Weights come from the hub or its local cache, or from a file with --weights.")
    voice.hand_over({"backbones": rows})


def distill(
    teacher: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="A timm network with strides 4, 8, 16; repeat for more."),
    ],
    images: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Photographs of anything, the more varied the better.")
    ],
    output: Annotated[
        Path,
        typer.Option(metavar="STEM", help="Writes STEM.safetensors and STEM.json, which must be new."),
    ],
    weights: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Weights of the teacher; one file per teacher, in order."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .safetensors that distill wrote, to go on from."),
    ] = None,
    pools: Annotated[int, typer.Option(min=1, help="How long to train, in pools of crops.")] = 10,
    pool_size: Annotated[int, typer.Option(min=32, help="Crops in a pool.")] = 4096,
    seed: SeedOption = 0,
    json: JsonOption = None,
) -> None:
    """Train a small backbone like invad-s to give the features of a large one.

    Use the result with 'invad train --weights STEM.safetensors'. A pool takes minutes on a CPU.
    """
    voice = Voice(json)
    files = [output.with_name(f"{output.name}{suffix}") for suffix in (".safetensors", ".json")]
    _require_free(files)
    if weights and len(weights) != len(teacher):
        raise ConfigError(f"{len(weights)} --weights for {len(teacher)} --teacher; give one for each or none")
    with observing(voice.err) as observer:
        from invad.backbones.student import load_student, save_student
        from invad.data.listing import survey
        from invad.fit.distill import DistillConfig, load_pictures
        from invad.fit.distill import distill as teach

        config = DistillConfig(pools=pools, pool=pool_size, seed=seed)
        begun, before = load_student(start.with_suffix("")) if start else (None, None)
        for line in survey(images).in_words():
            observer.note(line)
        pictures = load_pictures(images)
        teachers = _teachers(teacher, weights)
        observer.stage("distillation", config.steps)
        student, record = teach(
            teachers, pictures, config, lambda step, loss: observer.advance(f"loss {loss:.3f}"), begun
        )
        if before is not None:
            record["start"] = before
        save_student(output, student, record)
    voice.say(
        f"Learned from {len(pictures)} pictures in {record['seconds']} s; share of the teachers' variance "
        f"explained at strides 4, 8, 16: {record['explained_variance']}",
        f"Backbone: {files[0]}",
    )
    voice.hand_over({"output": str(files[0]), **record})


def _require_free(files: Sequence[Path]) -> None:
    for file in files:
        if file.exists():
            raise DataError(f"{file}: exists already; give --output another name")
    folder = files[0].absolute().parent
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; give --output a name in a folder")


def _teachers(names: Sequence[str], weights: Sequence[Path] | None) -> "list[Backbone]":
    from invad.backbones.registry import load_backbone

    files: Sequence[Path | None] = weights or [None] * len(names)
    return [load_backbone(name, weights=file) for name, file in zip(names, files, strict=True)]
