"""U-Net as the host of Dual Cross-Attention: half the original widths, BatchNorm, bilinear up-sampling.

Reference: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, arXiv:1505.04597; in the form that the authors of Dual Cross-Attention (arXiv:2303.17696) released.
"""

import torch
from torch import nn

from nnunet_attn.architectures.hosts.common import CBR, Decoder, DoubleConv, Host, UpConv

WIDTHS = (32, 64, 128, 256, 512)


class Encoder(nn.Module):
    """Image -> raw outputs of the stages, their activated outputs, bottleneck."""

    def __init__(self, input_channels: int):
        super().__init__()
        *inner, bottom = zip((input_channels, *WIDTHS), WIDTHS, strict=False)
        self.stages = nn.ModuleList(DoubleConv(i, o) for i, o in inner)
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = nn.Sequential(CBR(*bottom), CBR(bottom[1], bottom[1]))

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        raws, acts = [], []
        for stage in self.stages:
            raw, act = stage(x)
            raws.append(raw)
            acts.append(act)
            x = self.pool(act)
        return raws, acts, self.bottleneck(x)


class DecoderStage(nn.Module):
    """Up-sample, concatenate [up, skip], two CBR. (B, 2 C, H, W), (B, C, 2 H, 2 W) -> (B, C, 2 H, 2 W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.up = UpConv(2 * channels, channels)
        self.conv1 = CBR(2 * channels, channels)
        self.conv2 = CBR(channels, channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(torch.cat([self.up(x), skip], dim=1)))


class UNet(Host):
    """U-Net of widths 32 to 512.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import UNet
    >>> net = UNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        skips: Plug on the skips, list -> list of the same shapes; None for none.
        activated_skips: What the decoder gets without a plug: as published the raw output of each stage's second
            convolution (False), or the normalised and activated one of an ordinary U-Net (True). With the raw one, part
            of what a plug gains may be the norm and activation that it ends with.
        deep_supervision: Must be False, there is one head.

    Released code: ``conv{i}.conv{1,2}``, ``norm{i}`` -> ``encoder.stages.{i-1}.{conv1,conv2,norm}``;
    ``conv5.conv{1,2}`` -> ``encoder.bottleneck.{0,1}``; ``up{i}``, ``upconv{i}.conv{1,2}`` ->
    ``decoder.stages.{i-1}.{up,conv1,conv2}``; ``out.conv`` -> ``decoder.seg_layers.0``; in the same order.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        skips: nn.Module | None = None,
        activated_skips: bool = False,
        deep_supervision: bool = False,
    ):
        super().__init__(deep_supervision=deep_supervision)
        self.activated_skips = activated_skips
        self.encoder = Encoder(input_channels)
        self.decoder = Decoder([DecoderStage(c) for c in reversed(WIDTHS[:-1])], WIDTHS[0], num_classes)
        self.skips = skips

    def segment(self, x: torch.Tensor) -> torch.Tensor:
        raws, acts, x = self.encoder(x)
        if self.skips is not None:
            return self.decoder(x, self.skips(raws))
        return self.decoder(x, acts if self.activated_skips else raws)
