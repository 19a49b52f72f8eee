"""invad paper recipes"""

from typing import Any

from invad.cli.options import JsonOption
from invad.cli.voice import Voice


def recipes(json: JsonOption = None) -> None:
    """List the paper's experiments: command lines, figures to expect, hours and memory as estimates."""
    voice = Voice(json)
    from dataclasses import asdict

    from invad.paper.recipes import (
        BYTES_PER_PARAMETER,
        CARDS,
        MEASURED,
        MEASURED_BY,
        RECIPES,
        TFLOP_PER_PASS,
        Recipe,
        memory_gb,
    )

    head = ["", "setting", "images", "steps", "I-AUROC", "mAD", "outside user", "img/s"]
    body = [
        [
            r.name,
            r.setting,
            f"{r.images:,}",
            f"{r.total_steps:,}",
            _figure(r.paper.image_auroc),
            _figure(r.paper.mad),
            _figure(r.outside.image_auroc),
            _figure(r.paper.images_per_second),
            *(f"{r.hours(card):,.1f} h" for card in CARDS),
        ]
        for r in RECIPES
    ]
    voice.table([[*head, *(card.name for card in CARDS)], *body])
    shares = ", ".join(f"{c.share:.0%} of the {c.peak:.0f} TFLOP/s of an {c.name}" for c in CARDS)
    voice.say(
        "",
        "I-AUROC, mAD and img/s are the paper's (arXiv 2504.05662), unchecked by us; 'outside user' is what "
        "a user of the published code got.",
        f"Hours are estimates: steps x 8 images x 3 x {TFLOP_PER_PASS} TFLOP at {shares} (bfloat16).",
        f"Memory is an estimate: 1,223 M parameters x {BYTES_PER_PARAMETER} bytes = {memory_gb():.1f} GB, "
        "and activations; more than an RTX 4090 has without sharding or offloading.",
        "",
        *(line for r in RECIPES for line in r.commands),
    )
    voice.say("", *(f"{r.name}: {r.note}" for r in RECIPES if r.note))

    voice.say("", f"Measured here ({MEASURED_BY}; docs/paper.md): image AUROC, hours of one core.")
    heads = ["set", "preset", "passes", "images", "hours"]
    heads += ["S = 3", "S = 10", "reconstruction", "Gaussian"]
    rows = [
        [m.dataset, m.preset, f"{m.passes} of {m.total}", str(m.images), f"{m.hours:.2f}"]
        + [_figure(x) for x in (m.inversion, m.inversion_10, m.reconstruction, m.gaussian)]
        for m in MEASURED
    ]
    voice.table([heads, *rows])

    def plain(r: Recipe) -> dict[str, Any]:
        return {
            **asdict(r),
            "images": r.images,
            "total_steps": r.total_steps,
            "commands": list(r.commands),
            "estimated_pflop": round(r.pflop, 1),
            "estimated_hours": {card.name: round(r.hours(card), 1) for card in CARDS},
            "estimated_memory_gb_without_activations": round(memory_gb(), 1),
        }

    voice.hand_over(
        {
            "recipes": [plain(r) for r in RECIPES],
            "measured": [asdict(m) for m in MEASURED],
            "assumed_share": {c.name: c.share for c in CARDS},
        }
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
