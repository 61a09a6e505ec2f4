"""DoubleU-Net as the host of Dual Cross-Attention: a second U-Net sees the image times the first one's mask.

Reference: D. Jha et al., "DoubleU-Net: A Deep Convolutional Neural Network for Medical Image Segmentation", CBMS 2020,
arXiv:2006.04868; in the form that the authors of Dual Cross-Attention (arXiv:2303.17696) released.
"""

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_attn.architectures.hosts.common import CBR, Decoder, DoubleConv, Host, SqueezeExcite
from nnunet_attn.blocks.conv import ConvNormAct

VGG_WIDTHS = (64, 128, 256, 512, 512)
VGG_CONVS = (2, 2, 4, 4, 4)
WIDTHS = (32, 64, 128, 256)
RATES = (1, 6, 12, 18)


class VGGStage(nn.Sequential):
    """3x3 convolutions with ReLU between them, none after the last; initialised as VGG is.

    Shape: (B, C, H, W) -> (B, C', H, W).
    """

    def __init__(self, in_channels: int, channels: int, count: int):
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1)]
        for _ in range(count - 1):
            layers += [nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 3, padding=1)]
        super().__init__(*layers)
        for conv in (layer for layer in layers if isinstance(layer, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)


class VGGEncoder(nn.Module):
    """VGG-19 without BatchNorm. Image -> outputs of the first four stages before their ReLU, activated fifth."""

    def __init__(self, input_channels: int):
        super().__init__()
        shapes = zip((input_channels, *VGG_WIDTHS), VGG_WIDTHS, VGG_CONVS, strict=False)
        self.stages = nn.ModuleList(VGGStage(*shape) for shape in shapes)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        raws: list[torch.Tensor] = []
        for stage in self.stages:
            raws.append(stage(self.pool(x) if raws else x))
            x = self.act(raws[-1])
        return raws[:-1], x


class Pyramid(nn.Module):
    """ASPP: one 1x1 and four dilated 3x3 CBR, concatenated, then a 1x1 CBR. (B, C, H, W) -> (B, C', H, W)."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        dilated = [ConvNormAct(in_channels, channels, dilation=rate) for rate in RATES]
        self.branches = nn.ModuleList([CBR(in_channels, channels, 1), *dilated])
        self.out = ConvNormAct(5 * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.cat([branch(x) for branch in self.branches], dim=1))


class ExcitedConv(DoubleConv):
    """``DoubleConv``, then squeeze-and-excitation of the activated output."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__(in_channels, channels)
        self.excite = SqueezeExcite(channels, channels // 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw, activated = super().forward(x)
        return raw, self.excite(activated)


class DecoderStage(nn.Module):
    """Bilinear doubling, [skip, up], double convolution. (B, C, H, W), (B, E, 2 H, 2 W) -> (B, C', 2 H, 2 W)."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv = ExcitedConv(in_channels, channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.cat([skip, self.up(x)], dim=1))[1]


class Encoder(nn.Module):
    """Second encoder. Masked image -> raw outputs of its stages, the last one activated and pooled."""

    def __init__(self, input_channels: int):
        super().__init__()
        self.stages = nn.ModuleList(ExcitedConv(i, o) for i, o in zip((input_channels, *WIDTHS), WIDTHS, strict=False))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        raws = []
        for stage in self.stages:
            raw, x = stage(x)
            raws.append(raw)
            x = self.pool(x)
        return raws, x


def decoder_stages(skip_channels: Sequence[int]) -> list[nn.Module]:
    """Stages from the deepest to the finest; the deepest gets the 64 channels of a pyramid."""
    widths = list(reversed(WIDTHS))
    sources = zip((64, *widths), reversed(skip_channels), widths, strict=False)
    return [DecoderStage(below + skip, width) for below, skip, width in sources]


class DoubleUNet(Host):
    """DoubleU-Net: VGG-19 encoder, decoder, mask; the masked image through a second encoder and decoder.

    The skips are raw outputs, with and without plugs. The second decoder gets those of both encoders; there, the first
    encoder's went through the first plug and then through the second.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import DoubleUNet
    >>> net = DoubleUNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])

    Args:
        input_channels: Channels of the image, and of the mask.
        num_classes: Channels of the logits.
        skips: Three plugs, each list -> list of the same shapes: on the VGG skips for the first decoder, on these for
            the second decoder, and on the skips of the second encoder. None for none.
        deep_supervision: Must be False, there is one head.

    Released code: ``vgg{i}`` -> ``encoder.stages.{i-1}``, counted from 0; ``aspp_1``, ``aspp_2`` -> ``pyramid1``,
    ``pyramid2``, with ``block{i}`` -> ``branches.{i-1}``; ``decode{i}``, ``out1.0``, ``encode2_{i}``, ``decode2_{i}``,
    ``out`` -> ``decoder1.stages.{i-1}.conv``, ``decoder1.seg_layers.0``, ``encoder2.stages.{i-1}``,
    ``decoder.stages.{i-1}.conv``, ``decoder.seg_layers.0``, with ``bn``, ``se`` -> ``norm``, ``excite``; ``DCA_vgg1``,
    ``DCA_vgg2``, ``DCA`` -> ``skips.{0,1,2}``; in the same order.

    Deviations: as many channels as the image has, where the released code repeats one channel to three; no ImageNet
    normalisation inside, since nnU-Net normalises. Its two modes do not run as released: the second and third plug get
    the arguments of the first, and without plugs both decoders get the same skips.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        skips: Sequence[nn.Module] | None = None,
        deep_supervision: bool = False,
    ):
        super().__init__(deep_supervision=deep_supervision)
        vgg = VGG_WIDTHS[:4]
        self.encoder = VGGEncoder(input_channels)
        self.pyramid1 = Pyramid(VGG_WIDTHS[-1], 64)
        self.decoder1 = Decoder(decoder_stages(vgg), WIDTHS[0], input_channels)
        self.encoder2 = Encoder(input_channels)
        self.pyramid2 = Pyramid(WIDTHS[-1], 64)
        both = [a + b for a, b in zip(vgg, WIDTHS, strict=True)]
        self.decoder = Decoder(decoder_stages(both), WIDTHS[0], num_classes)
        self.skips = None if skips is None else nn.ModuleList(skips)

    def segment(self, x: torch.Tensor) -> torch.Tensor:
        first, deepest = self.encoder(x)
        second = first
        if self.skips is not None:
            first = self.skips[0](first)
            second = self.skips[1](first)
        mask = torch.sigmoid(self.decoder1(self.pyramid1(deepest), first))

        third, deepest = self.encoder2(mask * x)
        if self.skips is not None:
            third = self.skips[2](third)
        both = [torch.cat(pair, dim=1) for pair in zip(second, third, strict=True)]
        return self.decoder(self.pyramid2(deepest), both)
