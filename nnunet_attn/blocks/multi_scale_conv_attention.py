"""The parts of EMCAD's decoder: multi-scale convolutional attention, grouped attention gate, up-convolution.

Reference for all: Rahman, Munir, Marculescu, "EMCAD: Efficient Multi-scale Convolutional Attention Decoding for Medical
Image Segmentation", CVPR 2024 (arXiv:2405.06880), Sec. 3.1. Written from its formulas; where text and published numbers
left a choice, the one that gives the published parameter count is taken (26.76 M with PVTv2-B2).
"""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import nn

from nnunet_attn.blocks.layout import check_layout, for_depthwise
from nnunet_attn.blocks.recompute import in_turn, recomputed
from nnunet_attn.blocks.recording import Maps, note


class CAB(nn.Module):
    """Channel attention: ``sigmoid(fc2(relu(fc1(avg))) + fc2(relu(fc1(max))))`` of the global pools, C -> C/16 -> C.

    Shape: (B, C, H, W) -> weights (B, C, 1, 1)

    >>> from nnunet_attn.blocks import CAB
    >>> CAB(64)(torch.randn(2, 64, 28, 28)).shape
    torch.Size([2, 64, 1, 1])
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.channels = channels
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", self.channels, "H", "W"))
        pools = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        weights = torch.sigmoid(sum(self.fc2(F.relu(self.fc1(pool))) for pool in pools))
        note(self, lambda point: Maps(channel={"channel weights": weights.flatten(1)}))
        return weights


class SAB(nn.Module):
    """Spatial attention: ``sigmoid(conv7x7([mean_c; max_c]))``; one instance serves all stages of the decoder.

    Shape: (B, C, H, W) -> weights (B, 1, H, W)

    >>> from nnunet_attn.blocks import SAB
    >>> SAB()(torch.randn(2, 64, 28, 28)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", "C", "H", "W"))
        weights = torch.sigmoid(self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)))
        note(self, lambda point: Maps(pixel={"spatial weights": weights.squeeze(1)}))
        return weights


def depthwise(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    """A depth-wise convolution without bias; of kernel 1 as the product that it is: libraries have no path for it."""
    return x * conv.weight.view(-1, 1, 1).to(x.dtype) if conv.kernel_size == (1, 1) else conv(x)


class MSCB(nn.Module):
    """Multi-scale convolution: expand, sum of parallel depth-wise branches, channel shuffle, project, add the input.

        y = relu6(bn(conv1x1(x)));  z = sum_k relu6(bn(dw_kxk(y)));  out = x + bn(conv1x1(shuffle(z)))

    The shuffle has C groups of two channels: all even ones, then all odd ones.

    Shape: (B, C, H, W) -> (B, C, H, W)

    >>> from nnunet_attn.blocks import MSCB
    >>> MSCB(64)(torch.randn(2, 64, 28, 28)).shape
    torch.Size([2, 64, 28, 28])
    """

    def __init__(self, channels: int, *, expansion: int = 2, kernel_sizes: Sequence[int] = (1, 3, 5)):
        super().__init__()
        wide = expansion * channels
        self.channels, self.expansion = channels, expansion
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(True))
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(wide, wide, k, padding=k // 2, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(True)
            )
            for k in kernel_sizes
        )
        self.project = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", self.channels, "H", "W"))
        y, (_, norm) = self.expand(for_depthwise(x)), self.project
        scales = [depthwise(y, conv) for conv, *_ in self.branches]
        return x + norm(recomputed(self.projected, *scales, within=self.branches, cheap=True))

    def projected(self, *scales: torch.Tensor) -> torch.Tensor:
        """From the depth-wise convolutions of all branches to the last one. (B, 2 C, H, W) -> (B, C, H, W)."""
        z = reduce(torch.add, (act(norm(scale)) for scale, (_, norm, act) in zip(scales, self.branches, strict=True)))
        weight = self.project[0].weight.unflatten(1, (self.expansion, -1)).transpose(1, 2).flatten(1, 2)
        return F.conv2d(z, weight)  # with its inputs shuffled instead of the map, which is larger


class MSCAM(nn.Module):
    """Multi-scale convolutional attention: channel attention, spatial attention, ``MSCB``.

    Args of ``forward``: the map, and the spatial attention (the decoder's one, which is passed in so that its weights
    are registered once), or None for none.

    Shape: (B, C, H, W) -> (B, C, H, W)

    >>> from nnunet_attn.blocks import MSCAM, SAB
    >>> spatial_attention = SAB()
    >>> MSCAM(64)(torch.randn(2, 64, 28, 28), spatial_attention).shape
    torch.Size([2, 64, 28, 28])

    Args:
        channels: C.
        channel_attention: False leaves the channel attention out.
        expansion, kernel_sizes: See ``MSCB``.
    """

    def __init__(
        self,
        channels: int,
        *,
        channel_attention: bool = True,
        expansion: int = 2,
        kernel_sizes: Sequence[int] = (1, 3, 5),
    ):
        super().__init__()
        self.channel_attention = CAB(channels) if channel_attention else None
        self.multi_scale = MSCB(channels, expansion=expansion, kernel_sizes=kernel_sizes)

    def forward(self, x: torch.Tensor, spatial_attention: SAB | None) -> torch.Tensor:
        x = for_depthwise(x)
        if self.channel_attention is not None:
            x = x * self.channel_attention(x)
        if spatial_attention is not None:
            x = x * spatial_attention(x)
        return self.multi_scale(x)


class EUCB(nn.Sequential):
    """Efficient up-convolution: nearest x2, depth-wise 3x3, batch norm, ReLU, 1x1 to the new width.

    Shape: (B, C, H, W) -> (B, C', 2H, 2W)

    >>> from nnunet_attn.blocks import EUCB
    >>> EUCB(128, 64)(torch.randn(2, 128, 14, 14)).shape
    torch.Size([2, 64, 28, 28])
    """

    def __init__(self, in_channels: int, channels: int):
        super().__init__(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, channels, 1),
        )
        self.in_channels = in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", self.in_channels, "H", "W"))
        up, conv, norm, act, project = self
        x = recomputed(in_turn(up, conv), for_depthwise(x), cheap=True)
        return recomputed(in_turn(norm, act, project), x, within=norm, cheap=True)


class LGAG(nn.Module):
    """Large-kernel grouped attention gate: the decoder's signal ``g`` weights the encoder's map ``x``, per pixel.

        out = x * sigmoid(bn(conv1x1(relu(bn(gconv3x3(g)) + bn(gconv3x3(x))))))

    with grouped convolutions C -> C/2 of two input channels per group.

    Shape: g (B, C, H, W), x (B, C, H, W) -> (B, C, H, W)

    >>> from nnunet_attn.blocks import LGAG
    >>> g, x = torch.randn(2, 64, 28, 28), torch.randn(2, 64, 28, 28)
    >>> LGAG(64)(g, x).shape
    torch.Size([2, 64, 28, 28])
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels, half = channels, channels // 2

        def grouped() -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(channels, half, 3, padding=1, groups=half), nn.BatchNorm2d(half))

        self.signal, self.feature = grouped(), grouped()
        self.gate = nn.Sequential(nn.Conv2d(half, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "decoder signal", g, ("B", self.channels, "H", "W"))
        check_layout(self, "encoder map", x, tuple(g.shape))
        g, x = for_depthwise(g), for_depthwise(x)
        gate = self.gate(F.relu(self.signal(g) + self.feature(x)))
        note(self, lambda point: Maps(pixel={"gate": gate.squeeze(1)}))
        return x * gate
