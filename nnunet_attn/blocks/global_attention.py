"""Multi-head self-attention over all pixels of a map."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from nnunet_attn.blocks.layout import SPATIAL, check_layout
from nnunet_attn.blocks.recording import Maps, Point, marked_index, note


def at_width_of_8(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention with heads padded by zeros to a multiple of 8, which changes nothing.

    In half precision, torch's fused kernel for GPUs before Ampere takes no other width; without it the N x N matrix
    would be made. Shapes: (B, heads, N, d), (B, heads, M, d) twice -> (B, heads, N, d).
    """
    width = q.shape[-1]
    wide = (F.pad(t, (0, -width % 8)) for t in (q, k, v))
    return F.scaled_dot_product_attention(*wide, scale=width**-0.5)[..., :width]


class GlobalAttention(nn.Module):
    """Each pixel attends to all pixels, by torch's fused attention (no N x N matrix in memory).

        q, k, v = Linear(x),      o = softmax(q k^T / sqrt(d)) v,      y = Linear(o)

    Shape: (B, H, W, channels) -> (B, H, W, channels), any H and W.

    >>> from nnunet_attn.blocks import GlobalAttention
    >>> attend = GlobalAttention(64, heads=4)
    >>> attend(torch.randn(2, 14, 14, 64)).shape
    torch.Size([2, 14, 14, 64])

    Args:
        channels: Channels of input and output.
        heads: Attention heads; must divide ``channels``.
        sr_ratio: Side of the windows over which keys and values are averaged first; 1 is plain attention. The cost
            falls by its square. Windows at the border are cut, not padded.
        dim: Number of spatial axes.

    Raises:
        ValueError: ``heads`` does not divide ``channels``, or ``sr_ratio`` is below 1.
    """

    def __init__(self, channels: int, heads: int, *, sr_ratio: int = 1, dim: int = 2):
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads must divide the channels, got {heads} heads for {channels} channels")
        if sr_ratio < 1:
            raise ValueError(f"sr_ratio must be at least 1, got {sr_ratio}")
        self.channels, self.dim, self.heads, self.sr_ratio = channels, dim, heads, sr_ratio
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", *SPATIAL[self.dim], self.channels))
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.sr_ratio > 1:
            k, v = (self.averaged(y) for y in (k, v))
        q, k, v = (y.flatten(1, -2).unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))
        note(self, lambda point: self.attention_maps(q, k, x.shape[1:-1], point))
        out = at_width_of_8(q, k, v) if q.is_cuda else F.scaled_dot_product_attention(q, k, v)  # (B, heads, N, d)
        return self.proj(out.transpose(1, 2).reshape(x.shape))

    def attention_maps(self, q: torch.Tensor, k: torch.Tensor, grid: Sequence[int], point: Point) -> Maps:
        """Attention of the marked pixel, (B, heads, *grid of the keys). q (B, heads, N, d), k (B, heads, M, d)."""
        own = q[:, :, marked_index(point, grid), None]
        row = (own * own.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(dim=3).squeeze(2)
        keys = tuple(-(-n // self.sr_ratio) for n in grid)
        reach = tuple(k * self.sr_ratio / n for k, n in zip(keys, grid, strict=True))
        return Maps(marked={"attention": row.unflatten(2, keys)}, reach=reach)

    def averaged(self, x: torch.Tensor) -> torch.Tensor:
        """Means over windows of ``sr_ratio``; they commute with the projection, which is linear."""
        pool = F.avg_pool2d if self.dim == 2 else F.avg_pool3d
        return pool(x.movedim(-1, 1), self.sr_ratio, ceil_mode=True).movedim(1, -1)
