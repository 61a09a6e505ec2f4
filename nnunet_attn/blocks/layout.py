"""The axes of what a block is given, and how they lie in memory."""

import torch
from torch import nn

SPATIAL = {2: ("H", "W"), 3: ("D", "H", "W")}  # letters of the spatial axes, by their number
SIDE_BY_SIDE = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of all axes


def check_layout(block: nn.Module, name: str, x: torch.Tensor, axes: tuple[int | str, ...]) -> None:
    """Raise ValueError, with the shape, unless ``x`` has these axes: a number is a size, a letter stands for any size.

    >>> check_layout(nn.Identity(), "input", torch.ones(2, 3, 8), ("B", 3, "H", "W"))
    Traceback (most recent call last):
    ValueError: Identity: input must be (B, 3, H, W), got (2, 3, 8)
    """
    expected = [size if isinstance(axis, str) else axis for size, axis in zip(x.shape, axes, strict=False)]
    if x.ndim != len(axes) or list(x.shape) != expected:
        raise ValueError(f"{type(block).__name__}: {name} must be ({', '.join(map(str, axes))}), got {tuple(x.shape)}")


def channels_last(feature: torch.Tensor) -> torch.Tensor:
    """``feature`` with its channels side by side in memory: pooling, resizing and 1x1 products then run along them.

    On a CPU that is five to fifteen times faster. Samples are transposed one by one there, because PyTorch has a
    blocked (fast) transposition for matrices only; it has no gradient.
    """
    layout = SIDE_BY_SIDE[feature.ndim]
    if feature.device.type != "cpu" or feature.is_contiguous(memory_format=layout):
        return feature.contiguous(memory_format=layout)
    result = torch.empty_like(feature, memory_format=layout)
    for source, target in zip(feature.flatten(2), result.movedim(1, -1).flatten(1, -2), strict=True):
        target.copy_(source.T)
    return result


def layout_of(feature: torch.Tensor) -> torch.memory_format:
    """The memory layout in which a result or gradient of ``feature`` is returned."""
    if feature.is_contiguous():
        return torch.contiguous_format
    return SIDE_BY_SIDE[feature.ndim]


def for_depthwise(feature: torch.Tensor) -> torch.Tensor:
    """``feature`` in the memory layout in which its depth-wise or grouped convolution is fastest.

    On a CPU that is with the channels side by side: measured, forward and backward take half to a tenth of the time.
    Compilers and exporters choose layouts of their own, and on other devices it was not measured: unchanged there.
    """
    if feature.device.type != "cpu" or torch.compiler.is_compiling():
        return feature
    return feature.contiguous(memory_format=SIDE_BY_SIDE[feature.ndim])
