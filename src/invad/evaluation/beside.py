"""The published figures that stand beside those of a benchmark. Nothing is measured here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from invad.data.known import KNOWN, recognised
from invad.data.published import MEAN, PUBLISHED, Publication
from invad.evaluation.definitions import same_metric
from invad.evaluation.rows import Row


@dataclass(frozen=True, slots=True)
class Beside:
    """figures: plain data for each publication and category. notes: what must be said of them."""

    figures: list[dict[str, Any]]
    notes: list[str]


def beside(run: Mapping[str, Any], rows: Sequence[Row]) -> Beside:
    """What is published for the categories of `rows`, and for their mean where the whole set was tested.

    run: with the layout, if it was recorded. A figure stands under each metric definition that computes it
    alike. None for a set that `invad.data.known` does not recognise.
    """
    # The last row of a category will do: its test images are the same in all of them.
    tested = {row["category"]: row for row in rows}
    found = recognised(run.get("layout", "auto"), sorted(tested))
    if found is None or found[0] not in PUBLISHED:
        return Beside([], [])
    name, own = found
    definitions = dict.fromkeys(row["definition"] for row in rows)
    places = [(category, own[category]) for category in own]
    if len(own) > 1 and set(own.values()) == KNOWN[name].categories.keys():
        places.append((MEAN, MEAN))
    figures = [
        _told(publication, name, category, place, definitions)
        for category, place in places
        for publication in PUBLISHED[name]
        if place in publication.figures
    ]
    figures = [told for told in figures if told["figures"]]
    return Beside(figures, list(_notes(name, own, tested)) if figures else [])


def _told(
    publication: Publication, name: str, category: str, place: str, definitions: Mapping[str, None]
) -> dict[str, Any]:
    by_definition = {
        definition: {
            metric: value
            for metric, value in publication.figures[place].items()
            if same_metric(metric, publication.definition(metric), definition)
        }
        for definition in definitions
    }
    return {
        "category": category,
        "method": publication.method,
        "source": publication.source,
        "set": KNOWN[name].title,
        "setting": publication.setting,
        "size": publication.size,
        "note": publication.note,
        "figures": {definition: told for definition, told in by_definition.items() if told},
    }


def _notes(name: str, own: Mapping[str, str], tested: Mapping[str, Row]) -> Iterator[str]:
    """Where ours are of another number of test images than the publisher of the set counts."""
    for category, known in own.items():
        count = KNOWN[name].categories[known]
        good, bad = (tested[category][key] for key in ("n_normal", "n_anomalous"))
        if count is None:
            continue
        published = (
            (count.test,) if count.defective is None else (count.test - count.defective, count.defective)
        )
        if published not in ((good, bad), (good + bad,)):
            yield (
                f"{category}: tested on {good} good and {bad} defective images, {KNOWN[name].title} has "
                f"{' and '.join(map(str, published))}: its published figures do not compare."
            )
