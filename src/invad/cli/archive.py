"""invad predict --engine ray"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from invad.cli.progress import observing
from invad.cli.voice import Voice
from invad.errors import ConfigError, DataError


def score(
    voice: Voice,
    model: Path,
    sources: Sequence[str],
    output: Path | None,
    category: str | None,
    workers: int | None,
    device: str | None,
) -> Mapping[str | None, int]:
    """Score an archive into `output` and say what came of it.

    Returns the number of images by decision; None counts those that nobody could judge.
    """
    if output is None:
        raise ConfigError("--engine ray writes its rows into a folder; name it with --output")
    if len(sources) != 1:
        raise ConfigError(f"--engine ray takes one folder, list or URL, not {len(sources)} paths")
    with observing(voice.err) as observer:
        from invad.archive import score_archive

        made = score_archive(
            model,
            sources[0],
            output,
            category=category,
            workers=workers,
            device=device,
            observer=observer,
        )
    said = ", ".join(f"{count} {name}" for name, count in made.decisions.items())
    voice.say(f"{made.images} images: {said}, {made.errors} unreadable; {made.before} of them scored before")
    voice.say(f"Rows: {output}/part-*.parquet, see {output / 'manifest.json'}")
    told = {"model": str(model), "output": str(output), "images": made.images, "errors": made.errors}
    voice.hand_over({**told, "decisions": made.decisions, "before": made.before})
    if made.errors == made.images:
        raise DataError(f"none of {made.images} images could be read; the column error says why")
    return dict([*made.decisions.items(), (None, made.errors)])
