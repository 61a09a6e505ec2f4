"""The two attentions of Dual Cross-Attention: over channels and over space, tokens of all levels joined.

Reference: G. C. Ates, P. Mohan, E. Celik, "Dual Cross-Attention for Medical Image Segmentation", Engineering
Applications of Artificial Intelligence 126 (2023), arXiv:2303.17696, and the authors' released code.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from nnunet_attn.blocks.feature_history import is_exporting
from nnunet_attn.blocks.layout import check_layout
from nnunet_attn.blocks.precision import full_precision
from nnunet_attn.blocks.recording import Maps, Point, marked_index, note
from nnunet_attn.blocks.shared_key_attention import shared_key_attention


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
    """What both attentions share: for each level a LayerNorm and maps of query, key, value and output."""

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

    def attention_maps(
        self, normed: list[torch.Tensor], joint: torch.Tensor, grid: Sequence[int], point: Point
    ) -> Maps:
        """What is recorded of a call."""
        raise NotImplementedError

    def forward(self, tokens: Sequence[torch.Tensor], grid: Sequence[int] = ()) -> list[torch.Tensor]:
        """``grid``: how the tokens lie in space; only maps that are recorded need it."""
        for level, (t, width) in enumerate(zip(tokens, self.channels, strict=True)):
            check_layout(self, f"tokens of level {level}", t, ("B", "P", width))
        normed = [norm(t) for norm, t in zip(self.norms, tokens, strict=True)]
        joint = torch.cat(normed, dim=2)
        note(self, lambda point: self.attention_maps(normed, joint, grid or joint.shape[1:2], point))
        attend = self.plain if self.implementation == "plain" else self.folded
        return attend(normed, joint)


class ChannelCrossAttention(CrossAttention):
    """CCA: the channels of one level are the queries, the channels of all levels the keys. For each level i::

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

    def forward(self, tokens: Sequence[torch.Tensor], grid: Sequence[int] = ()) -> list[torch.Tensor]:
        with full_precision(tokens[0].device):
            return super().forward(tokens, grid)

    def attention_maps(
        self, normed: list[torch.Tensor], joint: torch.Tensor, grid: Sequence[int], point: Point
    ) -> Maps:
        """A of each level, (B, C_i, S)."""
        return Maps(matrix={f"level {i}": a for i, a in enumerate(self.channel_attention(normed, joint))})

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

    def channel_attention(self, normed: list[torch.Tensor], joint: torch.Tensor) -> Iterator[torch.Tensor]:
        """A of each level from the Gram matrix, (B, C_i, S); channels of other heads get 0."""
        count, scale = joint.shape[1], self.query_scale(joint.shape[1])
        gram, total = joint.transpose(1, 2) @ joint, joint.sum(dim=1)  # (B, S, S), (B, S)
        channels = [t.shape[2] for t in normed]
        for rows, own, maps in zip(gram.split(channels, 1), total.split(channels, 1), self.maps, strict=True):
            wq, bq = scale * maps.query.weight[:, None], scale * maps.query.bias[:, None]  # (C_i, 1)
            logits = (wq * maps.key.weight) * rows + (bq * maps.key.weight) * total[:, None]
            logits = logits + maps.key.bias * (wq * own[:, :, None] + count * bq)  # (B, C_i, S)
            if self.heads > 1:
                logits = logits.masked_fill(self.other_heads(logits), -math.inf)
            yield logits.softmax(dim=2)

    def folded(self, normed: list[torch.Tensor], joint: torch.Tensor) -> list[torch.Tensor]:
        updates = []
        for attention, maps in zip(self.channel_attention(normed, joint), self.maps, strict=True):
            mixing = attention * (maps.output.weight[:, None] * maps.value.weight)
            offset = maps.output(attention @ maps.value.bias)
            updates.append(torch.baddbmm(offset[:, None], joint, mixing.transpose(1, 2)))
        return updates

    def other_heads(self, logits: torch.Tensor) -> torch.Tensor:
        """(C_i, S): whether a query's channel (row) and a key's (column) belong to different heads."""
        rows, columns = (torch.arange(n, device=logits.device) * self.heads // n for n in logits.shape[1:])
        return rows[:, None] != columns


class SpatialCrossAttention(CrossAttention):
    """SCA: positions attend to positions; queries and keys of all levels, values of one. For each level i and head::

        N_j = LN_j(T_j),  N = [N_0, ..., N_{L-1}]                   (P, S)
        q = wq_i N + bq_i,  k = wk_i N + bk_i,  v = wv_i N_i + bv_i
        A = softmax(q k^T / sqrt(S / h))                            (P, P)
        out_i = wo_i concat_h(A v) + bo_i                           (P, C_i)

    The folded form has the queries ``(wq wk) N + bq wk``, so that N itself is the key of every level: ``bk`` adds one
    number to a whole row of logits and drops out of the softmax (it stays registered, without gradient). Since rows of
    A sum to 1, value and output maps become one, ``wo wv (A N_i) + wo bv + bo``. On a CPU ``A N_i`` is an operator with
    a backward pass of its own, ``shared_key_attention``. On a GPU, and for export, the queries of all levels make one
    call of ``scaled_dot_product_attention``, in which every head carries the values of all levels side by side and each
    level takes its own: as wide as the keys, which fused kernels want. Neither keeps a P x P map.

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

    def attention_maps(
        self, normed: list[torch.Tensor], joint: torch.Tensor, grid: Sequence[int], point: Point
    ) -> Maps:
        """The marked token's row of A for each level, (B, h, *grid)."""
        queries, k = self.queries(joint), rearrange(joint, "b p (h d) -> b h p d", h=self.heads)
        marked = {}
        for level in range(len(normed)):
            q = rearrange(queries[:, level, marked_index(point, grid)], "b (h d) -> b h 1 d", h=self.heads)
            row = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(dim=3)
            marked[f"level {level}"] = row.unflatten(3, tuple(grid)).squeeze(2)
        return Maps(marked=marked)

    def query_maps(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of each level's queries, with the weights of its keys folded in; twice (L, S)."""
        levels: list[Any] = [*self.maps]
        wk = torch.stack([maps.key.weight for maps in levels])
        wq = torch.stack([maps.query.weight for maps in levels]) * wk
        bq = torch.stack([maps.query.bias for maps in levels]) * wk
        return wq, bq

    def queries(self, joint: torch.Tensor) -> torch.Tensor:
        """The queries of each level. (B, P, S) -> (B, L, P, S)."""
        wq, bq = self.query_maps()
        return torch.addcmul(bq[:, None], joint[:, None], wq[:, None])

    def folded(self, normed: list[torch.Tensor], joint: torch.Tensor) -> list[torch.Tensor]:
        fused = joint.device.type == "cuda" or is_exporting()
        attended = self.fused(normed, joint) if fused else self.streamed(joint)
        updates = []
        for own, maps in zip(attended, self.maps, strict=True):
            weight, bias = maps.output.weight * maps.value.weight, maps.output.weight * maps.value.bias
            updates.append(torch.addcmul(bias + maps.output.bias, own, weight))
        return updates

    def streamed(self, joint: torch.Tensor) -> Sequence[torch.Tensor]:
        """``A N_i`` of each level by the operator. (B, P, S) -> list of (B, P, C_i)."""
        weight, bias = ((self.total // self.heads) ** -0.5 * t.to(joint.dtype) for t in self.query_maps())
        return shared_key_attention(joint, weight, bias, self.channels, self.heads).split(self.channels, dim=2)

    def fused(self, normed: list[torch.Tensor], joint: torch.Tensor) -> Sequence[torch.Tensor]:
        """The same by one call of a fused kernel."""
        q = rearrange(self.queries(joint), "b l p (h d) -> b h (l p) d", h=self.heads)
        k = rearrange(joint, "b p (h d) -> b h p d", h=self.heads)
        v = torch.cat([rearrange(t, "b p (h d) -> b h p d", h=self.heads) for t in normed], dim=3)
        levels = F.scaled_dot_product_attention(q, k, v).chunk(len(normed), dim=2)
        widths = [t.shape[2] // self.heads for t in normed]
        own = [level.split(widths, dim=3)[i] for i, level in enumerate(levels)]
        return [rearrange(o, "b h p d -> b p (h d)").to(joint.dtype) for o in own]
