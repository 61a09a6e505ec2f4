from itertools import pairwise

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_attn import trainers
from nnunet_attn.catalog import ENTRIES, FAMILIES
from nnunet_attn.recipe import SGD, Augmentation, Recipe
from nnunet_attn.training.base import merged
from nnunet_attn.training.recipe import (
    INTENSITY,
    Shift,
    WarmupScheduler,
    clip_gradients,
    loaded_region,
    make_optimizer,
    with_augmentation,
)


def rates(recipe: Recipe, epochs: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = WarmupScheduler(optimizer, recipe, epochs)
    seen = []
    for epoch in range(epochs):
        scheduler.step(epoch)
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def test_warmup_then_poly():
    seen = rates(Recipe(initial_lr=1.0), 100)
    assert seen[:5] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert seen[5] == 1.0
    assert seen[50] == pytest.approx((1 - 45 / 95) ** 0.9)
    assert all(a > b > 0 for a, b in pairwise(seen[5:]))


def test_warmup_is_one_epoch_at_least_and_short_runs_work():
    assert rates(Recipe(initial_lr=1.0), 10)[:2] == pytest.approx([0.5, 1.0])
    assert rates(Recipe(initial_lr=1.0), 1) == [0.5]
    assert rates(Recipe(initial_lr=1.0, warmup=0.0, schedule="constant"), 3) == [1.0, 1.0, 1.0]


def test_rate_is_a_function_of_the_epoch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    WarmupScheduler(optimizer, Recipe(initial_lr=1.0), 100).step(50)
    assert optimizer.param_groups[0]["lr"] == rates(Recipe(initial_lr=1.0), 100)[50]


def test_one_dimensional_parameters_do_not_decay():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    network[2].bias.requires_grad_(False)
    optimizer = make_optimizer(network, Recipe(weight_decay=0.1))
    decayed, free = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert free["weight_decay"] == 0.0
    assert len(free["params"]) == 3
    assert isinstance(optimizer, torch.optim.AdamW)


def test_one_dimensional_parameters_decay_where_the_papers_do_not_exempt_them():
    optimizer = make_optimizer(nn.BatchNorm2d(2), Recipe(weight_decay=0.1, decay_1d=True))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}


@pytest.mark.parametrize("entry", [e for e in ENTRIES if FAMILIES[e.family].paper_recipes], ids=lambda e: e.trainer)
def test_paper_recipes_decay_all_parameters(entry):
    recipe = Recipe(**merged(getattr(trainers, f"{entry.trainer}_paper"), "recipe"))
    assert recipe.decay_1d or recipe.weight_decay == 0
    assert not Recipe(**merged(getattr(trainers, entry.trainer), "recipe")).decay_1d


@pytest.mark.parametrize("norm", [0.5, 5.0])
def test_gradients_are_clipped_before_the_step(norm):
    parameter = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([parameter], 1.0)
    clip_gradients(optimizer, 1.0)
    parameter.grad = torch.full((4,), norm / 2)
    optimizer.step()
    assert parameter.norm().item() == pytest.approx(min(norm, 1.0), rel=1e-4)


def test_unknown_values_are_refused():
    with pytest.raises(TypeError, match="lr"):
        Recipe(lr=1.0)
    with pytest.raises(ValueError, match="AdamW, Adam or SGD, got 'Adamax'"):
        Recipe(optimizer="Adamax")


def test_shift_moves_image_and_labels_together():
    torch.manual_seed(0)
    shift = Shift(0.25, probability=1.0)
    seen = set()
    for _ in range(60):
        data = shift(image=PICTURE + 1, segmentation=PICTURE.to(torch.int16) + 1)
        assert torch.equal(data["image"], data["segmentation"].float())
        seen.add(tuple(data["image"].flatten().tolist()))
    assert len(seen) == 9  # one pixel to either side or none, on both axes
    expected = torch.zeros(1, 4, 4)
    expected[:, 1:, :3] = (PICTURE + 1)[:, :3, 1:]
    assert tuple(expected.flatten().tolist()) in seen
    assert torch.equal(Shift(0.25, probability=0.0)(image=PICTURE)["image"], PICTURE)


def test_fias_shifts():
    stock = nnUNetTrainer.get_training_transforms((32, 32), (-0.5, 0.5), None, (0, 1), False)
    augmentation = merged(trainers.nnUNetTrainerFIAS_paper, "recipe")["augmentation"]
    transforms = with_augmentation(stock, augmentation).transforms
    kinds = [type(t) for t in transforms]
    assert kinds.index(Shift) == kinds.index(SpatialTransform) + 1


@pytest.mark.parametrize("angle", [20.0, 60.0])
@pytest.mark.parametrize("patch", [(64, 192), (192, 64), (64, 64), (16, 64, 96)], ids=str)
def test_enough_is_loaded_for_the_paper_s_rotation(patch, angle):
    """nnU-Net's own region for an elongated patch is that of 15 degrees."""
    *_, height, width = patch
    size = loaded_region(patch, Augmentation(rotation=angle), one_slice=len(patch) == 3)
    corners = np.array([[-height, -width], [-height, width], [height, -width], [height, width]]) / 2
    turns = [np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in np.radians(np.linspace(0, angle, 91))]
    needed = np.max([np.ptp(corners @ turn, axis=0) for turn in turns], axis=0)
    assert all(n - 1e-6 <= s <= n + 1 for n, s in zip(needed, size[-2:], strict=True)), (needed, size)
    assert len(patch) == 2 or size[0] == patch[0]


def test_paper_augmentation_replaces_nnunet_s():
    stock = nnUNetTrainer.get_training_transforms((32, 32), (-0.5, 0.5), None, (0, 1), False)
    transforms = with_augmentation(stock, Augmentation(rotation=60, p_rotation=0.4, p_mirror=0.2)).transforms
    spatial = next(t for t in transforms if isinstance(t, SpatialTransform))
    assert spatial.p_rotation == 0.4
    assert np.degrees(spatial.rotation) == pytest.approx([-60, 60])
    assert spatial.p_scaling == 0
    inner = [t.transform for t in transforms if isinstance(t, RandomTransform)]
    assert not [t for t in inner if isinstance(t, INTENSITY)]
    assert [t.allowed_axes for t in inner if isinstance(t, MirrorTransform)] == [(0,), (1,)]
    assert len([t for t in transforms if isinstance(t, RemoveLabelTansform)]) == 1
    flips = sum(not torch.equal(inner_apply(transforms, i), PICTURE) for i in range(400))
    assert 0.28 < flips / 400 < 0.44  # 1 - 0.8 ** 2 = 0.36


PICTURE = torch.arange(16.0).reshape(1, 4, 4)


def inner_apply(transforms, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    data = {"image": PICTURE, "segmentation": torch.zeros(1, 4, 4)}
    for t in transforms:
        if isinstance(t, RandomTransform):
            data = t(**data)
    return data["image"]


def test_nnunet_s_intensity_transforms_are_all_known():
    stock = nnUNetTrainer.get_training_transforms((32, 32), (-0.5, 0.5), None, (0, 1), False)
    assert all(isinstance(t.transform, INTENSITY) for t in stock.transforms if isinstance(t, RandomTransform))


@pytest.mark.parametrize(
    "wrong", [{"schedule": "constant"}, {"warmup": 0.1}, {"betas": (0.9, 0.999)}, {"decay_1d": False}]
)
def test_sgd_refuses_what_it_would_not_do(wrong):
    assert Recipe(**SGD).decay_1d
    with pytest.raises(ValueError, match=f"SGD is stock nnU-Net's and does not act on {next(iter(wrong))}="):
        Recipe(**SGD | wrong)
    with pytest.raises(ValueError, match="AdamW needs betas"):
        Recipe(betas=None)
