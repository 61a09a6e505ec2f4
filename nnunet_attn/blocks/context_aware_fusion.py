"""Context-aware fusion (CAF): two encoders' maps of one scale become one, gated by channel and by place."""

from collections.abc import Sequence

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from torch import nn

from nnunet_attn.blocks.conv import per_axis
from nnunet_attn.blocks.layout import check_layout
from nnunet_attn.blocks.recompute import recomputed
from nnunet_attn.blocks.recording import Maps, note


class ContextAwareFusion(nn.Module):
    """Fuse maps of one shape. With ``n`` inputs F_i of ``C`` channels, [;] concatenation of channels:

        U     = [F_1; ...; F_n]
        G     = Conv_1x1(U)                                                   nC -> C
        w_ch  = sigmoid(Conv_1x1([mean_HW G; max_HW G]))                      2C -> nC, one value per channel of U
        w_sp  = sigmoid(Conv_7x7(sum_i Conv_1x1(F_i)))                        C -> 1, one value per pixel
        out   = w_sp * Conv_1x1(w_ch * U)                                     nC -> C, no bias

    Shape: n times (B, channels, H, W) -> (B, channels, H, W).

    >>> from nnunet_attn.blocks import ContextAwareFusion
    >>> fuse = ContextAwareFusion(72)
    >>> fuse(torch.randn(2, 72, 28, 28), torch.randn(2, 72, 28, 28)).shape
    torch.Size([2, 72, 28, 28])

    Args:
        channels: Channels ``C`` of each input and of the output.
        inputs: Number ``n`` of inputs; 1 leaves the same gates on a single encoder.
        dim: Number of spatial axes.
        spatial_kernel: Of the convolution of Eq. (5), one number or one an axis.
        recompute: Compute what the fusion keeps again in the backward pass; same numbers.

    Raises:
        ValueError: another number of inputs than announced.

    Reference: Liu, Xu, Ho, FIAS (arXiv:2411.10881), Eq. (3)-(6).

    Deviations: P_map in Eq. (3) is max pooling, as the text says. Our choices: one inner convolution for both pools of
    Eq. (3), nC -> C; P_avg of Eq. (5) averages over channels (a spatial mean would leave no map), and the mean of a 1x1
    convolution is a 1x1 convolution to one channel, which is what stands here; the last convolution of Eq. (5) is 7x7,
    since with one channel in and out a 1x1 would be a scale and a shift.
    """

    def __init__(
        self,
        channels: int,
        *,
        inputs: int = 2,
        dim: int = 2,
        spatial_kernel: int | Sequence[int] = 7,
        recompute: bool = False,
    ):
        super().__init__()
        self.channels, self.recompute, conv = channels, recompute, convert_dim_to_conv_op(dim)
        self.axes = tuple(range(2, 2 + dim))
        sides = per_axis(spatial_kernel, dim)
        self.gather = conv(inputs * channels, channels, 1)
        self.channel_gate = conv(2 * channels, inputs * channels, 1)
        self.reduce = conv(inputs * channels, channels, 1, bias=False)
        self.to_plane = nn.ModuleList(conv(channels, 1, 1) for _ in range(inputs))
        self.spatial_gate = conv(1, 1, sides, padding=tuple(side // 2 for side in sides))

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        if len(maps) != len(self.to_plane):
            raise ValueError(f"made for {len(self.to_plane)} input(s), got {len(maps)}")
        for number, x in enumerate(maps, start=1):
            check_layout(self, f"input {number}", x, ("B", self.channels, *maps[0].shape[2:]))
        return recomputed(self.fuse, *maps) if self.recompute else self.fuse(*maps)

    def fuse(self, *maps: torch.Tensor) -> torch.Tensor:
        united = torch.cat(maps, dim=1)
        gathered = self.gather(united)
        pooled = torch.cat((gathered.mean(self.axes, keepdim=True), gathered.amax(self.axes, keepdim=True)), dim=1)
        w_channel = self.channel_gate(pooled).sigmoid()  # (B, nC, 1, 1)
        w_spatial = self.spatial_gate(sum(conv(x) for conv, x in zip(self.to_plane, maps, strict=True))).sigmoid()
        note(
            self,
            lambda point: Maps(
                pixel={"spatial weights": w_spatial.squeeze(1)}, channel={"channel weights": w_channel.flatten(1)}
            ),
        )
        return w_spatial * self.reduce(w_channel * united)
