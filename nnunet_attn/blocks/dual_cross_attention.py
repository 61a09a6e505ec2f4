"""Dual Cross-Attention (DCA): the skips of a U-Net attend to each other, over channels, then over space.

Reference: G. C. Ates, P. Mohan, E. Celik, "Dual Cross-Attention for Medical Image Segmentation", Engineering
Applications of Artificial Intelligence 126 (2023), arXiv:2303.17696, and the authors' released code.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from nnunet_attn.blocks.cross_attention import (
    ChannelAffine,
    ChannelCrossAttention,
    CrossAttention,
    SpatialCrossAttention,
)
from nnunet_attn.blocks.layout import check_layout
from nnunet_attn.blocks.options import check_option
from nnunet_attn.blocks.padding import pad_to
from nnunet_attn.blocks.precision import at_least_float32
from nnunet_attn.blocks.recompute import recomputed

IMPLEMENTATIONS = ("folded", "plain")
CHANNEL_SCALES = ("paper", "ref784")
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


class DualCrossAttentionBlock(nn.Module):
    """``T_i <- T_i + CCA_i(T)``, then ``T_i <- T_i + SCA_i(T)``. Shape: list of (B, P, C_i) -> list of (B, P, C_i)."""

    def __init__(self, attentions: Sequence[CrossAttention]):
        super().__init__()
        self.attentions = nn.ModuleList(attentions)

    def forward(self, tokens: list[torch.Tensor], grid: Sequence[int] = ()) -> list[torch.Tensor]:
        for attention in self.attentions:
            tokens = [t + update for t, update in zip(tokens, attention(tokens, grid), strict=True)]
        return tokens


class DualCrossAttention(nn.Module):
    """DCA between encoder and decoder: all skips become tokens of one grid, attend to each other, and come back::

        T_i = w_i AvgPool_{p_i}(E_i) + b_i                          patch embedding, (P, C_i)
        T   = CCA and SCA with residuals, n times
        out_i = act(norm_i(Conv1x1_i(Up(T_i)) + E_i))               Up: (bi-, tri-)linear with aligned corners

    The folded form projects before it enlarges (a 1x1 convolution commutes with interpolation, whose weights sum to 1).

    Shape: list of (B, C_i, *size_i) -> list of the same shapes. Any sizes that meet on one grid: a level is padded at
    the end of its axes with its last values to a multiple of p_i, and cropped on the way back.

    >>> from nnunet_attn.blocks import DualCrossAttention
    >>> skips = [torch.randn(1, 32, 64, 64), torch.randn(1, 64, 32, 32)]
    >>> dca = DualCrossAttention([32, 64], pool=[(8, 8), (4, 4)])
    >>> [tuple(x.shape) for x in dca(skips)]
    [(1, 32, 64, 64), (1, 64, 32, 32)]

    Args:
        channels: C_i of each level, fine to coarse.
        pool: p_i of each level, one number per spatial axis; doubled at once for all levels while they make more than
            ``coarsen_above`` tokens.
        blocks: n; 1 in all experiments.
        channel_heads, spatial_heads: Heads of the two attentions.
        channel_attention, spatial_attention: False leaves one out (ablation).
        channel_scale: "paper" or "ref784", see ``ChannelCrossAttention``.
        coarsen_above: Number of tokens above which pools double, our choice; the published setting has 784, or 3136
            for ResUNet++.
        norm: Makes the closing norm from the number of channels; None for BatchNorm.
        act: Makes the closing activation.
        implementation: "folded", or "plain" for the formulas as they stand above.

    Raises:
        ValueError: at construction, wrong heads, levels or names; in ``forward``, skips that do not fit.

    Parameters without gradient: the SCA's key biases (``requires_grad=False``). Biases that add one number to a channel
    everywhere vanish in the closing norm: ``project``, and of the last attention ``output``, of the SCA also ``value``.

    Reference: Fig. 2 and the released code, whose state dict maps in order onto ours. ``avg_map.i.proj.depthwise`` ->
    ``embed.i``; ``attention.b.{channel_norm,spatial_norm}.i`` -> ``blocks.b.attentions.{0,1}.norms.i``;
    ``attention.b.{c_attention,s_attention}.i.{q_map,k_map,v_map,projection}.proj.depthwise`` ->
    ``blocks.b.attentions.{0,1}.maps.i.{query,key,value,output}``; ``upconvs.i.conv.conv`` -> ``project.i``;
    ``bn_relu.i.0`` -> ``close.i.0``. Convolution weights lose their axes of size 1.

    Deviations: sizes other than the square one given to the constructor, where the released code stops; the cap on
    tokens. The figure's LayerNorm and GELU behind the attention are left out, as in the released code.
    """

    def __init__(
        self,
        channels: Sequence[int],
        pool: Sequence[Sequence[int]],
        *,
        blocks: int = 1,
        channel_heads: int = 1,
        spatial_heads: int = 4,
        channel_attention: bool = True,
        spatial_attention: bool = True,
        channel_scale: str = "paper",
        coarsen_above: int = 4096,
        norm: Callable[[int], nn.Module] | None = None,
        act: Callable[[], nn.Module] = nn.ReLU,
        implementation: str = "folded",
    ):
        super().__init__()
        if len(channels) != len(pool) or len({len(p) for p in pool}) != 1 or not 1 <= len(pool[0]) <= 3:
            raise ValueError(
                "channels and pool must have one entry per level, each of pool one per axis; got "
                f"{[*channels]}, {[*pool]}"
            )
        check_option("implementation", implementation, IMPLEMENTATIONS)
        check_option("channel_scale", channel_scale, CHANNEL_SCALES)
        if blocks < 1 or coarsen_above < 1:
            raise ValueError(f"blocks and coarsen_above must be at least 1, got {blocks} and {coarsen_above}")
        self.channels, self.pool = tuple(channels), tuple(tuple(p) for p in pool)
        self.dimensions, self.coarsen_above, self.implementation = len(pool[0]), coarsen_above, implementation
        norm = norm or BATCH_NORM[self.dimensions]

        def attentions() -> list[CrossAttention]:
            channel = ChannelCrossAttention(channels, channel_heads, scale=channel_scale, implementation=implementation)
            spatial = SpatialCrossAttention(channels, spatial_heads, implementation=implementation)
            return [channel] * channel_attention + [spatial] * spatial_attention

        self.embed = nn.ModuleList(ChannelAffine(c) for c in channels)
        self.blocks = nn.ModuleList(DualCrossAttentionBlock(attentions()) for _ in range(blocks))
        self.project = nn.ModuleList(nn.Linear(c, c) for c in channels)
        self.close = nn.ModuleList(nn.Sequential(norm(c), act()) for c in channels)
        for _, activation in self.close:
            if getattr(activation, "inplace", False):  # in place of an instance norm's output, a view, copies it
                activation.inplace = False

    def forward(self, skips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        pool, grid = self.token_grid([s.shape[2:] for s in skips])
        for level, (skip, width) in enumerate(zip(skips, self.channels, strict=True)):
            check_layout(self, f"skip {level}", skip, ("B", width, *skip.shape[2:]))
        tokens = [embed(self.pooled(s, p, grid)) for embed, s, p in zip(self.embed, skips, pool, strict=True)]
        for block in self.blocks:
            tokens = block(tokens, grid)
        return [
            recomputed(partial(self.closed, level, p, grid), t, skip, within=self.close[level])
            for level, (t, p, skip) in enumerate(zip(tokens, pool, skips, strict=True))
        ]

    def closed(
        self, level: int, pool: tuple[int, ...], grid: tuple[int, ...], tokens: torch.Tensor, skip: torch.Tensor
    ) -> torch.Tensor:
        """``out_i`` of one level."""
        return self.close[level](self.back(tokens, self.project[level], pool, grid, skip) + skip)

    def token_grid(self, sizes: Sequence[Sequence[int]]) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
        """Pooling of each level and size of the token grid, for skips of the given spatial sizes."""
        if len(sizes) != len(self.pool) or any(len(s) != self.dimensions for s in sizes):
            raise ValueError(
                f"expected {len(self.pool)} skips with {self.dimensions} axes, got sizes {[tuple(s) for s in sizes]}"
            )
        pool = list(self.pool)
        grids = cells(sizes, pool)
        while max(math.prod(g) for g in grids) > self.coarsen_above:
            pool = [tuple(2 * p for p in level) for level in pool]
            grids = cells(sizes, pool)
        if any(max(axis) - min(axis) > 1 for axis in zip(*grids, strict=True)):
            raise ValueError(
                f"skips of sizes {[tuple(s) for s in sizes]}, pooled by {pool}, give different token grids {grids}"
            )
        return pool, tuple(max(axis) for axis in zip(*grids, strict=True))

    def pooled(self, skip: torch.Tensor, pool: tuple[int, ...], grid: tuple[int, ...]) -> torch.Tensor:
        """Means over windows as tokens, at least in float32. (B, C, *size) -> (B, P, C)."""
        skip = pad_to(skip, [g * p for g, p in zip(grid, pool, strict=True)])
        for axis in range(self.dimensions, 0, -1):  # unlike avg_pool, a mean keeps nothing for the backward pass
            if pool[axis - 1] > 1:
                skip = skip.unflatten(axis + 1, (-1, pool[axis - 1])).mean(axis + 2)
        return at_least_float32(skip.flatten(2).transpose(1, 2)).contiguous()

    def back(
        self,
        tokens: torch.Tensor,
        project: nn.Linear,
        pool: tuple[int, ...],
        grid: tuple[int, ...],
        skip: torch.Tensor,
    ) -> torch.Tensor:
        """Tokens as a map of the size and type of ``skip``. (B, P, C) -> (B, C, *size)."""
        plain = self.implementation == "plain"
        maps = (tokens if plain else project(tokens)).transpose(1, 2).unflatten(2, grid)
        maps = self.enlarged(maps.to(skip.dtype).contiguous(), pool)
        if plain:
            maps = CONVOLUTION[self.dimensions](maps, project.weight[(..., *[None] * self.dimensions)], project.bias)
        return maps[(..., *(slice(n) for n in skip.shape[2:]))]

    def enlarged(self, x: torch.Tensor, pool: tuple[int, ...]) -> torch.Tensor:
        """(B, C, *grid) -> (B, C, *(grid * pool))."""
        if all(p == 1 for p in pool):
            return x
        size = [n * p for n, p in zip(x.shape[2:], pool, strict=True)]
        return F.interpolate(x, size, mode=INTERPOLATION[self.dimensions], align_corners=True)


def cells(sizes: Sequence[Sequence[int]], pool: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Size of each level's token grid; a cell that the border cuts counts as a whole one."""
    return [tuple(-(-n // p) for n, p in zip(s, level, strict=True)) for s, level in zip(sizes, pool, strict=True)]
