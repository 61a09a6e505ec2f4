"""The check of what a block is given."""

import torch
from torch import nn

SPATIAL = {2: ("H", "W"), 3: ("D", "H", "W")}  # letters of the spatial axes, by their number


def check_layout(block: nn.Module, name: str, x: torch.Tensor, axes: tuple[int | str, ...]) -> None:
    """Raise ValueError, with the shape, unless ``x`` has these axes: a number is a size, a letter stands for any size.

    >>> check_layout(nn.Identity(), "input", torch.ones(2, 3, 8), ("B", 3, "H", "W"))
    Traceback (most recent call last):
    ValueError: Identity: input must be (B, 3, H, W), got (2, 3, 8)
    """
    expected = [size if isinstance(axis, str) else axis for size, axis in zip(x.shape, axes, strict=False)]
    if x.ndim != len(axes) or list(x.shape) != expected:
        raise ValueError(f"{type(block).__name__}: {name} must be ({', '.join(map(str, axes))}), got {tuple(x.shape)}")
