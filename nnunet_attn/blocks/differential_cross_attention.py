"""Differential cross attention (DCA): queries of pixels, keys of window means, and the difference of two softmax maps.

Reference: Y. Li, H. Wan, L. Lan, "DCAU-Net: Differential Cross Attention and Channel-Spatial Feature Fusion for Medical
Image Segmentation", arXiv:2603.09530, section II-A, Eq. (1)-(7); T. Ye et al., "Differential Transformer", ICLR 2025.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from nnunet_attn.blocks.conv import per_axis
from nnunet_attn.blocks.layout import SPATIAL, check_layout
from nnunet_attn.blocks.options import check_option
from nnunet_attn.blocks.precision import at_least_float32, cast, full_precision
from nnunet_attn.blocks.recompute import recomputed
from nnunet_attn.blocks.recording import Maps, Point, marked_index, note

IMPLEMENTATIONS = ("fused", "plain")


def lambda_schedule(depth: int) -> float:
    """Start of lambda in the block of index ``depth``, counted from 1: ``0.8 - 0.6 exp(-0.3 (depth - 1))``."""
    return 0.8 - 0.6 * math.exp(-0.3 * (depth - 1))


def window_summaries(x: torch.Tensor, window: int | Sequence[int]) -> torch.Tensor:
    """Means over windows of ``window`` pixels an axis, one number or one an axis, that do not overlap.

    The paper's maps are multiples of the window. At other sizes a window that the edge cuts is the mean of the
    pixels it has, and weighs as much as a full one: our choice.

    Shape: (B, H, W, C) -> (B, ceil(H / window) * ceil(W / window), C), and likewise with three axes.
    """
    dim = x.ndim - 2
    pool = F.avg_pool2d if dim == 2 else F.avg_pool3d
    sides = tuple(min(n, side) for n, side in zip(x.shape[1:-1], per_axis(window, dim), strict=True))
    means = pool(x.movedim(-1, 1), sides, ceil_mode=True, count_include_pad=False)
    return rearrange(means, "b c ... -> b (...) c")


def softmax_map(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """``softmax(q k^T / sqrt(d))`` over the keys (Eq. 3), in float32. (..., N, d), (..., M, d) -> (..., N, M).

    The product, too: queries and keys of 300 already give infinite float16 scores.
    """
    with full_precision(q.device):
        scores = (at_least_float32(q) * q.shape[-1] ** -0.5) @ at_least_float32(k).transpose(-1, -2)
        return scores.softmax(dim=-1)


class WindowCrossAttention(nn.Module):
    """Standard attention of pixels over window means: the baseline of Table IV, and what DCA is built on.

    ``2 * heads`` ordinary heads of width ``d = channels / (2 * heads)``::

        Q = X W_Q,  K = S W_K,  V = S W_V,  S = window means of X        Eq. (2)
        out = concat_j(softmax(Q_j K_j^T / sqrt(d)) V_j) W_O

    A map that fits into one window has no use of its single mean, over which every softmax is 1 and the output the same
    everywhere. There the pixels themselves are the keys ("reverts to standard differential attention").

    Shape: (B, H, W, C) -> (B, H, W, C), any H and W; with ``dim`` 3 three axes.

    >>> from nnunet_attn.blocks import WindowCrossAttention
    >>> attend = WindowCrossAttention(64, heads=2)
    >>> attend(torch.randn(2, 28, 28, 64)).shape
    torch.Size([2, 28, 28, 64])

    Args:
        channels: C.
        heads: Differential heads h, each ``2 d = C / h`` wide.
        window: Side of the windows, or one an axis; None for pixel keys at every size.
        implementation: "fused" for ``scaled_dot_product_attention``, "plain" for the formulas as they are written. Same
            weights, same numbers.
        dim: Number of spatial axes.

    Raises:
        ValueError: channels not divisible by ``2 * heads``, unknown implementation, window below 1.

    Deviations: the paper does not say what its baseline is. Ours has the same projections, the same keys and the same
    width of softmax maps as DCA, and lacks lambda, the norm of the heads and the factor ``1 - lambda_init``.
    No bias in W_Q, W_K, W_V, a bias in W_O: our choice.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        window: int | Sequence[int] | None = 7,
        implementation: str = "fused",
        dim: int = 2,
    ):
        super().__init__()
        if channels % (2 * heads):
            raise ValueError(f"channels must be a multiple of 2 * heads, got {channels} channels and {heads} heads")
        sides = None if window is None else per_axis(window, dim)
        if sides is not None and min(sides) < 1:
            raise ValueError(f"window must be at least 1 or None, got {window}")
        check_option("implementation", implementation, IMPLEMENTATIONS)
        self.channels, self.dim, self.heads = channels, dim, heads
        self.window, self.implementation = sides, implementation
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", *SPATIAL[self.dim], self.channels))
        pixels = x.flatten(1, -2)  # (B, N, C)
        if self.window is None or all(n <= side for n, side in zip(x.shape[1:-1], self.window, strict=True)):
            summary = pixels
        else:
            summary = window_summaries(x, self.window)
        query, key = self.query(pixels), self.key(summary)
        note(self, lambda point: self.attention_maps(query, key, x.shape[1:-1], point))
        return self.attend(query, key, self.value(summary)).reshape(x.shape)

    def key_grid(self, key: torch.Tensor, grid: Sequence[int]) -> tuple[int, ...]:
        """How the keys lie in space: the pixels, or their windows."""
        if self.window is None or key.shape[1] == math.prod(grid):
            return tuple(grid)
        return tuple(-(-n // side) for n, side in zip(grid, self.window, strict=True))

    def reach(self, keys: Sequence[int], grid: Sequence[int]) -> tuple[float, ...]:
        """See ``Maps``, for the grid of the keys and that of the pixels."""
        if self.window is None or tuple(keys) == tuple(grid):
            return ()
        return tuple(k * min(n, side) / n for k, n, side in zip(keys, grid, self.window, strict=True))

    def attention_maps(self, query: torch.Tensor, key: torch.Tensor, grid: Sequence[int], point: Point) -> Maps:
        """Attention of the marked pixel over the keys, (B, 2 heads, *key grid)."""
        q, k = (rearrange(t, "b n (j d) -> b j n d", j=2 * self.heads) for t in (query, key))
        row = softmax_map(q[:, :, marked_index(point, grid), None], k).squeeze(2)
        keys = self.key_grid(key, grid)
        return Maps(marked={"attention": row.unflatten(2, keys)}, reach=self.reach(keys, grid))

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """All heads, and W_O. (B, N, C), (B, M, C), (B, M, C) -> (B, N, C)."""
        q, k, v = (rearrange(t, "b n (j d) -> b j n d", j=2 * self.heads) for t in (query, key, value))
        if self.implementation == "plain":
            output = softmax_map(q, k).to(v.dtype) @ v
        else:
            output = F.scaled_dot_product_attention(q, k, v)
        return recomputed(lambda heads: self.out(rearrange(heads, "b j n d -> b n (j d)")), output, cheap=True)


class DifferentialCrossAttention(WindowCrossAttention):
    """DCA. Head i has two queries and keys of width d and one value of width 2 d::

        A_j = softmax(Q_j K_j^T / sqrt(d)),  j = 1, 2                      Eq. (3)
        O_i = (A_1 - lambda A_2) V_i                                       Eq. (4)
        lambda = exp(q_1 . k_1) - exp(q_2 . k_2) + lambda_init             Eq. (5), one per module
        O_i <- (1 - lambda_init) RMSNorm(O_i)                              Eq. (6), weight shared by the heads
        out = concat_i(O_i) W_O,  h = C / (2 d)                            Eq. (7)

    The fused form is one attention call of 2 h heads: ``A_1 V - lambda A_2 V = (A_1 - lambda A_2) V``. Queries and keys
    are filled up with zeros to the width 2 d of the values, since fused kernels want one width; the scale stays that of
    width d. No N x M map is kept for the backward pass.

    Lambda, the difference and the norm are computed in float32: squares of 256 and more overflow float16, and the norm
    would silently turn the head to zero.

    Shape: (B, H, W, C) -> (B, H, W, C), any H and W.

    >>> from nnunet_attn.blocks import DifferentialCrossAttention
    >>> attend = DifferentialCrossAttention(64, heads=2)
    >>> attend(torch.randn(2, 28, 28, 64)).shape
    torch.Size([2, 28, 28, 64])

    Args:
        lambda_init: The constant of Eq. (5) and (6): ``lambda_schedule(l)`` in the l-th block, or a fixed number for an
            ablation of Table IV. The four vectors are learned in any case.

    Deviations: where the text names a thing without numbers, they are the Differential Transformer's: start of the four
    vectors (normal, deviation 0.1), width and epsilon (1e-5) of the norm, two neighbouring maps to a head.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        lambda_init: float = 0.8,
        window: int | Sequence[int] | None = 7,
        implementation: str = "fused",
        dim: int = 2,
    ):
        super().__init__(channels, heads, window=window, implementation=implementation, dim=dim)
        self.lambda_init = lambda_init
        self.width = channels // (2 * heads)  # d
        self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (
            nn.Parameter(torch.empty(self.width)) for _ in range(4)
        )
        for vector in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2):
            nn.init.normal_(vector, std=0.1)
        self.norm = nn.RMSNorm(2 * self.width, eps=1e-5)

    def attention_lambda(self) -> torch.Tensor:
        """Eq. (5), in float32."""
        q1, k1, q2, k2 = (at_least_float32(v) for v in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2))
        return torch.exp(torch.dot(q1, k1)) - torch.exp(torch.dot(q2, k2)) + self.lambda_init

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if self.implementation == "plain":
            return self.joined(self.plain(query, key, value), value.dtype)
        return recomputed(
            lambda maps, weight: self.joined(self.difference(maps, weight), maps.dtype),
            self.fused(query, key, value),
            self.attention_lambda(),
            cheap=True,
        )

    def joined(self, heads: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Eq. (6) and (7). (B, N, h, 2 d) -> (B, N, C)."""
        weight = (1 - self.lambda_init) * at_least_float32(self.norm.weight)
        heads = F.rms_norm(heads, (2 * self.width,), weight, self.norm.eps)
        return self.out(cast(rearrange(heads, "b n h w -> b n (h w)"), dtype))

    def difference(self, maps: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Eq. (4) from A_1 V and A_2 V, (B, 2 h, N, 2 d), and lambda. Returns (B, N, h, 2 d) in float32."""
        o1, o2 = rearrange(maps, "b (h j) n w -> j b n h w", j=2)
        return at_least_float32(o1) - weight * at_least_float32(o2)

    def attention_maps(self, query: torch.Tensor, key: torch.Tensor, grid: Sequence[int], point: Point) -> Maps:
        """Of the marked pixel A_1, A_2 and their difference, (B, heads, *key grid); lambda; what the subtraction takes.

        "removed" is the share of A_1 that the subtraction takes, ``sum_m min(A_1, lambda A_2)``, and "negative" what it
        takes beyond, ``sum_m max(lambda A_2 - A_1, 0)``; of each pixel, mean of the heads.
        """
        q1, q2 = rearrange(query, "b n (h j d) -> j b h n d", j=2, d=self.width)
        k1, k2 = rearrange(key, "b m (h j d) -> j b h m d", j=2, d=self.width)
        weight, own = self.attention_lambda(), marked_index(point, grid)
        removed, negative = [], []
        for first in range(0, query.shape[1], 1024):  # all rows at once would fill the memory
            part = slice(first, first + 1024)
            a1, a2 = softmax_map(q1[:, :, part], k1), weight * softmax_map(q2[:, :, part], k2)
            removed.append(torch.minimum(a1, a2.clamp_min(0)).sum(-1).mean(1))
            negative.append((a2 - a1).clamp_min(0).sum(-1).mean(1))
        a1, a2 = softmax_map(q1[:, :, own, None], k1), softmax_map(q2[:, :, own, None], k2)
        rows = {"A1": a1, "A2": a2, "A1 - lambda A2": a1 - weight * a2}
        keys, size = self.key_grid(key, grid), tuple(grid)
        return Maps(
            pixel={
                "removed": torch.cat(removed, 1).unflatten(1, size),
                "negative": torch.cat(negative, 1).unflatten(1, size),
            },
            marked={name: row.squeeze(2).unflatten(2, keys) for name, row in rows.items()},
            numbers={"lambda": float(weight)},
            reach=self.reach(keys, size),
        )

    def plain(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Eq. (3) and (4) as written. Returns (B, N, h, 2 d) in float32."""
        q1, q2 = rearrange(query, "b n (h j d) -> j b h n d", j=2, d=self.width)
        k1, k2 = rearrange(key, "b m (h j d) -> j b h m d", j=2, d=self.width)
        v = rearrange(value, "b m (h w) -> b h m w", h=self.heads)
        a1, a2 = softmax_map(q1, k1), softmax_map(q2, k2)  # (B, h, N, M)
        with full_precision(v.device):
            output = (a1 - self.attention_lambda() * a2) @ at_least_float32(v)
        return rearrange(output, "b h n w -> b n h w")

    def fused(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """A_1 V and A_2 V of each head by one call of a fused kernel. Returns (B, 2 h, N, 2 d)."""
        q, k = (rearrange(t, "b n (j d) -> b n j d", d=self.width) for t in (query, key))
        q, k = (F.pad(t, (0, self.width)).transpose(1, 2) for t in (q, k))  # (B, 2 h, N or M, 2 d)
        v = rearrange(value, "b m (h w) -> b h m w", h=self.heads).repeat_interleave(2, dim=1)
        return F.scaled_dot_product_attention(q, k, v, scale=self.width**-0.5)
