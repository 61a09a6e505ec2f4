"""Depth-wise multi-kernel (DMK) encoder: convolutions of three sizes per stage, beside a transformer."""

from collections.abc import Sequence

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from torch import nn

from nnunet_attn.blocks.conv import ConvNormAct, per_axis
from nnunet_attn.blocks.layout import check_layout


def wider_kernels(channels: int, kernels: Sequence[int | Sequence[int]] = (5, 7), *, dim: int = 2) -> nn.ModuleList:
    """The depth-wise convolutions of Eq. (1), one for each kernel, given as one number or one an axis."""
    conv, sides = convert_dim_to_conv_op(dim), [per_axis(kernel, dim) for kernel in kernels]
    return nn.ModuleList(
        conv(channels, channels, side, padding=tuple(n // 2 for n in side), groups=channels) for side in sides
    )


class DepthwiseMultiKernel(nn.Module):
    """One DMK stage: half the size, three kernel sizes, one 1x1 convolution over their sum.

        L = CBR_3x3,s2(X),     Z_1 = DWConv_5x5(L),     Z_2 = DWConv_7x7(L),     F = CBR_1x1(L + Z_1 + Z_2)

    CBR is convolution - BatchNorm - ReLU.

    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / 2), ceil(W / 2)).

    >>> from nnunet_attn.blocks import DepthwiseMultiKernel
    >>> stage = DepthwiseMultiKernel(36, 72)
    >>> stage(torch.randn(2, 36, 56, 56)).shape
    torch.Size([2, 72, 28, 28])

    Reference: Liu, Xu, Ho, "FIAS: Feature Imbalance-Aware Medical Image Segmentation with Dynamic Fusion and Mixing
    Attention", ISBI 2025 (arXiv:2411.10881), Eq. (1)-(2).

    Deviations: the second line of Eq. (1) prints DWConv(L_{l-1}); Eq. (2) adds the result to L_l, which fixes L_l.
    Our choices, where the paper is silent: the size is halved in the 3x3 convolution, the only operator between the
    stages; norm and activation follow the 3x3 and the 1x1 convolution, not the depth-wise ones (the paper writes
    convolutions alone); one block per stage.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.in_channels = in_channels
        self.local = ConvNormAct(in_channels, out_channels, stride=2)
        self.wider = wider_kernels(out_channels)
        self.mix = ConvNormAct(out_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", self.in_channels, "H", "W"))
        local = self.local(x)
        return self.mix(local + sum(conv(local) for conv in self.wider))


class DepthwiseMultiKernelEncoder(nn.Module):
    """A stem that halves the size once, then one DMK stage per scale.

    Shape: (B, input_channels, H, W) -> list of (B, widths[i], ceil(H / 4 / 2^i), ceil(W / 4 / 2^i)).

    >>> from nnunet_attn.blocks import DepthwiseMultiKernelEncoder
    >>> encode = DepthwiseMultiKernelEncoder(3, (72, 144))
    >>> [tuple(x.shape) for x in encode(torch.randn(1, 3, 64, 64))]
    [(1, 72, 16, 16), (1, 144, 8, 8)]

    Deviations (our choice): the stem, CBR 3x3 with stride 2 to half of the first width. The paper has none, but its
    first stage must reach a quarter of the size, and a single 3x3 step of 4 would skip pixels.
    """

    def __init__(self, input_channels: int, widths: tuple[int, ...]):
        super().__init__()
        self.input_channels = input_channels
        stem = widths[0] // 2
        self.stem = ConvNormAct(input_channels, stem, stride=2)
        self.stages = nn.ModuleList(
            DepthwiseMultiKernel(before, width) for before, width in zip((stem, *widths[:-1]), widths, strict=True)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        check_layout(self, "input", x, ("B", self.input_channels, "H", "W"))
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
