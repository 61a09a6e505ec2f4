"""DiffCA: DCAU-Net's two ideas, differential cross attention and channel-spatial fusion, on nnU-Net's own networks.

Our design, not the paper's network (that is ``DCAUNet``); "DCA" is Dual Cross-Attention's acronym, hence the name.

Reference: Y. Li, H. Wan, L. Lan, "DCAU-Net: Differential Cross Attention and Channel-Spatial Feature Fusion for Medical
Image Segmentation", arXiv:2603.09530 (2026), Eq. (1)-(19).
"""

from collections.abc import Sequence

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_attn.architectures.planned import (
    OnPlans,
    coarse_levels,
    host_act,
    host_norm,
    most_heads,
    narrow_decoder,
    stages_of,
)
from nnunet_attn.blocks.channel_spatial_fusion import ChannelSpatialFusion
from nnunet_attn.blocks.dca_block import ATTENTIONS, DCABlock, differential_attention
from nnunet_attn.blocks.options import check_option

FUSIONS = ("csff", "concat")


class DiffCAOnPlans(OnPlans):
    """Differential cross attention and channel-spatial fusion on a U-Net of nnU-Net, 2D and 3D, any planned strides.

    With e_s the output of stage s of the encoder and d_s of the decoder's stage on the same grid::

        e_s = DCABlock(stage_s(e_{s-1}))                     Eq. (1)-(10)
        d_s = stage'_s(CSFF(e_s, up(d_{s+1})))               Eq. (11)-(19)

    on the stages of stride 4 or more, as in the paper, that have at most ``max_tokens`` voxels; finer ones stay the
    host's. Keys and values are means of windows of 7 voxels an axis. Where the plans do not convolve an axis yet
    (kernel 1: thick slices), windows and kernels have one voxel there: 1 x 7 x 7. A grid that one window covers takes
    its voxels as keys.

    Parameters of the host keep their names; ours begin with ``attention`` and ``fusion``. Where CSFF stands for the
    concatenation, the first convolution of the decoder's stage reads C channels instead of 2 C, so the host's weights
    do not fit there. With ``fusion`` "concat" they all fit, and the network starts as its host, bit by bit: the last
    layers of the attention blocks start at 0. ``initialize`` does that, as nnU-Net calls it.

    Shape: (B, input_channels, *size) -> (B, num_classes, *size), or a list of maps with deep supervision.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        patch_size: Of the plans; decides which stages are within ``max_tokens``. Other sizes are possible in
            ``forward``.
        attention: "differential", "standard" (the baseline of Table IV), or "none": blocks of depth-wise convolution
            and MLP alone.
        fusion: "csff", or "concat": the host's.
        blocks: Attention blocks a stage.
        max_tokens: Most voxels of a stage with attention.
        min_stride: Least stride of a stage with attention or CSFF, on any axis.
        window: Side of the windows.
        head_width: Width 2 d of a differential head; as many heads as fit this width and divide the stage's.
        fusion_kernel: Side of the kernels of Eq. (11)-(13).
        zero_start: Whether ``initialize`` starts the attention blocks as the identity.
        implementation: "fused" or "plain", see ``WindowCrossAttention``. Same weights, same numbers.
        deep_supervision: nnU-Net's.
        host: The host's own arguments.

    Raises:
        ValueError: an unknown option, an odd width on a stage with attention, a last stage beyond ``max_tokens``.

    Deviations: all of this is our design. From the paper: the block, window 7, one lambda a block on the schedule over
    depth, fusion from stride 4 on. Ours: the kernels of Eq. (11) and (12) are 1, which keeps the cost near the
    host's; norm and activation of the fusion are the host's. With instance norm the mean over a channel before the
    activation is fixed, so the channel attention tells channels apart by maximum and by the activation's mean.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        patch_size: Sequence[int],
        attention: str = "differential",
        fusion: str = "csff",
        blocks: int = 1,
        max_tokens: int = 65536,
        min_stride: int = 4,
        window: int = 7,
        head_width: int = 64,
        fusion_kernel: int = 1,
        zero_start: bool = True,
        implementation: str = "fused",
        deep_supervision: bool = False,
        **host: object,
    ):
        check_option("attention", attention, ATTENTIONS)
        check_option("fusion", fusion, FUSIONS)
        super().__init__(
            input_channels=input_channels, num_classes=num_classes, deep_supervision=deep_supervision, **host
        )
        stages = stages_of(self.encoder)
        levels = coarse_levels(stages, patch_size, max_tokens, min_stride)
        self.attention = nn.ModuleList(nn.Sequential() for _ in stages)
        self.fusion = nn.ModuleDict()
        depth = 0
        for level in levels:
            stage, dim = stages[level], len(patch_size)
            if stage.channels % 2:
                raise ValueError(f"differential attention needs even widths, but stage {level} has {stage.channels}")
            heads = most_heads(stage.channels // 2, stage.channels // head_width)
            for _ in range(blocks):
                depth += 1
                module = differential_attention(
                    stage.channels, heads, depth, attention=attention, window=stage.extent(window),
                    implementation=implementation, dim=dim,
                )  # fmt: skip
                block = DCABlock(
                    stage.channels, module, norm="pre", kernel=stage.extent(3), dim=dim, recompute=True,
                    zero_start=zero_start,
                )  # fmt: skip
                self.attention[level].append(block)
            if fusion == "csff" and level < len(stages) - 1:
                self.fusion[str(level)] = ChannelSpatialFusion(
                    stage.channels, reduction=min(16, stage.channels), dim=dim,
                    refine_kernel=stage.extent(fusion_kernel), join_kernel=stage.extent(fusion_kernel),
                    spatial_kernel=stage.extent(7), norm=host_norm(self.encoder), act=host_act(self.encoder),
                )  # fmt: skip
        narrow_decoder(self, [int(level) for level in self.fusion], nonlin_first=host.get("nonlin_first", False))

    @classmethod
    def initialize(cls, module: nn.Module) -> None:
        """The host's initialisation, then ours; nnU-Net applies it to every module, children first."""
        super().initialize(module)
        if isinstance(module, DCABlock):
            module.initialize()

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        x, outputs = self.stem(x), []
        for stage, attend in zip(self.encoder.stages, self.attention, strict=True):
            x = attend(stage(x))
            outputs.append(x)
        return outputs

    def join(self, level: int, up: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        if str(level) in self.fusion:
            return self.fusion[str(level)](skip, up)
        return super().join(level, up, skip)

    def added_parts(self) -> list[tuple[int, nn.Module, int]]:
        blocks = [(level, block, 1) for level, stage in enumerate(self.attention) for block in stage]
        return blocks + [(int(level), fuse, 2) for level, fuse in self.fusion.items()]


class DiffCAPlainConvUNet(DiffCAOnPlans, PlainConvUNet):
    """nnU-Net's ``PlainConvUNet`` with DiffCA, 2D or 3D; see ``DiffCAOnPlans``.

    Shape: (B, input_channels, *size) -> (B, num_classes, *size), or a list of maps with deep supervision.

    >>> from nnunet_attn.architectures import DiffCAPlainConvUNet
    >>> planned = dict(
    ...     n_stages=3, features_per_stage=(16, 32, 64), conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.ReLU,
    ...     kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), conv_bias=True,
    ...     n_conv_per_stage=(2, 2, 2), n_conv_per_stage_decoder=(2, 2),
    ... )
    >>> net = DiffCAPlainConvUNet(1, 2, patch_size=(8, 32, 32), **planned).eval()
    >>> net(torch.randn(1, 1, 8, 32, 32)).shape
    torch.Size([1, 2, 8, 32, 32])
    """


class DiffCAResidualEncoderUNet(DiffCAOnPlans, ResidualEncoderUNet):
    """nnU-Net's ``ResidualEncoderUNet`` with DiffCA, 2D or 3D; see ``DiffCAOnPlans``.

    Shape: (B, input_channels, *size) -> (B, num_classes, *size), or a list of maps with deep supervision.

    >>> from nnunet_attn.architectures import DiffCAResidualEncoderUNet
    >>> planned = dict(
    ...     n_stages=3, features_per_stage=(16, 32, 64), conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.ReLU,
    ...     kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), conv_bias=True,
    ...     n_blocks_per_stage=(2, 2, 2), n_conv_per_stage_decoder=(2, 2),
    ... )
    >>> net = DiffCAResidualEncoderUNet(1, 2, patch_size=(8, 32, 32), **planned).eval()
    >>> net(torch.randn(1, 1, 8, 32, 32)).shape
    torch.Size([1, 2, 8, 32, 32])
    """
