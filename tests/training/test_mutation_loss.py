"""The mutation loss against its sum written out, with nnU-Net's own losses, and the trainer's hooks that build it."""

from types import SimpleNamespace

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import nn

from nnunet_attn.recipe import Recipe
from nnunet_attn.training.base import MutationTrainer
from nnunet_attn.training.losses import MutationLoss

pytestmark = pytest.mark.usefixtures("without_progress_figure")

DICE = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}


def cross_entropy_and_dice(ignore_label=None):
    return DC_and_CE_loss(
        dict(DICE),
        {},
        weight_ce=0.3,
        weight_dice=0.7,
        ignore_label=ignore_label,
        dice_class=MemoryEfficientSoftDiceLoss,
    )


def random_maps(count=4, classes=3, size=(6, 5)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, classes, *size, generator=generator, requires_grad=True) for _ in range(count)]


def random_target(labels=3, size=(6, 5)):
    return torch.randint(0, labels, (2, 1, *size), generator=torch.Generator().manual_seed(1)).float()


def test_all_fifteen_subsets_written_out():
    base, target = cross_entropy_and_dice(), random_target()
    a, b, c, d = maps = random_maps()
    sums = [a, b, c, d, a + b, a + c, a + d, b + c, b + d, c + d, a + b + c, a + b + d, a + c + d, b + c + d]
    written_out = [base(s, target) for s in [*sums, a + b + c + d]]
    expected = torch.autograd.grad(sum(written_out), maps)
    for reduction, divisor in (("sum", 1), ("mean", 15)):
        loss = MutationLoss(base, maps=4, reduction=reduction)(maps, [target])
        torch.testing.assert_close(loss, sum(written_out) / divisor)
        for gradient, wanted in zip(torch.autograd.grad(loss, maps), expected, strict=True):
            torch.testing.assert_close(gradient, wanted / divisor)


def test_aggregate_stays_out_of_the_seven_subsets():
    base, target = cross_entropy_and_dice(), random_target()
    aggregate, b, c, d = maps = random_maps()
    written_out = [base(s, target) for s in (b, c, d, b + c, b + d, c + d, b + c + d)]
    loss = MutationLoss(base, maps=4, first=1)(maps, target)
    torch.testing.assert_close(loss, sum(written_out) / 7)
    assert torch.autograd.grad(loss, aggregate, allow_unused=True) == (None,)


def test_regions_with_ignore_channel():
    base = DC_and_BCE_loss({}, DICE | {"do_bg": True}, use_ignore_label=True, dice_class=MemoryEfficientSoftDiceLoss)
    a, b = maps = random_maps(2)
    target = torch.cat([random_target(2), random_target(2), random_target(2), torch.zeros(2, 1, 6, 5)], dim=1)
    target[:, 3, :3] = 1  # the last channel marks what to ignore
    expected = (base(a, target) + base(b, target) + base(a + b, target)) / 3
    loss = MutationLoss(base, maps=2)(maps, [target])
    torch.testing.assert_close(loss, expected)
    assert torch.autograd.grad(loss, a)[0][:, :, :3].abs().max() == 0


def test_ignored_pixels_get_no_gradient():
    target = random_target()
    target[:, :, :2] = 3
    maps = random_maps()
    gradients = torch.autograd.grad(MutationLoss(cross_entropy_and_dice(3), maps=4)(maps, [target]), maps)
    for gradient in gradients:
        assert gradient[:, :, :2].abs().max() == 0
        assert gradient[:, :, 2:].abs().min() > 0


def test_one_map_is_the_base_loss():
    base, target = cross_entropy_and_dice(), random_target()
    (prediction,) = random_maps(1)
    assert MutationLoss(base, maps=4)(prediction, target) == base(prediction, target)


@pytest.mark.parametrize("count", [3, 5])
def test_wrong_number_of_maps_is_refused(count):
    with pytest.raises(ValueError, match=f"returned {count} map"):
        MutationLoss(cross_entropy_and_dice(), maps=4)(random_maps(count), [random_target()])


def test_wrong_size_is_refused():
    maps = random_maps()
    maps[2] = maps[2][..., ::2]
    with pytest.raises(ValueError, match=r"\(6, 3\)"):
        MutationLoss(cross_entropy_and_dice(), maps=4)(maps, [random_target()])


def test_several_targets_are_refused():
    with pytest.raises(ValueError, match="one full-resolution target, got 2"):
        MutationLoss(cross_entropy_and_dice(), maps=4)(random_maps(), [random_target(), random_target()])


@pytest.mark.parametrize("arguments", [{"maps": 4, "first": 4}, {"maps": 4, "first": -1}, {"maps": 0}])
def test_nothing_to_combine_is_refused(arguments):
    with pytest.raises(ValueError, match="first must be"):
        MutationLoss(nn.Identity(), **arguments)


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="'max'"):
        MutationLoss(nn.Identity(), maps=4, reduction="max")


def make_trainer(trainer_class, *, enabled=True, has_regions=False, ignore_label=None, **recipe):
    """A trainer with just what the loss hooks read."""
    trainer = trainer_class.__new__(trainer_class)
    trainer.settings = Recipe(**recipe)
    trainer.enable_deep_supervision, trainer.is_ddp = enabled, False
    trainer.device = torch.device("cpu")
    trainer.label_manager = SimpleNamespace(has_regions=has_regions, ignore_label=ignore_label)
    trainer.configuration_manager = SimpleNamespace(patch_size=[6, 5], batch_dice=True)
    return trainer


class AggregateFirst(MutationTrainer):
    first_map = 1


@pytest.mark.parametrize(
    ("trainer_class", "mutation", "subsets"), [(MutationTrainer, "sum", 15), (AggregateFirst, "mean", 7)]
)
def test_trainer_builds_the_weighted_loss(trainer_class, mutation, subsets):
    trainer = make_trainer(trainer_class, mutation=mutation, weight_ce=0.3, weight_dice=0.7)
    assert trainer._get_deep_supervision_scales() == [[1.0, 1.0]]
    loss = trainer._build_loss()
    assert trainer.enable_deep_supervision
    assert (type(loss), loss.reduction, len(loss.subsets)) == (MutationLoss, mutation, subsets)
    assert (loss.base_loss.weight_ce, loss.base_loss.weight_dice) == (0.3, 0.7)
    maps, target = random_maps(), random_target()
    wanted = MutationLoss(cross_entropy_and_dice(), maps=4, first=trainer_class.first_map, reduction=mutation)
    torch.testing.assert_close(loss(maps, [target]), wanted(maps, target))


def test_trainer_with_regions_and_ignore_label():
    loss = make_trainer(MutationTrainer, has_regions=True, ignore_label=3)._build_loss()
    assert isinstance(loss.base_loss, DC_and_BCE_loss)
    assert loss.base_loss.use_ignore_label


def test_trainer_without_deep_supervision():
    trainer = make_trainer(MutationTrainer, enabled=False, weight_ce=0.3, weight_dice=0.7)
    assert trainer._get_deep_supervision_scales() is None
    (prediction,), target = random_maps(1), random_target()
    torch.testing.assert_close(trainer._build_loss()(prediction, target), cross_entropy_and_dice()(prediction, target))
