"""What a block's attention looks at, handed out while ``nnunet_attn.maps.record_attention`` listens.

A block calls ``note`` with a function that makes its maps from what its forward pass has at hand. Without a listener,
and under torch.compile and torch.export, the function is not called: nothing is computed, kept or changed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

Point = tuple[float, ...]


@dataclass(frozen=True)
class Maps:
    """Maps of one call of a block, by what they show; the first axis is the batch.

    Attributes:
        pixel: One number a pixel, (B, *size), on the block's grid: gates, weights.
        marked: Attention of the marked pixel over its keys, (B, heads, *key grid).
        channel: One number a channel, (B, C).
        matrix: Attention between channels, (B, C, keys).
        numbers: Numbers that hold for the whole block.
        reach: Extent of the keys' grid of ``marked`` on each axis, in extents of the map: above 1 where the map's edge
            cuts the last of the windows that are keys. Empty: as the map.
    """

    pixel: dict[str, torch.Tensor] = field(default_factory=dict)
    marked: dict[str, torch.Tensor] = field(default_factory=dict)
    channel: dict[str, torch.Tensor] = field(default_factory=dict)
    matrix: dict[str, torch.Tensor] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    reach: tuple[float, ...] = ()


_listener: Callable[[nn.Module, Callable[[Point], Maps]], None] | None = None


def note(block: nn.Module, make: Callable[[Point], Maps]) -> None:
    """Offer ``make(point)``; ``point`` is the marked place, a fraction of each spatial axis."""
    if _listener is not None and not torch.compiler.is_compiling():
        with torch.no_grad():
            _listener(block, make)


@contextmanager
def listening(listener: Callable[[nn.Module, Callable[[Point], Maps]], None]) -> Iterator[None]:
    """Call ``listener(block, make)`` for each ``note`` inside."""
    global _listener  # one per process: a block cannot know who listens
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def marked_index(point: Point, grid: Sequence[int]) -> int:
    """Flat index of the cell of ``grid`` that ``point`` lies in."""
    index = 0
    for fraction, cells in zip(point, grid, strict=True):
        index = index * cells + min(int(fraction * cells), cells - 1)
    return index
