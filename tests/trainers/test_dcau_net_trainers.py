"""Recipes of the DCAU-Net trainers; their networks are tested with the catalogue."""

from dataclasses import replace

import pytest

from nnunet_attn import trainers
from nnunet_attn.recipe import Recipe
from nnunet_attn.training.base import merged

BASE = "nnUNetTrainerDCAUNet"


def recipe(name: str) -> Recipe:
    return Recipe(**merged(getattr(trainers, name), "recipe"))


def test_the_default_recipe_is_ours():
    assert recipe(BASE) == Recipe()


@pytest.mark.parametrize("ablation", ["", "_standardAttention", "_postNorm"])
def test_the_paper_s_recipes(ablation):
    paper = recipe(f"{BASE}{ablation}_paper")
    assert (paper.optimizer, paper.initial_lr, paper.weight_decay, paper.schedule) == ("AdamW", 1e-3, 1e-4, "poly")
    assert (paper.num_epochs, paper.num_iterations_per_epoch, paper.warmup) == (400, 250, 0)
    assert (paper.weight_ce, paper.weight_dice) == (0.4, 0.6)
    assert paper.augmentation.rotation > 0
    assert paper.augmentation.p_mirror == 0.5
    assert recipe(f"{BASE}{ablation}_paperACDC") == replace(paper, initial_lr=3e-4)


def test_recipe_and_schedule_compose_on_an_ablation():
    cls = getattr(trainers, f"{BASE}_lambda05_paperACDC_2epochs_3iterations")
    assert merged(cls, "network_kwargs") == {"lambda_init": 0.5}
    assert (cls.epochs, cls.iterations) == (2, 3)
    assert Recipe(**merged(cls, "recipe")).initial_lr == 3e-4
