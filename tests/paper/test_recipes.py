import pytest

from invad.model.settings import preset_named
from invad.paper.recipes import CARDS, PRESET, RECIPES, memory_gb

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
