"""The network: plain PyTorch, nothing of nnU-Net."""

from collections.abc import Sequence

import torch
from torch import nn


class MyNetwork(nn.Module):
    """A small U-Net with gated skips, for 2D and 3D images.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        strides: Of each stage, one number an axis; the first is 1. nnU-Net's plans give them.
        width: Features of the first stage; doubled at each stage up to 256.
        gate: Whether the skips are gated.
        deep_supervision: Whether forward returns a map for each stage but the last, full size first.

    Raises:
        ValueError: There are fewer than two stages.

    Shape:
        (B, input_channels, *size) -> (B, num_classes, *size)
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        strides: Sequence[Sequence[int]],
        width: int = 16,
        gate: bool = True,
        deep_supervision: bool = False,
    ):
        super().__init__()
        if len(strides) < 2:
            raise ValueError(f"MyNetwork needs two stages or more, got strides {strides}")
        strides = [tuple(stride) for stride in strides]
        axes = len(strides[0])
        conv, norm = (nn.Conv2d, nn.Conv3d)[axes - 2], (nn.InstanceNorm2d, nn.InstanceNorm3d)[axes - 2]
        up = (nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 2]
        widths = [min(256, width * 2**n) for n in range(len(strides))]

        def stage(before: int, after: int, stride: Sequence[int]) -> nn.Module:
            # the norm takes a bias out again, so the convolution has none
            return nn.Sequential(conv(before, after, 3, stride, 1, bias=False), norm(after, affine=True), nn.GELU())

        self.encoder = nn.ModuleList(
            stage(before, after, stride)
            for before, after, stride in zip([input_channels, *widths], widths, strides, strict=False)
        )
        self.decoder = nn.Module()
        self.decoder.deep_supervision = deep_supervision  # the switch that nnU-Net turns off to validate
        below = list(zip(widths[:-1], widths[1:], strides[1:], strict=True))[::-1]
        self.decoder.ups = nn.ModuleList(up(deep, shallow, stride, stride) for shallow, deep, stride in below)
        self.decoder.gates = nn.ModuleList(
            conv(shallow, shallow, 1) if gate else nn.Identity() for shallow, *_ in below
        )
        self.decoder.stages = nn.ModuleList(stage(2 * shallow, shallow, (1,) * axes) for shallow, *_ in below)
        # always all heads, under a name that nnU-Net leaves out when it loads weights from another dataset
        self.decoder.seg_layers = nn.ModuleList(conv(shallow, num_classes, 1) for shallow, *_ in below)
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        decoder, maps = self.decoder, []
        parts = zip(decoder.ups, decoder.gates, decoder.stages, decoder.seg_layers, skips[-2::-1], strict=True)
        for up, gate, stage, head, skip in parts:
            x = up(x)
            if self.gate:
                skip = skip * torch.sigmoid(gate(x))
            x = stage(torch.cat((x, skip), 1))
            maps.append(head(x))
        return maps[::-1] if decoder.deep_supervision else maps[-1]
