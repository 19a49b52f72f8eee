"""invad train"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invad.cli.folder import METRICS, has_checkpoint, training_folder
from invad.cli.options import (
    DEFAULT_RATES,
    FEATURES,
    IMAGES,
    SPEED,
    TRACKERS,
    BackboneOption,
    CategoriesOption,
    DeviceOption,
    FalseAlarmRateOption,
    FusionOption,
    GroupByOption,
    JsonOption,
    LayoutOption,
    PartsOption,
    PrecisionOption,
    PresetOption,
    ReviewRateOption,
    SeedOption,
    SizesOption,
    SplitOption,
    StepsOption,
    StrictOption,
    WeightsOption,
    one_of,
    split_names,
)
from invad.cli.progress import ending_when_interrupted, observing
from invad.cli.regions import HELP, given_regions
from invad.cli.tiling import (
    PositionsOption,
    SmallestDefectOption,
    TileOption,
    TileScaleOption,
    asked,
    chosen,
)
from invad.cli.voice import Voice
from invad.errors import ConfigError, DataError
from invad.fit.launch import launched
from invad.fit.tracking import check_trackers, tracking
from invad.observer import NO_RECORD, Observer, Recorder
from invad.scoring.rates import Rates

if TYPE_CHECKING:
    from invad.data.layouts.base import Dataset
    from invad.detector.opening import Trained
    from invad.fit.distributed import Workers
    from invad.records import Sample

RECORDS = "Records and repetition"


def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder of good images, or of categories as in MVTec AD (train/good); of a folder with "
            "defects only the good training images are used.",
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="New or empty folder for the model, made if it is missing.")
    ],
    preset: PresetOption = "standard",
    steps: StepsOption = None,
    seed: SeedOption = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue what an interrupted run with the same options left in DIR."),
    ] = False,
    categories: CategoriesOption = None,
    review_rate: ReviewRateOption = DEFAULT_RATES.review,
    false_alarm_rate: FalseAlarmRateOption = DEFAULT_RATES.bad,
    device: DeviceOption = None,
    json: JsonOption = None,
    layout: LayoutOption = "auto",
    split: SplitOption = None,
    group_by: GroupByOption = None,
    roi: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|CATEGORY=FILE", rich_help_panel=IMAGES, help=HELP),
    ] = None,
    parts: PartsOption = None,
    fusion: FusionOption = "scores",
    strict: StrictOption = False,
    sizes: SizesOption = False,
    moved: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            rich_help_panel=IMAGES,
            help="For parts that lie loosely: learn also from a copy of each image, moved by up to this "
            "share of its sides and turned by as much, such as 0.02.",
        ),
    ] = None,
    smallest_defect: SmallestDefectOption = None,
    tile: TileOption = None,
    positions: PositionsOption = "shared",
    scale: TileScaleOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=FEATURES,
            help="Keep the features here, for other trainings on the same images.",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=SPEED,
            help="Images a training step, of all processes together. Default: the preset's.",
        ),
    ] = None,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=SPEED,
            help="Compute a step in N parts: less memory, the same result.",
        ),
    ] = 1,
    precision: PrecisionOption = None,
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing",
            rich_help_panel=SPEED,
            help="Recompute activations of transformers: less memory, a third more time.",
        ),
    ] = False,
    track: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            rich_help_panel=RECORDS,
            autocompletion=one_of(*TRACKERS),
            help="Also record to tensorboard, mlflow or wandb, separated by commas.",
        ),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            rich_help_panel=RECORDS,
            help="One thread and exact kernels: the same seed gives the same bits. Slower.",
        ),
    ] = False,
) -> None:
    """Learn what good images look like and write a calibrated model.

    Some of the good images are held out to set the limits. Ctrl-C saves; --resume continues to the same
    result. Started by torchrun or accelerate launch, the processes share the work.
    """
    rates = Rates(review=review_rate, bad=false_alarm_rate)
    wanted = asked(smallest_defect, tile, positions, scale)
    if parts is not None and sizes:
        raise ConfigError("--sizes goes with single pictures, and --parts makes parts of several")
    voice = Voice(json)
    trackers = split_names(track) or ()
    check_trackers(trackers)
    options = {
        **{"data": str(data), "preset": preset, "backbone": backbone, "steps": steps, "batch": batch},
        **{"seed": seed, "accumulate": accumulate, "precision": precision, "checkpointing": checkpointing},
        "moved": moved,
        "roi": ", ".join(roi) if roi else None,
    }
    if deterministic:
        _make_deterministic()

    def interrupted() -> str:
        if has_checkpoint(output):
            return "interrupted; repeat the command with --resume to continue"
        return "interrupted before the first training step; nothing is left behind"

    with (
        ending_when_interrupted(interrupted),
        _team(device) as team,
        training_folder(output, resume, team) as work,
        observing(voice.err, team) as observer,
        _recording(team, work / METRICS, trackers, output.name, options) as recorder,
    ):
        from invad.data.check import also_tested
        from invad.data.datasets import not_taken, read_dataset, selected
        from invad.data.groups import grouped
        from invad.data.members import Rule, split_by_part, with_windows
        from invad.detector.card import promised
        from invad.detector.detector import Detector
        from invad.detector.folder import require_place
        from invad.detector.tiled import TiledDetector
        from invad.fit.distributed import Solo
        from invad.fit.run import Run
        from invad.fit.training import Execution
        from invad.model.settings import preset_named

        require_place(output)
        whole = read_dataset(data, layout=layout, split=split)
        dataset = selected(whole, split_names(categories))
        if parts is not None:
            dataset = split_by_part(dataset, Rule.parse(parts))
        samples = dataset.train if group_by is None else grouped(dataset.train, group_by, data)
        for line in (*not_taken(whole), *_untrained(dataset)):
            observer.note(line)
        settings, tiling = preset_named(preset).override(moved=moved), None
        region, regions = given_regions(roi)
        net = settings.load_backbone(backbone, weights) if weights or wanted else backbone
        if wanted is not None and not isinstance(net, str | None):
            tiling = chosen(wanted, samples, region, settings, net, observer)
        fit = (
            partial(Detector.fit, region=region, regions=regions, parts=parts, fusion=fusion, moved=moved)
            if tiling is None
            else partial(TiledDetector.fit, tiling=tiling, regions=regions, parts=parts, fusion=fusion)
        )
        detector = fit(
            samples,
            preset=preset,
            backbone=net,
            steps=steps,
            batch=batch,
            seed=seed,
            rates=rates,
            strict=strict,
            device=device,
            run=Run(
                work=work,
                cache=cache,
                workers=team or Solo(),
                execution=Execution(accumulate=accumulate, precision=precision, checkpointing=checkpointing),
                observer=observer,
                recorder=recorder,
            ),
        )
        leads = team is None or team.rank == 0
        if leads:
            if detector.fusion is not None:
                dataset = replace(dataset, test=with_windows(dataset.test, detector.fusion.by_member))
            for line in also_tested(dataset, detector.info.fit.trained, observer):
                observer.note(line)
            if sizes:
                _learn_sizes(detector, samples, seed, observer)
            detector.save(output)
    if leads:
        result = summary(detector, output)
        voice.say(
            *_closing_lines(result, str(promised(detector.info, detector.calibrations, detector.fusion)))
        )
        voice.hand_over(result)


@contextmanager
def _team(device: str | None) -> "Iterator[Workers | None]":
    """The processes of a launcher; None for this one alone, which then needs no torch yet."""
    if launched() == 1:
        yield None
        return
    from invad.fit.distributed import workers

    with workers(device) as team:
        yield team


@contextmanager
def _recording(
    team: "Workers | None", path: Path, trackers: tuple[str, ...], run: str, options: dict[str, Any]
) -> Iterator[Recorder]:
    """One process records for all."""
    if team is not None and team.rank != 0:
        yield NO_RECORD
        return
    processes = 1 if team is None else team.size
    with tracking(path, trackers, run, {**options, "processes": processes}) as recorder:
        yield recorder


def _untrained(dataset: "Dataset") -> list[str]:
    """What is wrong with the part that is not read here, so that nobody is surprised later."""
    if not dataset.problems:
        return []
    number, first = len(dataset.problems), dataset.problems[0].line
    return [f"the test part, which training does not read, has {number} problems, the first: {first}"]


def _closing_lines(result: dict[str, Any], kept: str) -> list[str]:
    normals, held = sum(result["normals"].values()), sum(result["held_out"].values())
    those = "all of them, held out in turn," if held == normals else f"{held} of them, held out,"
    output, skipped, copied = result["output"], len(result["skipped"]), len(result["copies"])
    groups = sum(result["groups"].values())
    apart = f" ({groups} independent groups)" if groups < normals else ""
    if result["parts"]:
        apart = f" of {groups} parts ({', '.join(result['parts']['members'])})"
    copies = f" and a copy of each, moved by up to {result['moved']:.1%}," if result["moved"] else ""
    return [
        f"Learned from {normals} good images{apart}{copies} in {result['train_seconds']:.0f} s; "
        f"{those} set the limits.",
        f"{kept}.",
        *([f"Skipped as unreadable: {skipped}, named above."] if skipped else []),
        *([f"Copies, which count once: {copied}, named above."] if copied else []),
        f"Model: {output}",
        f"Next: invad predict {output} IMAGES, or invad evaluate {output} FOLDER_WITH_DEFECTS",
    ]


def summary(detector: "Trained", output: Path) -> dict[str, Any]:
    """What `--json` says of a training."""
    from invad.detector.card import promised
    from invad.system.plain import to_plain

    info, fusion = detector.info, detector.fusion
    parts = None
    if fusion is not None:
        parts = fusion.summary
    return {
        "output": str(output),
        "preset": info.preset,
        "backbone": info.settings.backbone,
        "seed": info.settings.train.seed,
        "steps": info.fit.steps,
        "moved": info.settings.moved,
        "normals": info.fit.normals,
        "groups": info.fit.groups,
        "held_out": info.fit.held_out,
        "folds": info.fit.folds,
        "skipped": list(info.fit.skipped),
        "copies": list(info.fit.copies),
        "train_seconds": info.fit.seconds,
        "final_loss": info.fit.final_loss,
        "device": info.fit.device,
        "threads": info.fit.threads,
        "processes": info.fit.processes,
        "precision": info.fit.precision,
        "sizes": None if info.sizes is None else to_plain(info.sizes),
        "limits": to_plain(promised(info, detector.calibrations, fusion)),
        "parts": parts,
        "warnings": list(detector.warnings()),
        "content_hash": detector.content_hash,
    }


def _learn_sizes(detector: "Trained", samples: "Sequence[Sample]", seed: int, observer: Observer) -> None:
    """A model that sees too few of the drawings is still a model."""
    from invad.detector.measuring import learn_sizes

    try:
        learned = learn_sizes(detector, samples, seed=seed, observer=observer)
    except DataError as error:
        observer.note(f"warning: sizes of defects stay those of their places: {error}")
        return
    observer.note(f"sizes: learned from {learned.drawings} drawn defects")


def _make_deterministic() -> None:
    import os

    # Read by CUDA's libraries when they start, so it has to be set before.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
