"""Dual Cross-Attention (DCA): the skips of a U-Net attend to each other, over channels, then over space.

Reference: G. C. Ates, P. Mohan, E. Celik, "Dual Cross-Attention for Medical Image Segmentation", Engineering
Applications of Artificial Intelligence 126 (2023), arXiv:2303.17696, and the authors' released code.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from nnunet_attn.blocks.layout import check_layout
from nnunet_attn.blocks.options import check_option
from nnunet_attn.blocks.padding import pad_to
from nnunet_attn.blocks.precision import full_precision

IMPLEMENTATIONS = ("folded", "plain")
CHANNEL_SCALES = ("paper", "ref784")
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


class ChannelAffine(nn.Module):
    """``w * x + b`` per channel: a depth-wise 1x1 convolution on tokens, with the uniform start in [-1, 1] of one.

    No ``nn.Conv``, so that nnU-Net's He initialisation of convolutions leaves it alone.

    Shape: (..., C) -> (..., C).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.bias, x, self.weight)


class AttentionMaps(nn.Module):
    """The four per-channel maps of one level's attention."""

    def __init__(self, query: int, key: int, value: int, output: int):
        super().__init__()
        self.query = ChannelAffine(query)
        self.key = ChannelAffine(key)
        self.value = ChannelAffine(value)
        self.output = ChannelAffine(output)


class CrossAttention(nn.Module):
    """What both attentions share: a LayerNorm per level, and own maps per level."""

    def __init__(self, channels: Sequence[int], heads: int, implementation: str):
        super().__init__()
        if any(c % heads for c in channels):
            raise ValueError(
                f"channels must be multiples of the {heads} heads of {type(self).__name__}, got {[*channels]}"
            )
        self.heads, self.implementation = heads, implementation
        self.channels = tuple(channels)
        self.total = sum(channels)  # S
        self.norms = nn.ModuleList(nn.LayerNorm(c, eps=1e-6) for c in channels)

    def forward(self, tokens: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        for level, (t, width) in enumerate(zip(tokens, self.channels, strict=True)):
            check_layout(self, f"tokens of level {level}", t, ("B", "P", width))
        normed = [norm(t) for norm, t in zip(self.norms, tokens, strict=True)]
        attend = self.plain if self.implementation == "plain" else self.folded
        return attend(normed, torch.cat(normed, dim=2))


class ChannelCrossAttention(CrossAttention):
    """CCA: the channels of one level ask, the channels of all levels answer. For each level i::

        N_j = LN_j(T_j),  N = [N_0, ..., N_{L-1}]                   (P, S)
        q = wq_i N_i + bq_i,  k = wk_i N + bk_i,  v = wv_i N + bv_i
        A = softmax(q^T k / sqrt(S))                                (C_i, S)
        out_i = wo_i (A v^T)^T + bo_i                               (P, C_i)

    The folded form needs one Gram matrix ``G = N^T N`` and no maps of keys and values: with ``s = sum_p N_p``, query
    channel c of level i and key channel c', ``q_c . k_c' = wk_i[c'] (wq[c] G[c, c'] + bq[c] s[c']) + bk_i[c'] (wq[c]
    s[c] + P bq[c])``, and ``out = N (A * wv * wo)^T + wo (A bv) + bo``. Both forms run in float32 and scale the query
    first: the product runs over P tokens and nearly reaches the largest float16 already at initialisation.

    Shape: list of (B, P, C_i) -> list of (B, P, C_i).

    >>> from nnunet_attn.blocks import ChannelCrossAttention
    >>> attend = ChannelCrossAttention([32, 64])
    >>> [tuple(x.shape) for x in attend([torch.randn(1, 49, 32), torch.randn(1, 49, 64)])]
    [(1, 49, 32), (1, 49, 64)]

    Args:
        channels: C_i of each level.
        heads: Contiguous blocks of channels, C_i / heads of the query against S / heads of the keys; 1 in all
            experiments.
        scale: "paper": 1 / sqrt(S), although the product grows with the number of tokens P; "ref784": times 784 / P,
            the published setting at every size (our option).
        implementation: "folded" or "plain".
    """

    def __init__(
        self, channels: Sequence[int], heads: int = 1, *, scale: str = "paper", implementation: str = "folded"
    ):
        super().__init__(channels, heads, implementation)
        self.scale = scale
        self.maps = nn.ModuleList(AttentionMaps(c, self.total, self.total, c) for c in channels)

    def forward(self, tokens: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        with full_precision(tokens[0].device):
            return super().forward(tokens)

    def query_scale(self, count: int) -> float:
        return self.total**-0.5 * (784 / count if self.scale == "ref784" else 1)

    def plain(self, normed: list[torch.Tensor], joint: torch.Tensor) -> list[torch.Tensor]:
        heads = partial(rearrange, pattern="b p (h c) -> b h c p", h=self.heads)
        updates = []
        for tokens, maps in zip(normed, self.maps, strict=True):
            q, k, v = heads(maps.query(tokens)), heads(maps.key(joint)), heads(maps.value(joint))
            attention = (self.query_scale(joint.shape[1]) * q @ k.transpose(2, 3)).softmax(dim=3)
            updates.append(maps.output(rearrange(attention @ v, "b h c p -> b p (h c)")))
        return updates

    def folded(self, normed: list[torch.Tensor], joint: torch.Tensor) -> list[torch.Tensor]:
        count, scale = joint.shape[1], self.query_scale(joint.shape[1])
        gram, total = joint.transpose(1, 2) @ joint, joint.sum(dim=1)  # (B, S, S), (B, S)
        channels = [t.shape[2] for t in normed]
        updates = []
        for rows, own, maps in zip(gram.split(channels, 1), total.split(channels, 1), self.maps, strict=True):
            wq, bq = scale * maps.query.weight[:, None], scale * maps.query.bias[:, None]  # (C_i, 1)
            logits = (wq * maps.key.weight) * rows + (bq * maps.key.weight) * total[:, None]
            logits = logits + maps.key.bias * (wq * own[:, :, None] + count * bq)  # (B, C_i, S)
            if self.heads > 1:
                logits = logits.masked_fill(self.other_heads(logits), -math.inf)
            attention = logits.softmax(dim=2)
            mixing = attention * (maps.output.weight[:, None] * maps.value.weight)
            offset = maps.output(attention @ maps.value.bias)
            updates.append(torch.baddbmm(offset[:, None], joint, mixing.transpose(1, 2)))
        return updates

    def other_heads(self, logits: torch.Tensor) -> torch.Tensor:
        """(C_i, S): whether a query's channel (row) and a key's (column) belong to different heads."""
        rows, columns = (torch.arange(n, device=logits.device) * self.heads // n for n in logits.shape[1:])
        return rows[:, None] != columns


class SpatialCrossAttention(CrossAttention):
    """SCA: all levels together ask and answer where, each level gives the values. For each level i and each head::

        N_j = LN_j(T_j),  N = [N_0, ..., N_{L-1}]                   (P, S)
        q = wq_i N + bq_i,  k = wk_i N + bk_i,  v = wv_i N_i + bv_i
        A = softmax(q k^T / sqrt(S / h))                            (P, P)
        out_i = wo_i concat_h(A v) + bo_i                           (P, C_i)

    The folded form asks with ``(wq wk) N + bq wk``, so that N itself is the key of every level: ``bk`` adds one number
    to a whole row of logits and drops out of the softmax (it stays registered, without gradient). Since rows of A sum
    to 1, value and output maps become one, ``wo wv (A N_i) + wo bv + bo``. Keys and values shared, the queries of all
    levels make one call of ``scaled_dot_product_attention``, in which every head carries the values of all levels side
    by side and each level takes its own: as wide as the keys, which fused kernels want, and no P x P map is ever
    stored.

    Shape: list of (B, P, C_i) -> list of (B, P, C_i).

    >>> from nnunet_attn.blocks import SpatialCrossAttention
    >>> attend = SpatialCrossAttention([32, 64])
    >>> [tuple(x.shape) for x in attend([torch.randn(1, 49, 32), torch.randn(1, 49, 64)])]
    [(1, 49, 32), (1, 49, 64)]

    Args:
        channels: C_i of each level.
        heads: Contiguous blocks of channels, S / heads of queries and keys, C_i / heads of the values.
        implementation: "folded" or "plain".
    """

    def __init__(self, channels: Sequence[int], heads: int = 4, *, implementation: str = "folded"):
        super().__init__(channels, heads, implementation)
        self.maps = nn.ModuleList(AttentionMaps(self.total, self.total, c, c) for c in channels)
        for maps in self.maps:
            maps.key.bias.requires_grad_(False)

    def plain(self, normed: list[torch.Tensor], joint: torch.Tensor) -> list[torch.Tensor]:
        heads = partial(rearrange, pattern="b p (h d) -> b h p d", h=self.heads)
        scale = (self.total // self.heads) ** -0.5
        updates = []
        for tokens, maps in zip(normed, self.maps, strict=True):
            q, k, v = heads(maps.query(joint)), heads(maps.key(joint)), heads(maps.value(tokens))
            attention = (scale * q @ k.transpose(2, 3)).softmax(dim=3)
            updates.append(maps.output(rearrange(attention @ v, "b h p d -> b p (h d)")))
        return updates

    def folded(self, normed: list[torch.Tensor], joint: torch.Tensor) -> list[torch.Tensor]:
        levels: list[Any] = [*self.maps]
        wk = torch.stack([maps.key.weight for maps in levels])  # (L, S)
        wq = torch.stack([maps.query.weight for maps in levels]) * wk
        bq = torch.stack([maps.query.bias for maps in levels]) * wk
        queries = torch.addcmul(bq[:, None], joint[:, None], wq[:, None])  # (B, L, P, S)
        q = rearrange(queries, "b l p (h d) -> b h (l p) d", h=self.heads)
        k = rearrange(joint, "b p (h d) -> b h p d", h=self.heads)
        v = torch.cat([rearrange(t, "b p (h d) -> b h p d", h=self.heads) for t in normed], dim=3)
        attended = F.scaled_dot_product_attention(q, k, v).chunk(len(normed), dim=2)
        updates, first = [], 0
        for tokens, maps, level in zip(normed, levels, attended, strict=True):
            width = tokens.shape[2] // self.heads
            own = rearrange(level[..., first : first + width], "b h p d -> b p (h d)").to(tokens.dtype)
            weight, bias = maps.output.weight * maps.value.weight, maps.output.weight * maps.value.bias
            updates.append(torch.addcmul(bias + maps.output.bias, own, weight))
            first += width
        return updates


class DualCrossAttentionBlock(nn.Module):
    """``T_i <- T_i + CCA_i(T)``, then ``T_i <- T_i + SCA_i(T)``. Shape: list of (B, P, C_i) -> list of (B, P, C_i)."""

    def __init__(self, attentions: Sequence[CrossAttention]):
        super().__init__()
        self.attentions = nn.ModuleList(attentions)

    def forward(self, tokens: list[torch.Tensor]) -> list[torch.Tensor]:
        for attention in self.attentions:
            tokens = [t + update for t, update in zip(tokens, attention(tokens), strict=True)]
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
            ``max_tokens`` tokens.
        blocks: n; 1 in all experiments.
        channel_heads, spatial_heads: Heads of the two attentions.
        channel_attention, spatial_attention: False leaves one out (ablation).
        channel_scale: "paper" or "ref784", see ``ChannelCrossAttention``.
        max_tokens: Largest number of tokens, our choice; the published setting has 784, or 3136 for ResUNet++.
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
        max_tokens: int = 4096,
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
        if blocks < 1 or max_tokens < 1:
            raise ValueError(f"blocks and max_tokens must be at least 1, got {blocks} and {max_tokens}")
        self.channels, self.pool = tuple(channels), tuple(tuple(p) for p in pool)
        self.dimensions, self.max_tokens, self.implementation = len(pool[0]), max_tokens, implementation
        norm = norm or BATCH_NORM[self.dimensions]

        def attentions() -> list[CrossAttention]:
            channel = ChannelCrossAttention(channels, channel_heads, scale=channel_scale, implementation=implementation)
            spatial = SpatialCrossAttention(channels, spatial_heads, implementation=implementation)
            return [channel] * channel_attention + [spatial] * spatial_attention

        self.embed = nn.ModuleList(ChannelAffine(c) for c in channels)
        self.blocks = nn.ModuleList(DualCrossAttentionBlock(attentions()) for _ in range(blocks))
        self.project = nn.ModuleList(nn.Linear(c, c) for c in channels)
        self.close = nn.ModuleList(nn.Sequential(norm(c), act()) for c in channels)

    def forward(self, skips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        pool, grid = self.token_grid([s.shape[2:] for s in skips])
        for level, (skip, width) in enumerate(zip(skips, self.channels, strict=True)):
            check_layout(self, f"skip {level}", skip, ("B", width, *skip.shape[2:]))
        tokens = [embed(self.pooled(s, p, grid)) for embed, s, p in zip(self.embed, skips, pool, strict=True)]
        for block in self.blocks:
            tokens = block(tokens)
        return [
            close(self.back(t, project, p, grid, skip) + skip)
            for close, t, project, p, skip in zip(self.close, tokens, self.project, pool, skips, strict=True)
        ]

    def token_grid(self, sizes: Sequence[Sequence[int]]) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
        """Pooling of each level and size of the token grid, for skips of the given spatial sizes."""
        if len(sizes) != len(self.pool) or any(len(s) != self.dimensions for s in sizes):
            raise ValueError(
                f"expected {len(self.pool)} skips with {self.dimensions} axes, got sizes {[tuple(s) for s in sizes]}"
            )
        pool = list(self.pool)
        grids = cells(sizes, pool)
        while max(math.prod(g) for g in grids) > self.max_tokens:
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
        return skip.flatten(2).transpose(1, 2).to(torch.promote_types(skip.dtype, torch.float32)).contiguous()

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
    """Token grid of each level on its own, begun cells included."""
    return [tuple(-(-n // p) for n, p in zip(s, level, strict=True)) for s, level in zip(sizes, pool, strict=True)]
