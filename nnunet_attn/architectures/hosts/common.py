"""What the six published U-Nets share: any image size, one head, a plug on the skips, and a few convolution blocks."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from nnunet_attn.blocks.conv import ConvNormAct
from nnunet_attn.blocks.padding import pad_to

CBR = partial(ConvNormAct, bias=True)  # with a redundant bias before the norm, as counted in the paper
Conv = partial(ConvNormAct, bias=True, norm=None, act=None)


class Host(nn.Module):
    """Base of the published 2D U-Nets: any image size in, logits out, and a place for a module (plug) on the skips.

    Sub-classes build ``encoder``, ``decoder`` (with ``deep_supervision`` and ``seg_layers``) and last ``skips``, and
    define ``segment`` for images whose sides are multiples of ``multiple``. Other images are padded at their lower and
    right border with their last values, and the logits cropped: our choice, the released code stops.

    Raises:
        ValueError: deep supervision, since the published parameter counts leave one head.
    """

    multiple = 16

    def __init__(self, *, deep_supervision: bool):
        if deep_supervision:
            raise ValueError(
                f"{type(self).__name__} has one head and so no deep supervision; with plans that name this network, "
                "use -tr nnUNetTrainerNoDeepSupervision"
            )
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, input_channels, H, W) -> logits (B, num_classes, H, W)."""
        height, width = x.shape[2:]
        padded = pad_to(x, [-(-n // self.multiple) * self.multiple for n in (height, width)])
        return self.segment(padded)[..., :height, :width]

    def segment(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Decoder(nn.Module):
    """Stages from the deepest to the finest, each with its skip, then ``last`` and the head."""

    def __init__(self, stages: Sequence[nn.Module], channels: int, num_classes: int, *, last: nn.Module | None = None):
        super().__init__()
        self.deep_supervision = False
        self.stages = nn.ModuleList(stages)
        self.last = last or nn.Identity()
        self.seg_layers = nn.ModuleList([nn.Conv2d(channels, num_classes, 1)])

    def forward(self, x: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x = stage(x, skip)
        return self.seg_layers[0](self.last(x))


class DoubleConv(nn.Module):
    """CBR and a bare convolution. (B, C, H, W) -> its raw output, and that normalised and activated."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv1 = CBR(in_channels, channels)
        self.conv2 = Conv(channels, channels)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw = self.conv2(self.conv1(x))
        return raw, self.act(self.norm(raw))


class UpConv(nn.Module):
    """Bilinear doubling with aligned corners, then CBR. (B, C, H, W) -> (B, C', 2 H, 2 W)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv = CBR(in_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.up(x))


class SqueezeExcite(nn.Module):
    """``x * sigmoid(W_2 relu(W_1 mean(x)))``, without biases. (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]
