"""What a ``Recipe`` makes of a training: optimiser, schedule of the rate, clipping, augmentation."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import nn

from nnunet_attn.recipe import Augmentation, Recipe


class WarmupScheduler(torch.optim.lr_scheduler.LRScheduler):
    """Rate per epoch: linear warm-up to ``initial_lr``, then poly or constant.

    ``rate(e) = initial_lr * (e + 1) / (w + 1)`` in the ``w`` warm-up epochs, then
    ``initial_lr * (1 - (e - w) / (num_epochs - w)) ** 0.9``. It is a function of the epoch alone, as nnU-Net's own
    scheduler is, so a resumed run needs no state of it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, num_epochs: int):
        self.recipe, self.num_epochs = recipe, num_epochs
        self.warmup_epochs = max(1, round(recipe.warmup * num_epochs)) if recipe.warmup else 0
        super().__init__(optimizer)

    def rate(self, epoch: int) -> float:
        w = self.warmup_epochs
        if epoch < w:
            return self.recipe.initial_lr * (epoch + 1) / (w + 1)
        if self.recipe.schedule == "constant" or self.num_epochs <= w:
            return self.recipe.initial_lr
        return self.recipe.initial_lr * (1 - (epoch - w) / (self.num_epochs - w)) ** 0.9

    def step(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.last_epoch)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or Adam over the parameters that train; 1-d parameters form a second group, see ``decay_1d``."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": recipe.weight_decay * recipe.decay_1d},
    ]
    return getattr(torch.optim, recipe.optimizer)(groups, lr=recipe.initial_lr, betas=recipe.betas)


def clip_gradients(optimizer: torch.optim.Optimizer, most: float, by: str = "norm") -> None:
    """Clip norm or values before each step. nnU-Net's train_step clips norms at 12, before; the hook sees that."""

    def clip(optimizer: torch.optim.Optimizer, _args: object, _kwargs: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if by == "norm":
            nn.utils.clip_grad_norm_(parameters, most)
        else:
            nn.utils.clip_grad_value_(parameters, most)

    optimizer.register_step_pre_hook(clip)


def save_interval(epochs: int) -> int:
    """Epochs between checkpoints: nnU-Net's 50, or a twentieth of a shorter schedule."""
    return min(50, max(1, epochs // 20))


class Shift(BasicTransform):
    """Moves image and labels by whole pixels, up to ``share`` of each axis; zeros come in at the border.

    Shape: image and segmentation (C, *size)
    """

    def __init__(self, share: float, probability: float):
        super().__init__()
        self.share, self.probability = share, probability

    def get_parameters(self, **data: Any) -> dict:
        """Pixels to move along each axis."""
        size = data["image"].shape[1:]
        if torch.rand(()) >= self.probability:
            return {"steps": [0] * len(size)}
        largest = [round(self.share * n) for n in size]
        return {"steps": [int(torch.randint(-most, most + 1, ())) for most in largest]}

    def _apply_to_image(self, img: torch.Tensor, steps: list[int]) -> torch.Tensor:
        result = torch.zeros_like(img)
        target = tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(steps, img.shape[1:], strict=True))
        source = tuple(slice(max(0, -s), n + min(0, -s)) for s, n in zip(steps, img.shape[1:], strict=True))
        result[(slice(None), *target)] = img[(slice(None), *source)]
        return result

    _apply_to_segmentation = _apply_to_regr_target = _apply_to_image


def loaded_region(patch_size: Sequence[int], augmentation: Augmentation, *, one_slice: bool) -> list[int]:
    """Size of the region to load so that the patch, rotated in one plane by any angle up to the augmentation's, fits.

        max_phi (n cos phi + m sin phi) = sqrt(n^2 + m^2) if the angle reaches atan(m / n), else it is at the angle

    for an axis of n pixels and the other axis of the plane, m; the largest over the planes. nnU-Net sizes the region
    for its own angles, which for elongated patches are 15 degrees. ``one_slice``: rotations keep the first axis.
    """
    angle, zoom = math.radians(min(augmentation.rotation, 90.0)), 0.85 if augmentation.p_scaling else 1.0

    def extent(n: int, m: int) -> float:
        return n * math.cos(angle) + m * math.sin(angle) if angle < math.atan2(m, n) else math.hypot(n, m)

    axes = range(int(one_slice), len(patch_size))
    longest = {i: max(extent(patch_size[i], patch_size[j]) for j in axes if j != i) for i in axes}
    return [math.ceil(longest[i] / zoom) if i in longest else int(n) for i, n in enumerate(patch_size)]


INTENSITY = (
    GaussianNoiseTransform,
    GaussianBlurTransform,
    MultiplicativeBrightnessTransform,
    ContrastTransform,
    SimulateLowResolutionTransform,
    GammaTransform,
)


def with_augmentation(transforms: ComposeTransforms, augmentation: Augmentation) -> ComposeTransforms:
    """nnU-Net's training transforms with its augmentation replaced; what handles labels and channels is kept."""
    kept: list[BasicTransform] = []
    for transform in transforms.transforms:
        if isinstance(transform, RandomTransform) and isinstance(transform.transform, INTENSITY):
            continue
        if isinstance(transform, SpatialTransform):
            angle = math.radians(augmentation.rotation)
            transform.p_rotation, transform.rotation = augmentation.p_rotation, (-angle, angle)
            transform.p_scaling = augmentation.p_scaling
            kept.append(transform)
            if augmentation.shift:
                kept.append(Shift(augmentation.shift, augmentation.p_shift))
            continue
        if isinstance(transform, MirrorTransform):  # the transform mirrors with a fixed probability of 1/2
            probability = min(1.0, 2 * augmentation.p_mirror)
            kept += [RandomTransform(MirrorTransform((axis,)), probability) for axis in transform.allowed_axes]
            continue
        kept.append(transform)
    return ComposeTransforms(kept)
