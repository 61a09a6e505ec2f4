"""Channel-spatial feature fusion (CSFF) of an encoder's skip and the decoder's up-sampled feature.

Reference: Y. Li, H. Wan, L. Lan, "DCAU-Net: Differential Cross Attention and Channel-Spatial Feature Fusion for Medical
Image Segmentation", arXiv:2603.09530, section II-C, Eq. (11)-(19), Fig. 3.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from torch import nn

from nnunet_attn.blocks.conv import ConvNormAct, relu
from nnunet_attn.blocks.layout import SPATIAL, check_layout


def check_pair(block: "ChannelSpatialFusion | ConcatFusion", skip: torch.Tensor, x: torch.Tensor) -> None:
    """Raise ValueError unless skip and decoder feature are maps of one size and of the block's width."""
    check_layout(block, "skip", skip, ("B", block.channels, *SPATIAL[block.dim]))
    check_layout(block, "decoder feature", x, tuple(skip.shape))


class ChannelAttention(nn.Module):
    """``x * sigmoid(MLP(mean_hw x) + MLP(max_hw x))`` (Eq. 14-16), one MLP without biases for both.

    Mean and maximum are over all ``dim`` spatial axes.

    Shape: (B, C, H, W) -> (B, C, H, W), or with three axes.

    >>> from nnunet_attn.blocks import ChannelAttention
    >>> weigh = ChannelAttention(64)
    >>> weigh(torch.randn(2, 64, 28, 28)).shape
    torch.Size([2, 64, 28, 28])

    Deviations: the reduction's value is lost in the paper's text; 16 is that of the attention it builds on.
    """

    def __init__(self, channels: int, *, reduction: int = 16, dim: int = 2):
        super().__init__()
        if reduction < 1 or channels // reduction < 1:
            raise ValueError(f"reduction must lie between 1 and the {channels} channels, got {reduction}")
        self.channels, self.dim = channels, dim
        conv = convert_dim_to_conv_op(dim)
        self.axes = tuple(range(2, 2 + dim))
        self.mlp = nn.Sequential(
            conv(channels, channels // reduction, 1, bias=False),
            nn.ReLU(inplace=True),
            conv(channels // reduction, channels, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", self.channels, *SPATIAL[self.dim]))
        mean, maximum = x.mean(self.axes, keepdim=True), x.amax(self.axes, keepdim=True)
        return x * torch.sigmoid(self.mlp(mean) + self.mlp(maximum))


class SpatialAttention(nn.Module):
    """``x * sigmoid(Conv([mean_c x; max_c x]))`` (Eq. 17-19), one convolution 2 -> 1 without bias.

    Shape: (B, C, H, W) -> (B, C, H, W), or with three axes.

    >>> from nnunet_attn.blocks import SpatialAttention
    >>> weigh = SpatialAttention()
    >>> weigh(torch.randn(2, 64, 28, 28)).shape
    torch.Size([2, 64, 28, 28])

    Deviations: the kernel's size is lost in the paper's text; 7 is that of the attention it builds on.
    """

    def __init__(self, *, kernel_size: int | Sequence[int] = 7, dim: int = 2):
        super().__init__()
        self.dim = dim
        self.conv = ConvNormAct(2, 1, kernel_size, norm=None, act=None, dim=dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", "C", *SPATIAL[self.dim]))
        maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(maps))


class ChannelSpatialFusion(nn.Module):
    """CSFF: refine skip and decoder feature, join them, weigh the channels, then the pixels::

        F = CBR([CBR(skip); CBR(x)])                                       Eq. (11)-(13)
        out = SpatialAttention(ChannelAttention(F))                        Eq. (14)-(19)

    Shape: two of (B, C, H, W) -> (B, C, H, W), or with three axes.

    >>> from nnunet_attn.blocks import ChannelSpatialFusion
    >>> fuse = ChannelSpatialFusion(64)
    >>> fuse(torch.randn(2, 64, 28, 28), torch.randn(2, 64, 28, 28)).shape
    torch.Size([2, 64, 28, 28])

    Args:
        channels: C.
        channel_attention, spatial_attention: False leaves one out (ablations of Table V).
        reduction: Of the channel attention's MLP.
        dim: Number of spatial axes.
        refine_kernel, join_kernel: Of Eq. (11) and (12), and of Eq. (13); one number or one an axis.
        spatial_kernel: Of the spatial attention; one number or one an axis.
        norm, act: Of the three convolutions, see ``ConvNormAct``; without a norm they have biases.

    Deviations: the kernels of the three convolutions are lost in the paper's text; 3x3 is our choice, by the paper's
    parameter count.
    """

    def __init__(
        self,
        channels: int,
        *,
        channel_attention: bool = True,
        spatial_attention: bool = True,
        reduction: int = 16,
        dim: int = 2,
        refine_kernel: int | Sequence[int] = 3,
        join_kernel: int | Sequence[int] = 3,
        spatial_kernel: int | Sequence[int] = 7,
        norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        act: Callable[[], nn.Module] | None = relu,
    ):
        super().__init__()
        self.channels, self.dim = channels, dim
        conv = partial(ConvNormAct, bias=norm is None, norm=norm, act=act, dim=dim)
        self.refine_skip = conv(channels, channels, refine_kernel)
        self.refine_decoder = conv(channels, channels, refine_kernel)
        self.join = conv(2 * channels, channels, join_kernel)
        self.channel_attention: nn.Module = nn.Identity()
        if channel_attention:
            self.channel_attention = ChannelAttention(channels, reduction=reduction, dim=dim)
        self.spatial_attention: nn.Module = nn.Identity()
        if spatial_attention:
            self.spatial_attention = SpatialAttention(kernel_size=spatial_kernel, dim=dim)

    def forward(self, skip: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        check_pair(self, skip, x)
        fused = self.join(torch.cat([self.refine_skip(skip), self.refine_decoder(x)], dim=1))
        return self.spatial_attention(self.channel_attention(fused))


class ConcatFusion(nn.Module):
    """The U-Net's fusion, baseline of Table V: two 3x3 CBR on the concatenation.

    Shape: two of (B, C, H, W) -> (B, C, H, W).

    >>> from nnunet_attn.blocks import ConcatFusion
    >>> fuse = ConcatFusion(64)
    >>> fuse(torch.randn(2, 64, 28, 28), torch.randn(2, 64, 28, 28)).shape
    torch.Size([2, 64, 28, 28])

    Deviations: the paper does not define its baseline; this is the U-Net's double convolution.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels, self.dim = channels, 2
        self.convs = nn.Sequential(ConvNormAct(2 * channels, channels), ConvNormAct(channels, channels))

    def forward(self, skip: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        check_pair(self, skip, x)
        return self.convs(torch.cat([skip, x], dim=1))
