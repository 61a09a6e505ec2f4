"""The block of DilateFormer: depth-wise convolution, attention, MLP; 2D and 3D."""

from collections.abc import Sequence

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from timm.layers import DropPath, Mlp
from torch import nn

from nnunet_attn.blocks.conv import per_axis
from nnunet_attn.blocks.layout import SPATIAL, check_layout
from nnunet_attn.blocks.recompute import in_turn, recomputed


class DilatedBlock(nn.Module):
    """``x += DWConv(x)``, then ``x += attn(LN(x))`` and ``x += MLP(LN(x))``, both with stochastic depth.

    Shape: (B, C, H, W) -> (B, C, H, W), or with three axes.

    >>> from nnunet_attn.blocks import DilatedBlock, MultiScaleDilatedAttention
    >>> block = DilatedBlock(72, MultiScaleDilatedAttention(72, heads=3))
    >>> block(torch.randn(2, 72, 28, 28)).shape
    torch.Size([2, 72, 28, 28])

    Args:
        channels: C.
        attention: (B, H, W, C) -> (B, H, W, C); None leaves its branch out, with its norm.
        drop_path: Probability of dropping a branch, per sample.
        kernel: Of the depth-wise convolution, one number or one an axis.
        dim: Number of spatial axes.
        recompute: Compute what attention and MLP keep again in the backward pass; same numbers.
    """

    def __init__(
        self,
        channels: int,
        attention: nn.Module | None,
        *,
        drop_path: float = 0.0,
        kernel: int | Sequence[int] = 3,
        dim: int = 2,
        recompute: bool = False,
    ):
        super().__init__()
        self.channels, self.dim, self.recompute = channels, dim, recompute
        sides = per_axis(kernel, dim)
        padding = tuple(side // 2 for side in sides)
        self.pos_embed = convert_dim_to_conv_op(dim)(channels, channels, sides, padding=padding, groups=channels)
        self.norm1 = nn.LayerNorm(channels, eps=1e-6) if attention is not None else nn.Identity()
        self.attn = attention
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = Mlp(channels, 4 * channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", self.channels, *SPATIAL[self.dim]))
        x = (x + self.pos_embed(x)).movedim(1, -1)  # channels last
        if self.attn is not None:
            x = x + self.drop_path(recomputed(self.attend, x) if self.recompute else self.attend(x))
        x = x + self.drop_path(recomputed(self.transform, x) if self.recompute else self.transform(x))
        return x.movedim(-1, 1)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        return self.attn(self.norm1(x))

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.mlp.fc1(self.norm2(x))
        if self.recompute:  # nothing is kept as it is
            return self.mlp.fc2(self.mlp.act(hidden))
        return recomputed(in_turn(self.mlp.act, self.mlp.fc2), hidden, cheap=True)
