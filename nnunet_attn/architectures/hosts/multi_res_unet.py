"""MultiResUNet as the host of Dual Cross-Attention.

Reference: N. Ibtehaz, M. S. Rahman, "MultiResUNet: Rethinking the U-Net architecture for multimodal biomedical image
segmentation", Neural Networks 2020, arXiv:1902.04049; in the form that the authors of Dual Cross-Attention
(arXiv:2303.17696) released.
"""

from functools import partial

import torch
from torch import nn

from nnunet_attn.architectures.hosts.common import CBR, Conv, Decoder, Host
from nnunet_attn.blocks.conv import ConvNormAct

WIDTHS = (32, 64, 128, 256, 512)
PATH_STEPS = (4, 3, 2, 1)

ConvNorm = partial(ConvNormAct, bias=True, act=None)


def block_widths(width: int) -> tuple[int, ...]:
    """Widths of the three convolutions of a block, rounded down from 1.67 ``width`` times 0.167, 0.333, 0.5."""
    return tuple(int(1.67 * width * share) for share in (0.167, 0.333, 0.5))


class MultiResBlock(nn.Module):
    """Three CBR in a row, their outputs concatenated and normalised, plus a normalised 1x1 convolution; ReLU.

    Shape: (B, C, H, W) -> (B, sum(block_widths(width)), H, W).
    """

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        first, second, third = block_widths(width)
        self.out_channels = first + second + third
        self.skip = ConvNorm(in_channels, self.out_channels, 1)
        self.conv1 = CBR(in_channels, first)
        self.conv2 = CBR(first, second)
        self.conv3 = CBR(second, third)
        self.norm = nn.BatchNorm2d(self.out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.conv1(x)
        second = self.conv2(first)
        joined = torch.cat([first, second, self.conv3(second)], dim=1)
        return self.act(self.norm(joined) + self.skip(x))


class ResPath(nn.Module):
    """Steps ``x <- ReLU(BN(conv3x3(x) + conv1x1(x)))`` on a skip. (B, C, H, W) -> (B, C', H, W).

    ``raw``: return the last step's sum, and leave its norm, which then has no effect, without gradient.
    """

    def __init__(self, in_channels: int, channels: int, steps: int, *, raw: bool):
        super().__init__()
        self.raw = raw
        sources = [in_channels, *[channels] * (steps - 1)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in sources)
        self.skips = nn.ModuleList(Conv(c, channels, 1) for c in sources)
        self.convs = nn.ModuleList(Conv(c, channels) for c in sources)
        self.act = nn.ReLU(inplace=True)
        self.norms[-1].requires_grad_(not raw)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step, (norm, skip, conv) in enumerate(zip(self.norms, self.skips, self.convs, strict=True), start=1):
            x = conv(x) + skip(x)
            if step < len(self.norms) or not self.raw:
                x = self.act(norm(x))
        return x


class EncoderStage(nn.Module):
    """Block, and the path that its output takes as a skip. (B, C, H, W) -> skip, output of the block."""

    def __init__(self, in_channels: int, width: int, steps: int, *, raw: bool):
        super().__init__()
        self.block = MultiResBlock(in_channels, width)
        self.path = ResPath(self.block.out_channels, width, steps, raw=raw)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.block(x)
        return self.path(x), x


class Encoder(nn.Module):
    """Image -> skips at the ends of their paths, bottleneck."""

    def __init__(self, input_channels: int, *, raw: bool):
        super().__init__()
        stages, channels = [], input_channels
        for width, steps in zip(WIDTHS, PATH_STEPS, strict=False):
            stages.append(EncoderStage(channels, width, steps, raw=raw))
            channels = sum(block_widths(width))
        self.stages = nn.ModuleList(stages)
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = MultiResBlock(channels, WIDTHS[-1])

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        skips = []
        for stage in self.stages:
            skip, x = stage(x)
            skips.append(skip)
            x = self.pool(x)
        return skips, self.bottleneck(x)


class DecoderStage(nn.Module):
    """Transposed convolution with norm and ReLU, [up, skip], block. Widths as the encoder's stage."""

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(sum(block_widths(2 * width)), width, 2, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.block = MultiResBlock(2 * width, width)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.block(torch.cat([self.act(self.norm(self.up(x))), skip], dim=1))


class MultiResUNet(Host):
    """MultiResUNet of widths 32 to 512; skips are activated, a plug gets the sums before the activation.

    With a plug, the last norm of each path (``encoder.stages.*.path.norms``) has no effect; it stays registered with
    ``requires_grad=False``, and its running statistics stay as they are.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import MultiResUNet
    >>> net = MultiResUNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        skips: Plug on the skips, list -> list of the same shapes; None for none.
        deep_supervision: Must be False, there is one head.

    Released code: ``mr{i}``, ``respath{i}`` -> ``encoder.stages.{i-1}.{block,path}`` for i up to 4, ``mr5`` ->
    ``encoder.bottleneck``, ``mr{i}`` beyond -> ``decoder.stages.{i-6}.block``, with ``c{j}``, ``bn1``, ``bns`` ->
    ``conv{j}``, ``norm``, ``norms``; ``up{i}.{0,1}`` -> ``decoder.stages.{i-1}.{up,norm}``; ``out`` ->
    ``decoder.seg_layers.0``; in the same order.
    """

    def __init__(
        self, input_channels: int, num_classes: int, *, skips: nn.Module | None = None, deep_supervision: bool = False
    ):
        super().__init__(deep_supervision=deep_supervision)
        self.encoder = Encoder(input_channels, raw=skips is not None)
        stages = [DecoderStage(width) for width in reversed(WIDTHS[:-1])]
        self.decoder = Decoder(stages, sum(block_widths(WIDTHS[0])), num_classes)
        self.skips = skips

    def segment(self, x: torch.Tensor) -> torch.Tensor:
        skips, x = self.encoder(x)
        return self.decoder(x, skips if self.skips is None else self.skips(skips))
