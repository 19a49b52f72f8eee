"""invad bench"""

from typing import TYPE_CHECKING, Annotated

import typer

from invad.cli.options import BundleArgument, DeviceOption, JsonOption, ThreadsOption, one_of
from invad.cli.voice import Voice

if TYPE_CHECKING:
    from invad.evaluation.speed import Row


def bench(
    model: BundleArgument,
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=one_of("every", "torch", "torch-folded", "onnxruntime", "openvino"),
            help="For a model torch or torch-folded, for a bundle onnxruntime, openvino or torch, or every.",
        ),
    ] = "every",
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Size of the images. Default: that of the input.")
    ] = None,
    threads: ThreadsOption = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Measure each row for so long.")] = 3.0,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Measure a model or a bundle on this machine: latency, images per second, where the time goes.

    From pixels in memory to decision and map. The percentiles are of one call; with a batch of more than one
    image that is the time of them all. Batches grow as long as that pays.
    """
    voice = Voice(json)
    from invad.cli.export import parse_size
    from invad.evaluation.speed import bench as measure
    from invad.evaluation.speed import machine

    about = machine()
    rows = measure(
        model, engine=engine, size_hw=parse_size(size), threads=threads, seconds=seconds, device=device
    )
    voice.say("{cpu}, {cores} cores, {system}, load {load:.2f} before".format(**about))
    voice.table(_table(rows))
    for row in rows:
        if row.split_ms:
            parts = ", ".join(f"{name} {ms:.2f}" for name, ms in row.split_ms.items())
            voice.say(f"{row.engine}, {row.precision}, ms of one image: {parts}")
    voice.hand_over([{**row.to_plain(), "machine": about} for row in rows])


def _table(rows: "list[Row]") -> list[list[str]]:
    titles = ["engine", "precision", "device", "threads", "size", "batch", "p50 ms", "p95", "p99", "images/s"]
    best = max(row.images_per_second for row in rows)
    return [
        titles,
        *(
            [
                row.engine,
                row.precision,
                row.device,
                str(row.threads),
                row.size,
                str(row.batch),
                f"{row.latency_ms_p50:.2f}",
                f"{row.latency_ms_p95:.2f}",
                f"{row.latency_ms_p99:.2f}",
                f"{row.images_per_second:.1f}" + (" (most)" if row.images_per_second == best else ""),
            ]
            for row in rows
        ),
    ]
