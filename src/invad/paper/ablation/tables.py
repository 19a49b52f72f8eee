"""The rows of a study as a Markdown table and as a chart."""

from collections.abc import Mapping
from statistics import mean
from typing import Any

from invad.paper.ablation.scorings import CALIBRATED, PAPER
from invad.report.curves import Lines, line_charts

MEAN = "mean"


def means(document: Mapping[str, Any], scoring: str) -> dict[str, dict[str, dict[str, float]]]:
    """Mean image AUROC over seeds: by category (and MEAN of them all), series, value."""
    rows = [r for r in document["rows"] if r["scoring"] == scoring and r["image_auroc"] is not None]
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        line = values.setdefault(row["category"], {}).setdefault(row["series"], {})
        line.setdefault(row["value"], []).append(row["image_auroc"])
    table = {
        category: {s: {v: mean(x) for v, x in line.items()} for s, line in lines.items()}
        for category, lines in sorted(values.items())
    }
    return {MEAN: _mean(list(table.values())), **table} if len(table) > 1 else table


def _mean(tables: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Over the categories, of what all of them have."""
    return {
        s: {v: mean(t[s][v] for t in tables) for v in line if all(v in t.get(s, {}) for t in tables)}
        for s, line in tables[0].items()
    }


def scorings(document: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(r["scoring"] for r in document["rows"]))


def markdown(document: Mapping[str, Any]) -> str:
    """Image AUROC: one row per value, series and scoring, one column per category."""
    tables = {scoring: means(document, scoring) for scoring in scorings(document)}
    categories = list(next(iter(tables.values())))
    lines = [
        f"Study `{document['study']}`: {document['about']}. Preset `{document['preset']}`, "
        f"{document['settings']['train']['steps'] or 'by epochs'} training steps, image AUROC, "
        f"seeds {sorted({r['seed'] for r in document['rows']})}, {document['date']}.",
        "",
        f"| value | reading | scoring | {' | '.join(categories)} |",
        "|" + "---|" * (3 + len(categories)),
    ]
    for value, series in dict.fromkeys((r["value"], r["series"]) for r in document["rows"]):
        for scoring, table in tables.items():
            per_category = [table[c].get(series, {}).get(value) for c in categories]
            cells = ["-" if x is None else f"{x:.3f}" for x in per_category]
            lines.append(f"| {value} | {series} | {scoring} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def chart(document: Mapping[str, Any]) -> str:
    """One panel per category and their mean: a line per scoring, or per reading where there are several."""
    series = {r["series"] for r in document["rows"]}
    panels: dict[str, Lines] = {}
    shown = [PAPER, CALIBRATED] if len(series) > 1 else scorings(document)
    for scoring in shown:
        for category, lines in means(document, scoring).items():
            panel = panels.setdefault(category, {})
            for name, line in lines.items():
                # Two scorings of several readings: too many words for a legend.
                short = f"{name}{'' if scoring == PAPER else ', calibrated'}"
                panel[short if len(series) > 1 else scoring] = line
    return line_charts(panels, across=document["about"], up="image AUROC", chance=0.5)
