import json
from pathlib import Path

import pytest

from invad.model.settings import preset_named
from invad.paper.recipes import CARDS, MEASURED, PRESET, RECIPES, memory_gb

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "paper_m.json"
FEATURES = {"paper-m": "published", "paper-m-standardised": "standardised"}
BY_NAME = {recipe.name: recipe for recipe in RECIPES}


def test_steps_follow_from_epochs_images_and_batch():
    mvtec = BY_NAME["mvtec"]
    assert mvtec.total_steps == round(300 * 3629 / 8) == 136_088
    assert mvtec.commands == (
        "invad benchmark run mvtec ROOT --preset paper --setting unified --steps 136088 --seeds 0",
    )


def test_single_settings_train_each_model_for_its_own_steps():
    bmad = BY_NAME["bmad"]
    assert len(bmad.commands) == 6
    assert bmad.total_steps == sum(round(300 * n / 8) for _, n in bmad.models)
    assert "--categories liver --steps 57825" in bmad.commands[1]
    assert len({command.partition("--output ")[2] for command in bmad.commands}) == 6


def test_costs_are_the_stated_arithmetic():
    mvtec, card = BY_NAME["mvtec"], CARDS[0]
    flop = 136_088 * 8 * 3 * 0.42e12
    assert mvtec.pflop == pytest.approx(flop / 1e15)
    assert mvtec.hours(card) == pytest.approx(flop / (0.4 * 989e12) / 3600)
    assert memory_gb() == pytest.approx(24.46)


def test_the_preset_trains_as_the_recipes_say():
    train = preset_named(PRESET).train
    assert train.steps is None
    for recipe in RECIPES:
        assert (train.epochs, train.batch) == (recipe.epochs, recipe.batch)
        assert train.warmup_share == pytest.approx(recipe.warmup_epochs / recipe.epochs, abs=1e-9)


def test_what_was_measured_is_what_the_results_say():
    rows = [row for row in json.loads(RESULTS.read_text())["rows"] if row["width"] == 256]

    def auroc(row, series, steps):
        found = row["sets"][row["set"]]["readings"]
        (value,) = (
            x["image_auroc"]
            for x in found
            if (x["series"], x["S"], x["scoring"]) == (series, steps, "NLL + Diff, test-set scaled")
        )
        return pytest.approx(100 * value, abs=0.05)

    assert MEASURED
    for one in MEASURED:
        own = [
            row
            for row in rows
            if (row["set"], row["features"], row["total_passes"])
            == (one.dataset, FEATURES[one.preset], one.total)
        ]
        (gaussian,) = (row for row in own if row["passes"] == "gaussian")
        trained = [row for row in own if row is not gaussian and row["passes"] <= one.passes]
        (last,) = (row for row in trained if row["passes"] == one.passes)
        assert one.images == last["images"]
        assert one.hours == pytest.approx(sum(row["cpu_seconds"] for row in trained) / 3600, abs=0.006)
        assert one.inversion == auroc(last, "inversion", 3)
        assert one.inversion_10 == auroc(last, "inversion", 10)
        assert one.reconstruction == auroc(last, "reconstruction from 500", 3)
        assert one.gaussian == auroc(gaussian, "inversion", 3)
