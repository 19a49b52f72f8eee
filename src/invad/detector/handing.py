"""What an exported bundle keeps of a model, so that another region of interest can be put into it later."""

from collections.abc import Mapping

from torch import Tensor

from invad.detector.parts import Parts, was_read_alone
from invad.model.inspected import Inspected
from invad.records import Hw
from invad.runtime.held import Held, Means, Told


def takes_regions(parts: Parts) -> bool:
    """Whether a graph of it can: what is ignored in tiles stays in sight, and a category whose images were
    read with a region of its own has maps of its own."""
    info, kept = parts.info, parts.kept
    if kept is None or info.tiles is not None or not parts.means:
        return False
    return not any(was_read_alone(view, parts) for view in parts.views.values())


def seen_by(parts: Parts, categories: tuple[str, ...]) -> list[Inspected | None]:
    """What counts for each category by its number; a single one where all are alike and stay so."""
    of_all = parts.model.extract.inspected
    if not _by_category(parts):
        return [of_all]
    views = {name: view.model.extract.inspected for name, view in parts.views.items()}
    return [views.get(name, of_all) for name in categories]


def held_of(parts: Parts) -> Held | None:
    """None of a model that `takes_regions` says no of."""
    if not takes_regions(parts):
        return None
    kept = parts.kept
    assert kept is not None
    told = Told(
        rule=parts.info.settings.score_rule.of_cells,
        categories=kept.categories,
        groups=kept.groups,
        pictures=kept.pictures,
        region=kept.region,
        by_category=_by_category(parts),
        parts=kept.parts,
    )
    middle, offsets = kept.middle_Lhw.numpy(), kept.offsets_NLhw.numpy()
    every = {**parts.stats, **{name: view.stats[name] for name, view in parts.views.items()}}
    stats = {name: own.of_cells for name, own in every.items()}
    means_of = {name: _arrays(means) for name, means in parts.means_of.items()}
    return Held(told, middle, offsets, stats, _arrays(parts.means), means_of)


def _by_category(parts: Parts) -> bool:
    return bool(parts.means_of or parts.views)


def _arrays(means: Mapping[Hw, Tensor]) -> Means:
    return {size_hw: mean.numpy() for size_hw, mean in means.items()}
