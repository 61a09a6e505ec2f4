"""Dual Cross-Attention (DCA) in the skips of the paper's six U-Nets, and of the networks that nnU-Net's plans name.

Reference: G. C. Ates, P. Mohan, E. Celik, "Dual Cross-Attention for Medical Image Segmentation", Engineering
Applications of Artificial Intelligence 126 (2023), arXiv:2303.17696, and the authors' released code.

All networks here take ``dca``, False for the host alone (ablation), and ``dca_kwargs``, keyword arguments of
``DualCrossAttention``, for example ``{"spatial_attention": False}``.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_attn.architectures.hosts.double_unet import DoubleUNet
from nnunet_attn.architectures.hosts.multi_res_unet import MultiResUNet
from nnunet_attn.architectures.hosts.r2_unet import R2UNet
from nnunet_attn.architectures.hosts.res_unet_pp import ResUNetPlusPlus
from nnunet_attn.architectures.hosts.unet import UNet
from nnunet_attn.architectures.hosts.vnet import VNet
from nnunet_attn.architectures.planned import cumulative_strides, most_heads
from nnunet_attn.blocks.dual_cross_attention import DualCrossAttention

Mixin: Any = object  # to mypy: with whatever the class's other base has


def image_attention(widths: Sequence[int], token: int, dca_kwargs: dict | None) -> DualCrossAttention:
    """DCA whose tokens are patches of ``token`` x ``token`` pixels, for skips of strides 1, 2, 4, ..."""
    pool = [(token >> level, token >> level) for level in range(len(widths))]
    return DualCrossAttention(widths, pool, **(dca_kwargs or {}))


class AttendedHost(Mixin):
    """Puts DCA into the skips of the host that follows in the class's bases.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        dca: False for the host alone.
        dca_kwargs: Keyword arguments of ``DualCrossAttention``.
        deep_supervision: Must be False, the hosts have one head.
        host: The host's own arguments.

    Attributes:
        skip_widths: Channels of the skips, from stride 1.
        token: Side of a token in pixels.
    """

    skip_widths: tuple[int, ...] = (32, 64, 128, 256)
    token: int = 8

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        dca: bool = True,
        dca_kwargs: dict | None = None,
        deep_supervision: bool = False,
        **host: Any,
    ):
        skips = self.attention(dca_kwargs) if dca else None
        super().__init__(input_channels, num_classes, skips=skips, deep_supervision=deep_supervision, **host)

    @classmethod
    def attention(cls, dca_kwargs: dict | None) -> nn.Module | list[nn.Module]:
        """What stands between encoder and decoder."""
        return image_attention(cls.skip_widths, cls.token, dca_kwargs)


class DualCAUNet(AttendedHost, UNet):
    """``UNet`` with DCA: tokens of 8 x 8 pixels, 784 of them at 224 x 224; takes ``activated_skips``, too.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import DualCAUNet
    >>> net = DualCAUNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])
    """


class DualCAVNet(AttendedHost, VNet):
    """``VNet`` with DCA: tokens of 8 x 8 pixels.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import DualCAVNet
    >>> net = DualCAVNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])
    """


class DualCAR2UNet(AttendedHost, R2UNet):
    """``R2UNet`` with DCA: tokens of 8 x 8 pixels.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import DualCAR2UNet
    >>> net = DualCAR2UNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])
    """


class DualCAResUNetPlusPlus(AttendedHost, ResUNetPlusPlus):
    """``ResUNetPlusPlus`` with DCA: tokens of 4 x 4 pixels, 3136 of them at 224 x 224.

    Where there were more than 4096, of 8 x 8 pixels.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import DualCAResUNetPlusPlus
    >>> net = DualCAResUNetPlusPlus(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])
    """

    skip_widths = (32, 64, 128)
    token = 4


class DualCADoubleUNet(AttendedHost, DoubleUNet):
    """``DoubleUNet`` with three DCA of 8 x 8 pixels: two in a row on the VGG skips, one on the second encoder's.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import DualCADoubleUNet
    >>> net = DualCADoubleUNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])
    """

    @classmethod
    def attention(cls, dca_kwargs: dict | None) -> list[nn.Module]:
        vgg, second = (64, 128, 256, 512), cls.skip_widths
        return [image_attention(widths, cls.token, dca_kwargs) for widths in (vgg, vgg, second)]


class DualCAMultiResUNet(AttendedHost, MultiResUNet):
    """``MultiResUNet`` with DCA: tokens of 8 x 8 pixels.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import DualCAMultiResUNet
    >>> net = DualCAMultiResUNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])
    """


def anchor_level(strides: Sequence[Sequence[int]], patch_size: Sequence[int], max_tokens: int) -> int:
    """The skip whose grid all tokens share: the first of stride 8 or more, on any axis, with at most ``max_tokens``.

    If there is none, the last skip. The last stage is the bottleneck, and no skip.
    """
    skips = cumulative_strides(strides)[:-1]
    for level, stride in enumerate(skips):
        count = math.prod(-(-n // s) for n, s in zip(patch_size, stride, strict=True))
        if max(stride) >= 8 and count <= max_tokens:
            return level
    return len(skips) - 1


class AttendedSkips(nn.Module):
    """Puts DCA between encoder and decoder of the nnU-Net network that follows in the class's bases.

    The skips down to the anchor (``anchor_level``) attend to each other, on the anchor's own grid; deeper ones pass.
    With 224 x 224 this is the paper's setting, four levels and 784 tokens. Encoder, decoder, their keys and deep
    supervision are nnU-Net's, so that stock weights load into the encoder.

    Shape: (B, input_channels, *size) -> (B, num_classes, *size), or a list of maps with deep supervision.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        patch_size: Of the plans; chooses the anchor, other sizes are possible in ``forward``.
        dca: False for nnU-Net's network alone.
        dca_kwargs: Keyword arguments of ``DualCrossAttention``.
        levels: "anchor", or "all" for all skips on the grid of the last one, as many as the paper's text has.
        max_tokens: Most tokens of the anchor.
        architecture: nnU-Net's arguments, ``deep_supervision`` included.

    Raises:
        ValueError: fewer than two stages, widths that heads given in ``dca_kwargs`` do not divide, unknown ``levels``.

    Deviations: the paper's hosts hand DCA the raw outputs before norm and activation; nnU-Net's encoders give none but
    the activated ones. DCA ends with the plans' norm and activation. The anchor and its cap on tokens are our choice.
    The spatial attention has the largest number of heads, up to the paper's 4, that divides the widths of all joined
    skips.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        patch_size: Sequence[int],
        dca: bool = True,
        dca_kwargs: dict | None = None,
        levels: str = "anchor",
        max_tokens: int = 2048,
        **architecture: Any,
    ):
        super().__init__(input_channels=input_channels, num_classes=num_classes, **architecture)
        encoder: Any = self.encoder
        if levels not in ("anchor", "all"):
            raise ValueError(f"levels must be anchor or all, got {levels!r}")
        if len(encoder.strides) < 2 or len(patch_size) != len(encoder.strides[0]):
            raise ValueError(
                "expected at least two stages and as many strides as axes, got "
                f"strides {encoder.strides} and patch size {[*patch_size]}"
            )
        self.skips = None
        if not dca:
            return
        last = len(encoder.strides) - 2
        anchor = last if levels == "all" else anchor_level(encoder.strides, patch_size, max_tokens)
        strides = cumulative_strides(encoder.strides)[: anchor + 1]
        pool = [tuple(a // s for a, s in zip(strides[-1], stride, strict=True)) for stride in strides]
        heads = most_heads(math.gcd(*encoder.output_channels[: anchor + 1]), 4)
        self.skips = DualCrossAttention(
            encoder.output_channels[: anchor + 1],
            pool,
            norm=partial(encoder.norm_op or nn.Identity, **(encoder.norm_op_kwargs or {})),
            act=partial(encoder.nonlin or nn.Identity, **(encoder.nonlin_kwargs or {})),
            **{"spatial_heads": heads, **(dca_kwargs or {})},
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        skips = self.encoder(x)
        if self.skips is not None:
            joined = len(self.skips.channels)
            skips = [*self.skips(skips[:joined]), *skips[joined:]]
        return self.decoder(skips)

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """nnU-Net's measure of memory: values of all convolutions' outputs, and of what stands for them in DCA."""
        size = super().compute_conv_feature_map_size(input_size)
        return size if self.skips is None else size + self.attention_map_size(input_size)

    def attention_map_size(self, input_size: Sequence[int]) -> int:
        """Values that DCA keeps for the backward pass, in nnU-Net's measure, half of what autograd keeps.

        The tokens, S P values a map, count as 4 + L maps in each block, L of them for queries and results of the fused
        attention on a GPU, and 3 S^2 stand for the channel attention. The way back to the skips' size keeps nothing.
        By the bytes that autograd keeps, this is right to some percent of the network's total.
        """
        channels = self.skips.channels
        sizes = [
            [-(-n // s) for n, s in zip(input_size, stride, strict=True)]
            for stride in cumulative_strides(self.encoder.strides)[: len(channels)]
        ]
        width, tokens = sum(channels), math.prod(self.skips.token_grid(sizes)[1])
        return len(self.skips.blocks) * ((4 + len(channels)) * width * tokens + 3 * width**2)


class DualCAPlainConvUNet(AttendedSkips, PlainConvUNet):
    """nnU-Net's ``PlainConvUNet`` with DCA in its skips, 2D or 3D; see ``AttendedSkips``.

    Shape: (B, input_channels, *size) -> (B, num_classes, *size), or a list of maps with deep supervision.

    >>> from nnunet_attn.architectures import DualCAPlainConvUNet
    >>> planned = dict(
    ...     n_stages=3, features_per_stage=(16, 32, 64), conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.ReLU,
    ...     kernel_sizes=((3, 3, 3),) * 3, strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), conv_bias=True,
    ...     n_conv_per_stage=(2, 2, 2), n_conv_per_stage_decoder=(2, 2),
    ... )
    >>> net = DualCAPlainConvUNet(1, 2, patch_size=(8, 32, 32), **planned).eval()
    >>> net(torch.randn(1, 1, 8, 32, 32)).shape
    torch.Size([1, 2, 8, 32, 32])
    """


class DualCAResidualEncoderUNet(AttendedSkips, ResidualEncoderUNet):
    """nnU-Net's ``ResidualEncoderUNet`` with DCA in its skips, 2D or 3D; see ``AttendedSkips``.

    Shape: (B, input_channels, *size) -> (B, num_classes, *size), or a list of maps with deep supervision.

    >>> from nnunet_attn.architectures import DualCAResidualEncoderUNet
    >>> planned = dict(
    ...     n_stages=3, features_per_stage=(16, 32, 64), conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.ReLU,
    ...     kernel_sizes=((3, 3, 3),) * 3, strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), conv_bias=True,
    ...     n_blocks_per_stage=(2, 2, 2), n_conv_per_stage_decoder=(2, 2),
    ... )
    >>> net = DualCAResidualEncoderUNet(1, 2, patch_size=(8, 32, 32), **planned).eval()
    >>> net(torch.randn(1, 1, 8, 32, 32)).shape
    torch.Size([1, 2, 8, 32, 32])
    """
