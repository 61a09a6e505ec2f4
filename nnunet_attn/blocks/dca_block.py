"""The block of DCAU-Net: depth-wise convolution, differential cross attention, MLP; 2D and 3D.

Reference: Y. Li, H. Wan, L. Lan, "DCAU-Net: Differential Cross Attention and Channel-Spatial Feature Fusion for Medical
Image Segmentation", arXiv:2603.09530 (2026), section II-B, Fig. 2.
"""

from collections.abc import Callable, Sequence

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from einops import rearrange
from torch import nn

from nnunet_attn.blocks.conv import per_axis
from nnunet_attn.blocks.differential_cross_attention import (
    DifferentialCrossAttention,
    WindowCrossAttention,
    lambda_schedule,
)
from nnunet_attn.blocks.layout import SPATIAL, check_layout, for_depthwise, layout_of
from nnunet_attn.blocks.recompute import in_turn, recomputed

ATTENTIONS = ("differential", "standard", "none")
NORMS = ("pre", "post")


def differential_attention(
    channels: int, heads: int, depth: int, *, attention: str, lambda_init: float | None = None, **options: object
) -> nn.Module | None:
    """The attention of a block: differential, its baseline "standard", or None for "none".

    Args:
        channels: C.
        heads: Differential heads.
        depth: Index of the block in its network, from 1: l of Eq. (5).
        attention: One of ``ATTENTIONS``.
        lambda_init: Fixed constant of Eq. (5) and (6); None for ``lambda_schedule(depth)``.
        options: ``window``, ``implementation`` and ``dim`` of ``WindowCrossAttention``.
    """
    if attention == "none":
        return None
    if attention == "standard":
        return WindowCrossAttention(channels, heads, **options)
    start = lambda_schedule(depth) if lambda_init is None else lambda_init
    return DifferentialCrossAttention(channels, heads, lambda_init=start, **options)


class DCABlock(nn.Module):
    """Depth-wise convolution, attention, MLP, each with its residual (Eq. 8-10, Fig. 2)::

        norm "pre":   X1 = X + DW(X),      X2 = X1 + Attention(LN(X1)),    X3 = X2 + MLP(LN(X2))
        norm "post":  X1 = LN(X + DW(X)),  X2 = LN(X1 + Attention(X1)),    X3 = LN(X2 + MLP(X2))

    Shape: (B, C, H, W) -> (B, C, H, W), or with three axes.

    Args:
        channels: C.
        attention: (B, H, W, C) -> (B, H, W, C); None leaves its branch out, with its norm.
        norm: "pre" or "post".
        kernel: Of the depth-wise convolution, one number or one an axis.
        dim: Number of spatial axes.
        recompute: Compute what attention and MLP keep again in the backward pass; norm "pre" only. Same numbers.
        zero_start: Whether ``initialize`` sets the last layer of each branch to 0, so that the block starts as the
            identity (norm "pre").

    >>> from nnunet_attn.blocks import DCABlock, DifferentialCrossAttention
    >>> block = DCABlock(64, DifferentialCrossAttention(64, heads=1, dim=3), norm="pre", dim=3)
    >>> block(torch.randn(1, 64, 8, 14, 14)).shape
    torch.Size([1, 64, 8, 14, 14])
    """

    def __init__(
        self,
        channels: int,
        attention: nn.Module | None,
        *,
        norm: str = "pre",
        kernel: int | Sequence[int] = 3,
        dim: int = 2,
        recompute: bool = False,
        zero_start: bool = False,
    ):
        super().__init__()
        self.channels, self.dim = channels, dim
        self.norm, self.recompute, self.zero_start = norm, recompute, zero_start
        sides = per_axis(kernel, dim)
        padding = tuple(side // 2 for side in sides)
        self.conv = convert_dim_to_conv_op(dim)(channels, channels, sides, padding=padding, groups=channels)
        self.norm_conv = nn.LayerNorm(channels, eps=1e-6) if norm == "post" else nn.Identity()
        self.norm_attention = nn.LayerNorm(channels, eps=1e-6) if attention is not None else None
        self.attention = attention
        self.norm_mlp = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", self.channels, *SPATIAL[self.dim]))
        layout = layout_of(x)
        x = recomputed(self.convolve, x, cheap=True) if self.recompute else self.convolve(x)
        if self.norm == "post":
            x = self.norm_conv(x)
            if self.attention is not None:
                x = self.norm_attention(x + self.attention(x))
            x = self.norm_mlp(x + self.feed(x))
        else:
            if self.attention is not None:
                x = x + self.branch(self.attend, x)
            x = x + self.branch(self.transform, x)
        return rearrange(x, "b ... c -> b c ...").contiguous(memory_format=layout)

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """Eq. (8) without its norm. (B, C, *size) -> (B, *size, C)."""
        x = for_depthwise(x)
        return rearrange(x + self.conv(x), "b c ... -> b ... c")

    def branch(self, function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return recomputed(function, x) if self.recompute else function(x)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(self.norm_attention(x))

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        return self.feed(self.norm_mlp(x))

    def feed(self, x: torch.Tensor) -> torch.Tensor:
        """The MLP, which keeps its hidden values before the activation alone."""
        expand, act, project = self.mlp
        if self.recompute:  # nothing is kept as it is
            return project(act(expand(x)))
        return recomputed(in_turn(act, project), expand(x), cheap=True)

    def initialize(self) -> None:
        """Start linear and depth-wise weights normal (0.02, cut at +-2) and biases at 0; see ``zero_start``."""
        last = [self.conv, self.mlp[2], *([self.attention.out] if self.attention is not None else [])]
        for module in (self.conv, *(m for m in self.modules() if isinstance(m, nn.Linear))):
            if self.zero_start and module in last:
                nn.init.zeros_(module.weight)
            else:
                nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
