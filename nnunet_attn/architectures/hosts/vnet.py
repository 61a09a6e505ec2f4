"""V-Net in 2D as the host of Dual Cross-Attention.

Reference: F. Milletari, N. Navab, S.-A. Ahmadi, "V-Net: Fully Convolutional Neural Networks for Volumetric Medical
Image Segmentation", 3DV 2016, arXiv:1606.04797; in the 2D form that the authors of Dual Cross-Attention
(arXiv:2303.17696) released.
"""

from functools import partial

import torch
from torch import nn

from nnunet_attn.architectures.hosts.common import Conv, Decoder, Host
from nnunet_attn.blocks.conv import ConvNormAct

WIDTHS = (32, 64, 128, 256, 512)
ENCODER_CONVS = (2, 3, 3, 3)  # of the stages below the first
DECODER_CONVS = (3, 3, 2, 1)

ConvNormPReLU = partial(ConvNormAct, bias=True, act=nn.PReLU)  # one slope for all channels


def convolutions(in_channels: int, channels: int, count: int) -> nn.Sequential:
    """``count`` convolutions 5x5, all but the last with norm and activation."""
    sources = [in_channels, *[channels] * (count - 1)]
    return nn.Sequential(*(ConvNormPReLU(c, channels, 5) for c in sources[:-1]), Conv(sources[-1], channels, 5))


class InputStage(nn.Module):
    """One convolution with a shortcut. (B, C, H, W) -> the sum, and the activated output.

    The shortcut is missing from the activated output: an oversight of the released code that the published numbers
        have.
    """

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 5, padding=2)
        self.conv_skip = nn.Conv2d(in_channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.PReLU()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.conv(x)
        return y + self.conv_skip(x), self.act(self.norm(y))


class EncoderStage(nn.Module):
    """Strided convolution, residual convolutions. (B, C / 2, H, W) -> the sum, and that normalised and activated."""

    def __init__(self, channels: int, count: int):
        super().__init__()
        self.down = nn.Conv2d(channels // 2, channels, 2, stride=2)
        self.convs = convolutions(channels, channels, count)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.PReLU()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.down(x)
        raw = self.convs(x) + x
        return raw, self.act(self.norm(raw))


class Encoder(nn.Module):
    """Image -> raw outputs of the stages, their activated outputs, bottleneck."""

    def __init__(self, input_channels: int):
        super().__init__()
        deeper = [EncoderStage(c, n) for c, n in zip(WIDTHS[1:], ENCODER_CONVS, strict=True)]
        self.stages = nn.ModuleList([InputStage(input_channels, WIDTHS[0]), *deeper])

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        raws, acts = [], []
        for stage in self.stages:
            raw, x = stage(x)
            raws.append(raw)
            acts.append(x)
        return raws[:-1], acts[:-1], x


class DecoderStage(nn.Module):
    """Transposed convolution, [skip, up], residual convolutions.

    Shape: (B, 2 C, H, W), (B, C, 2 H, 2 W) -> (B, C, 2 H, 2 W).
    """

    def __init__(self, channels: int, count: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.norm_in = nn.BatchNorm2d(channels)
        self.act_in = nn.PReLU()
        self.convs = convolutions(2 * channels, channels, count)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.PReLU()

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        joined = torch.cat([skip, self.act_in(self.norm_in(x))], dim=1)
        return self.act(self.norm(self.convs(joined) + x))


class VNet(Host):
    """V-Net of widths 32 to 512; the skips are activated outputs, a plug gets the sums before norm and activation.

    Without a plug, ``encoder.stages.0.conv_skip`` has no effect; it stays registered with ``requires_grad=False``.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import VNet
    >>> net = VNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        skips: Plug on the skips, list -> list of the same shapes; None for none.
        deep_supervision: Must be False, there is one head.

    Released code: ``conv{i}.{conv,conv_skip,down,bn,prelu}`` ->
    ``encoder.stages.{i-1}.{conv,conv_skip,down,norm,act}``; ``up{i}.{up,bn_in,prelu_in,bn,prelu}`` ->
    ``decoder.stages.{i-1}.{up,norm_in,act_in,norm,act}``; in both ``conv.{j}`` -> ``convs.{j}``, ``up4.conv`` ->
    ``decoder.stages.3.convs.0.conv``; ``out`` -> ``decoder.seg_layers.0``; in the same order.
    """

    def __init__(
        self, input_channels: int, num_classes: int, *, skips: nn.Module | None = None, deep_supervision: bool = False
    ):
        super().__init__(deep_supervision=deep_supervision)
        self.encoder = Encoder(input_channels)
        stages = [DecoderStage(c, n) for c, n in zip(reversed(WIDTHS[:-1]), DECODER_CONVS, strict=True)]
        self.decoder = Decoder(stages, WIDTHS[0], num_classes)
        self.skips = skips
        self.encoder.stages[0].conv_skip.requires_grad_(skips is not None)

    def segment(self, x: torch.Tensor) -> torch.Tensor:
        raws, acts, x = self.encoder(x)
        return self.decoder(x, acts if self.skips is None else self.skips(raws))
