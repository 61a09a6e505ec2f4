"""Padding to the sizes that a network's strides need."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def pad_to(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Repeat the last values of each spatial axis up to ``size``. (B, C, *axes) -> (B, C, *size)."""
    missing = [target - present for target, present in zip(size, x.shape[2:], strict=True)]
    if not any(missing):
        return x
    return F.pad(x, [n for amount in reversed(missing) for n in (0, amount)], mode="replicate")
