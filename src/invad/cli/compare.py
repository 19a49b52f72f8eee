"""invad compare"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invad.cli.options import JsonOption, written_file
from invad.cli.rows import csv_line
from invad.cli.voice import Voice
from invad.errors import ConfigError
from invad.report.wording import counted
from invad.system.files import write_atomically

if TYPE_CHECKING:
    from invad.evaluation.compare import Comparison, Results

RESULT = (
    "Rows of 'invad predict --csv' or '--json' or 'invad evaluate --csv', or the folder of 'invad benchmark "
    "run'."
)
MOST_SAID = 10
SURE = 0.05


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help=RESULT)],
    b: Annotated[Path, typer.Argument(metavar="B", help="The other result.")],
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=written_file, help="Write both side by side as one HTML page."),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=written_file, help="Write the parts in common, a row for each."
        ),
    ] = None,
    json: JsonOption = None,
    same_parts: Annotated[
        bool | None,
        typer.Option(
            "--same-parts/--two-lots",
            help="Whether parts of equal names in other folders are the same ones, or A and B are lots "
            "whatever their names. Default: a part is the same where both paths can be of one file.",
        ),
    ] = None,
) -> None:
    """Put two models or two lots side by side: which parts changed their decision, and whether by chance.

    Parts are matched by path, from whatever folder it was given. Without one in common the two are compared
    as lots.
    """
    voice = Voice(json, csv)
    if report is not None and report.suffix.lower() != ".html":
        raise ConfigError(f"--report {report}: end the name in .html")
    if report is not None and str(report) in (str(csv), str(json)):
        raise ConfigError(f"--report {report}: another option writes to this file; give it one of its own")
    from invad.evaluation.compare import DECISIONS
    from invad.evaluation.compare import compare as put_beside

    found = put_beside(a, b, same_parts=same_parts)
    if found.pairs:
        counts = found.counts()
        head = ["in both", *(f"B {name}" for name in DECISIONS)]
        voice.table([head, *([f"A {x}", *(str(counts[x, y]) for y in DECISIONS)] for x in DECISIONS)])
        for x, y in found.changed[:MOST_SAID]:
            seen = f"  {x.seen_by} -> {y.seen_by}" if x.seen_by and y.seen_by else ""
            voice.say(f"{x.decision} -> {y.decision}  p {x.p_value:.2g} -> {y.p_value:.2g}  {x.name}{seen}")
        if len(found.changed) > MOST_SAID:
            voice.say(f"... and {len(found.changed) - MOST_SAID} more")
    voice.say(*said(found))
    voice.warn(*notes(found))
    if csv is not None:
        voice.attempt(
            lambda: write_atomically(csv, "".join(_lines(found)).encode("utf-8", "surrogateescape"))
        )
    if report is not None:
        voice.attempt(lambda: write_atomically(report, _page(found).encode("utf-8", "replace")))
    voice.hand_over(_plain(found))


def said(found: "Comparison") -> Iterator[str]:
    """What the tests say, a sentence each."""
    for test in found.tests:
        more = "A" if test.only_a > test.only_b else "B"
        verdict = f"{more} flags more" if test.p_value <= SURE else "no more than chance brings"
        yield (
            f"{test.what}, of {test.total}: {test.only_a} by A alone, {test.only_b} by B alone "
            f"(McNemar p = {test.p_value:.2g}): {verdict}"
        )
    if found.ranking is not None:
        r = found.ranking
        low, high = r.difference_95
        yield f"image AUROC {r.a:.4f} and {r.b:.4f}: B less A between {low:+.4f} and {high:+.4f} (95 %)"
    if found.lots is not None:
        lots = found.lots
        verdict = "the lots differ" if lots.p_value <= SURE else "no more apart than chance brings"
        yield (
            f"no part in common: {lots.flagged_a} of {lots.total_a} flagged in A, {lots.flagged_b} of "
            f"{lots.total_b} in B (Fisher p = {lots.p_value:.2g}): {verdict}"
        )


def notes(found: "Comparison") -> Iterator[str]:
    """What a reader must know beside them."""
    yield from _matched(found)
    alone = len(found.a.rows) - len(found.pairs), len(found.b.rows) - len(found.pairs)
    if found.pairs and any(alone):
        yield f"{counted(alone[0], 'part')} in A alone, {alone[1]} in B alone, which are not compared"
    for letter, one in (("A", found.a), ("B", found.b)):
        if one.unjudged:
            yield f"{counted(one.unjudged, 'part')} of {letter} could not be judged"
    hashes = found.a.content_hash, found.b.content_hash
    if found.lots is not None and None not in hashes and hashes[0] != hashes[1]:
        yield "other models judged the two lots, so that they differ in more than their parts"


def _matched(found: "Comparison") -> Iterator[str]:
    of_parts = [any(row.members for row in one.rows) for one in (found.a, found.b)]
    if found.lots is not None and of_parts[0] != of_parts[1]:
        one, other = "AB" if of_parts[0] else "BA"
        yield f"a row of {one} is a part of several pictures, one of {other} a picture"
    exchange, rival = found.match.exchange, found.match.rival
    if exchange is None or not (exchange.a or exchange.b):
        return
    x, y = exchange.words
    if found.pairs:
        yield (
            f"parts are matched by the end of their paths, before which stands {x} in A and {y} in B; if "
            "they are other parts, give --two-lots"
        )
    elif rival is not None:
        u, v = rival.words
        yield (
            f"names fit equally well with {x} in A for {y} in B as with {u} for {v}, so no parts are matched"
        )
    else:
        yield (
            f"names are equal but for {x} in A and {y} in B, which is taken for two lots; if the parts are "
            "the same ones, give --same-parts"
        )


def _lines(found: "Comparison") -> Iterator[str]:
    head = ["path", "label", "decision_a", "decision_b", "p_value_a", "p_value_b", "score_a", "score_b"]
    of_parts = any(x.members or y.members for x, y in found.pairs)
    yield csv_line([*head, "seen_by_a", "seen_by_b"] if of_parts else head)
    for x, y in found.pairs:
        row = [x.name, x.label or y.label, x.decision, y.decision, x.p_value, y.p_value, x.score, y.score]
        yield csv_line([*row, x.seen_by, y.seen_by] if of_parts else row)


def _page(found: "Comparison") -> str:
    from invad.report.comparison import Moved, Side, comparison_page

    def side(letter: str, one: "Results") -> Side:
        return Side(letter=letter, name=one.source, counts=Counter(row.decision for row in one.rows))

    return comparison_page(
        (side("A", found.a), side("B", found.b)),
        [
            Moved(
                x.name,
                x.label or y.label or "",
                (x.decision, x.p_value),
                (y.decision, y.p_value),
                ((x.members, x.seen_by), (y.members, y.seen_by)),
            )
            for x, y in found.pairs
        ],
        (len(found.a.rows) - len(found.pairs), len(found.b.rows) - len(found.pairs)),
        [
            (t.what, *map(str, (t.both, t.only_a, t.only_b, t.neither)), f"{t.p_value:.2g}")
            for t in found.tests
        ],
        list(said(found)),
        {
            name: value
            for letter, one in (("A", found.a), ("B", found.b))
            for name, value in (
                (f"{letter}", one.source),
                (f"model of {letter}", one.content_hash or "not told by the file"),
            )
        },
        list(notes(found)),
    )


def _plain(found: "Comparison") -> dict[str, Any]:
    from dataclasses import asdict

    exchange = found.match.exchange
    return {
        "a": found.a.source,
        "b": found.b.source,
        "in_both": len(found.pairs),
        "a_alone": len(found.a.rows) - len(found.pairs),
        "b_alone": len(found.b.rows) - len(found.pairs),
        "folders": None if exchange is None else {"a": "/".join(exchange.a), "b": "/".join(exchange.b)},
        "changed": [
            {"path": x.name, "a": x.decision, "b": y.decision, "p_value_a": x.p_value, "p_value_b": y.p_value}
            | ({"seen_by_a": x.seen_by, "seen_by_b": y.seen_by} if x.members or y.members else {})
            for x, y in found.changed
        ],
        "tests": [asdict(test) for test in found.tests],
        "image_auroc": None if found.ranking is None else asdict(found.ranking),
        "lots": None if found.lots is None else asdict(found.lots),
    }
