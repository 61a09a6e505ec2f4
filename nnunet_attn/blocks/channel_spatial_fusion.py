"""Channel-spatial feature fusion (CSFF) of an encoder's skip and the decoder's up-sampled feature.

Reference: Y. Li, H. Wan, L. Lan, "DCAU-Net: Differential Cross Attention and Channel-Spatial Feature Fusion for Medical
Image Segmentation", arXiv:2603.09530, section II-C, Eq. (11)-(19), Fig. 3.
"""

import torch
from torch import nn

from nnunet_attn.blocks.conv import ConvNormAct
from nnunet_attn.blocks.layout import check_layout


def check_pair(block: "ChannelSpatialFusion | ConcatFusion", skip: torch.Tensor, x: torch.Tensor) -> None:
    """Raise ValueError unless skip and decoder feature are maps of one size and of the block's width."""
    check_layout(block, "skip", skip, ("B", block.channels, "H", "W"))
    check_layout(block, "decoder feature", x, tuple(skip.shape))


class ChannelAttention(nn.Module):
    """``x * sigmoid(MLP(mean_hw x) + MLP(max_hw x))`` (Eq. 14-16), one MLP without biases for both.

    Shape: (B, C, H, W) -> (B, C, H, W).

    >>> from nnunet_attn.blocks import ChannelAttention
    >>> weigh = ChannelAttention(64)
    >>> weigh(torch.randn(2, 64, 28, 28)).shape
    torch.Size([2, 64, 28, 28])

    Deviations: the reduction's value is lost in the paper's text; 16 is that of the attention it builds on.
    """

    def __init__(self, channels: int, *, reduction: int = 16):
        super().__init__()
        if reduction < 1 or channels // reduction < 1:
            raise ValueError(f"reduction must lie between 1 and the {channels} channels, got {reduction}")
        self.channels = channels
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // reduction, channels, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", self.channels, "H", "W"))
        mean, maximum = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return x * torch.sigmoid(self.mlp(mean) + self.mlp(maximum))


class SpatialAttention(nn.Module):
    """``x * sigmoid(Conv([mean_c x; max_c x]))`` (Eq. 17-19), one convolution 2 -> 1 without bias.

    Shape: (B, C, H, W) -> (B, C, H, W).

    >>> from nnunet_attn.blocks import SpatialAttention
    >>> weigh = SpatialAttention()
    >>> weigh(torch.randn(2, 64, 28, 28)).shape
    torch.Size([2, 64, 28, 28])

    Deviations: the kernel's size is lost in the paper's text; 7 is that of the attention it builds on.
    """

    def __init__(self, *, kernel_size: int = 7):
        super().__init__()
        self.conv = ConvNormAct(2, 1, kernel_size, norm=None, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", "C", "H", "W"))
        maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(maps))


class ChannelSpatialFusion(nn.Module):
    """CSFF: refine skip and decoder feature, join them, weigh the channels, then the pixels::

        F = CBR([CBR(skip); CBR(x)])                                       Eq. (11)-(13)
        out = SpatialAttention(ChannelAttention(F))                        Eq. (14)-(19)

    Shape: two of (B, C, H, W) -> (B, C, H, W).

    >>> from nnunet_attn.blocks import ChannelSpatialFusion
    >>> fuse = ChannelSpatialFusion(64)
    >>> fuse(torch.randn(2, 64, 28, 28), torch.randn(2, 64, 28, 28)).shape
    torch.Size([2, 64, 28, 28])

    Args:
        channels: C.
        channel_attention, spatial_attention: False leaves one out (ablations of Table V).
        reduction: Of the channel attention's MLP.

    Deviations: the kernels of the three convolutions are lost in the paper's text; 3x3 is our choice, by the paper's
    parameter count.
    """

    def __init__(
        self, channels: int, *, channel_attention: bool = True, spatial_attention: bool = True, reduction: int = 16
    ):
        super().__init__()
        self.channels = channels
        self.refine_skip = ConvNormAct(channels, channels)
        self.refine_decoder = ConvNormAct(channels, channels)
        self.join = ConvNormAct(2 * channels, channels)
        self.channel_attention = ChannelAttention(channels, reduction=reduction) if channel_attention else nn.Identity()
        self.spatial_attention = SpatialAttention() if spatial_attention else nn.Identity()

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
        self.channels = channels
        self.convs = nn.Sequential(ConvNormAct(2 * channels, channels), ConvNormAct(channels, channels))

    def forward(self, skip: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        check_pair(self, skip, x)
        return self.convs(torch.cat([skip, x], dim=1))
