"""R2U-Net as the host of Dual Cross-Attention.

Reference: M. Z. Alom et al., "Recurrent Residual Convolutional Neural Network based on U-Net (R2U-Net) for Medical
Image Segmentation", arXiv:1802.06955; in the form that the authors of Dual Cross-Attention (arXiv:2303.17696) released.
"""

import torch
from torch import nn

from nnunet_attn.architectures.hosts.common import CBR, Conv, Decoder, Host, UpConv

WIDTHS = (32, 64, 128, 256, 512)


class Recurrence(nn.Module):
    """``y = f(x)``, then twice ``y = f(x + y)``; weights and BatchNorm statistics of ``f`` shared by the three."""

    def __init__(self, f: nn.Module):
        super().__init__()
        self.f = f

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.f(x)
        for _ in range(2):
            y = self.f(x + y)
        return y


class RecurrentResidualUnit(nn.Module):
    """1x1 convolution, two recurrences (the second without norm and activation) and a shortcut around them.

    Shape: (B, C, H, W) -> the sum, and that normalised and activated, (B, C', H, W) each.
    """

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv = Conv(in_channels, channels, 1)
        self.recurrences = nn.Sequential(Recurrence(CBR(channels, channels)), Recurrence(Conv(channels, channels)))
        self.norm = nn.BatchNorm2d(channels)
        self.norm_in = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.conv(x)
        raw = x + self.recurrences(self.act(self.norm_in(x)))
        return raw, self.act(self.norm(raw))


class Encoder(nn.Module):
    """Image -> raw outputs of the stages, their activated outputs, bottleneck."""

    def __init__(self, input_channels: int):
        super().__init__()
        pairs = zip((input_channels, *WIDTHS), WIDTHS, strict=False)
        self.stages = nn.ModuleList(RecurrentResidualUnit(i, o) for i, o in pairs)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        raws: list[torch.Tensor] = []
        acts: list[torch.Tensor] = []
        for depth, stage in enumerate(self.stages):
            raw, act = stage(self.pool(acts[-1]) if depth else x)
            raws.append(raw)
            acts.append(act)
        return raws[:-1], acts[:-1], acts[-1]


class DecoderStage(nn.Module):
    """Up-sample, [up, skip], recurrent unit. (B, 2 C, H, W), (B, C, 2 H, 2 W) -> (B, C, 2 H, 2 W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.up = UpConv(2 * channels, channels)
        self.unit = RecurrentResidualUnit(2 * channels, channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.unit(torch.cat([self.up(x), skip], dim=1))[1]


class R2UNet(Host):
    """R2U-Net of widths 32 to 512; the skips are activated outputs, a plug gets the sums before norm and activation.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), any H and W.

    >>> from nnunet_attn.architectures import R2UNet
    >>> net = R2UNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        skips: Plug on the skips, list -> list of the same shapes; None for none.
        deep_supervision: Must be False, there is one head.

    Released code: ``rconv{i}.{conv,block.0.conv,block.1.conv,norm,norm_c}`` ->
    ``{conv,recurrences.0.f,recurrences.1.f,norm,norm_in}`` of ``encoder.stages.{i-1}`` for i up to 5, then of
    ``decoder.stages.{i-6}.unit``; ``up{i}`` -> ``decoder.stages.{i-1}.up``; ``out`` -> ``decoder.seg_layers.0``; in the
    same order.
    """

    def __init__(
        self, input_channels: int, num_classes: int, *, skips: nn.Module | None = None, deep_supervision: bool = False
    ):
        super().__init__(deep_supervision=deep_supervision)
        self.encoder = Encoder(input_channels)
        self.decoder = Decoder([DecoderStage(c) for c in reversed(WIDTHS[:-1])], WIDTHS[0], num_classes)
        self.skips = skips

    def segment(self, x: torch.Tensor) -> torch.Tensor:
        raws, acts, x = self.encoder(x)
        return self.decoder(x, acts if self.skips is None else self.skips(raws))
