"""ResUNet++ as the host of Dual Cross-Attention.

Reference: D. Jha et al., "ResUNet++: An Advanced Architecture for Medical Image Segmentation", ISM 2019,
arXiv:1911.07067; in the form that the authors of Dual Cross-Attention (arXiv:2303.17696) released.
"""

import torch
from torch import nn

from nnunet_attn.architectures.hosts.common import CBR, Conv, Decoder, Host, SqueezeExcite
from nnunet_attn.blocks.conv import ConvNormAct

WIDTHS = (32, 64, 128, 256, 512)
SQUEEZED = (4, 4, 8)  # hidden widths of the squeeze-and-excitation on the way down
RATES = (1, 6, 12, 18)


class ResidualUnit(nn.Module):
    """Pre-activation unit: twice norm, ReLU and 3x3 convolution, plus a 1x1 convolution of the input.

    Shape: (B, C, H, W) -> (B, C', H / stride, W / stride).
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, channels, 1, stride)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(self.act(self.norm1(x)))
        return self.conv2(self.act(self.norm2(y))) + self.skip(x)


class Pyramid(nn.Module):
    """ASPP: dilated 3x3 convolutions with norm, summed, then a 1x1 convolution with norm.

    Shape: (B, C, H, W) -> (B, C', H, W).
    """

    def __init__(self, in_channels: int, channels: int, *, act: type[nn.Module] | None):
        super().__init__()
        self.branches = nn.ModuleList(
            ConvNormAct(in_channels, channels, dilation=rate, bias=True, act=act) for rate in RATES
        )
        self.out = ConvNormAct(channels, channels, 1, bias=True, act=act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(sum(branch(x) for branch in self.branches))


class Stem(nn.Module):
    """CBR and a convolution, plus a convolution of the image."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.convs = nn.Sequential(CBR(in_channels, channels), Conv(channels, channels))
        self.skip = Conv(in_channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x) + self.skip(x)


class Encoder(nn.Module):
    """Image -> outputs of stem and first two stages (raw sums), bridge."""

    def __init__(self, input_channels: int):
        super().__init__()
        self.stem = Stem(input_channels, WIDTHS[0])
        self.stages = nn.ModuleList(
            nn.Sequential(SqueezeExcite(i, s), ResidualUnit(i, o, stride=2))
            for i, o, s in zip(WIDTHS, WIDTHS[1:], SQUEEZED, strict=False)
        )
        self.bridge = Pyramid(WIDTHS[3], WIDTHS[4], act=None)

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        outputs = [self.stem(x)]
        for stage in self.stages:
            outputs.append(stage(outputs[-1]))
        return outputs[:-1], self.bridge(outputs[-1])


class AttentionGate(nn.Module):
    """``x * g``, g one map made of the skip (pooled) and x; without sigmoid, as in the released code.

    Shape: skip (B, E, 2 H, 2 W), x (B, D, H, W) -> (B, D, H, W).
    """

    def __init__(self, skip_channels: int, channels: int):
        super().__init__()
        self.norm_skip = nn.BatchNorm2d(skip_channels)
        self.norm_x = nn.BatchNorm2d(channels)
        self.norm_gate = nn.BatchNorm2d(channels)
        self.conv_skip = nn.Conv2d(skip_channels, channels, 3, padding=1)
        self.conv_x = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_gate = nn.Conv2d(channels, 1, 1)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        gate = self.pool(self.conv_skip(self.act(self.norm_skip(skip)))) + self.conv_x(self.act(self.norm_x(x)))
        return x * self.conv_gate(self.act(self.norm_gate(gate)))


class DecoderStage(nn.Module):
    """Gate, nearest doubling, [up, skip], residual unit. (B, D, H, W), (B, E, 2 H, 2 W) -> (B, C, 2 H, 2 W)."""

    def __init__(self, in_channels: int, skip_channels: int, channels: int):
        super().__init__()
        self.gate = AttentionGate(skip_channels, in_channels)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.unit = ResidualUnit(in_channels + skip_channels, channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.unit(torch.cat([self.up(self.gate(x, skip)), skip], dim=1))


class ResUNetPlusPlus(Host):
    """ResUNet++ of widths 32 to 512 with three skips (raw sums of the stages, with and without a plug).

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import ResUNetPlusPlus
    >>> net = ResUNetPlusPlus(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        skips: Plug on the skips, list -> list of the same shapes; None for none. Gates and concatenations get its
            output.
        deep_supervision: Must be False, there is one head.

    Released code: ``input_layer.{0,1}``, ``input_skip.0`` -> ``encoder.stem.{convs.0,convs.1.conv,skip.conv}``;
    ``squeeze_excite{i}``, ``residual_conv{i}`` -> ``encoder.stages.{i-1}.{0,1}``; ``aspp_bridge`` ->
    ``encoder.bridge``; ``attn{i}.{norm1,norm2,norm3,conv_encoder.2,conv_decoder.2,conv_attn.2}`` (the norms stand there
    twice) -> ``decoder.stages.{i-1}.gate.{norm_skip,norm_x,norm_gate,conv_skip,conv_x,conv_gate}``;
    ``up_residual_conv{i}`` -> ``decoder.stages.{i-1}.unit``, with ``conv.{0.bn,1,2.bn,3}`` ->
    ``{norm1,conv1,norm2,conv2}``; ``aspp_out`` -> ``decoder.last``, with ``block{i}`` -> ``branches.{i-1}``;
    ``output_layer`` -> ``decoder.seg_layers.0``; in the same order.
    """

    multiple = 8

    def __init__(
        self, input_channels: int, num_classes: int, *, skips: nn.Module | None = None, deep_supervision: bool = False
    ):
        super().__init__(deep_supervision=deep_supervision)
        self.encoder = Encoder(input_channels)
        stages = [DecoderStage(512, 128, 256), DecoderStage(256, 64, 128), DecoderStage(128, 32, 64)]
        self.decoder = Decoder(stages, 32, num_classes, last=Pyramid(64, 32, act=nn.ReLU))
        self.skips = skips

    def segment(self, x: torch.Tensor) -> torch.Tensor:
        outputs, x = self.encoder(x)
        return self.decoder(x, outputs if self.skips is None else self.skips(outputs))
