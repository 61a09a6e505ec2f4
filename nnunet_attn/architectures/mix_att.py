"""MixAtt: FIAS's parts (dilated attention, multi-kernel blocks, two fusions) on nnU-Net's own networks.

Our design, not the paper's network (that is ``FIAS``).

Reference: Liu, Xu, Ho, "FIAS: Feature Imbalance-Aware Medical Image Segmentation with Dynamic Fusion and Mixing
Attention", ISBI 2025 (arXiv:2411.10881), Eq. (1)-(10).
"""

import math
from collections.abc import Sequence

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_attn.architectures.planned import (
    OnPlans,
    Stage,
    coarse_levels,
    host_act,
    host_norm,
    most_heads,
    stages_of,
)
from nnunet_attn.blocks.context_aware_fusion import ContextAwareFusion
from nnunet_attn.blocks.conv import ConvNormAct
from nnunet_attn.blocks.depthwise_multi_kernel import wider_kernels
from nnunet_attn.blocks.dilated_attention import MultiScaleDilatedAttention
from nnunet_attn.blocks.dilated_block import DilatedBlock
from nnunet_attn.blocks.global_attention import GlobalAttention
from nnunet_attn.blocks.layout import for_depthwise, layout_of
from nnunet_attn.blocks.mixing_attention import MixingAttention
from nnunet_attn.blocks.options import check_option
from nnunet_attn.blocks.recompute import recomputed

FUSIONS = ("caf", "sum")
MOST_HEADS = 4
DILATIONS = (1, 2, 3, 1)  # of the heads


class MultiKernel(nn.Module):
    """FIAS's multi-kernel convolutions at one size: ``F = CNA_1(x + DW_5(x) + DW_7(x))`` (Eq. 1 and 2 with L = x).

    CNA is a 1x1 convolution with the host's norm and activation. Shape: (B, C, *size) -> (B, C, *size).
    """

    def __init__(self, stage: Stage, encoder: nn.Module):
        super().__init__()
        dim, norm = len(stage.stride), host_norm(encoder)
        self.recompute = True
        self.wider = wider_kernels(stage.channels, [stage.extent(5), stage.extent(7)], dim=dim)
        self.mix = ConvNormAct(
            stage.channels, stage.channels, 1, norm=norm, act=host_act(encoder), bias=norm is None, dim=dim
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return recomputed(self.convolve, x, within=self.mix) if self.recompute else self.convolve(x)

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        x = for_depthwise(x)
        return self.mix(x + sum(conv(x) for conv in self.wider))


class Sum(nn.Module):
    """Sum of two maps, the ablation of the context-aware fusion."""

    def forward(self, host: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
        return host + path


class Gained(nn.Module):
    """``x + g * branch(x, ...)`` with a factor ``g`` per channel that ``initialize`` sets to 0 for a zero start.

    Its shape (C, 1, ...) makes the recipe decay ``g`` like a weight, which pulls the branch towards its start.

    Shape: (B, C, *size), and what the branch takes, -> (B, C, *size).
    """

    def __init__(self, branch: nn.Module, channels: int, *, dim: int, zero_start: bool):
        super().__init__()
        self.branch, self.zero_start = branch, zero_start
        self.gain = nn.Parameter(torch.ones(channels, *(1,) * dim))

    def initialize(self) -> None:
        nn.init.constant_(self.gain, 0.0 if self.zero_start else 1.0)

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return x + self.gain * self.branch(x, *others)


class GlobalPath(nn.Module):
    """The second encoder: steps from the image to the coarse stages, each followed by one block of DilateFormer.

    The first step is a convolution whose kernel and stride are the stage's stride, the others strided convolutions like
    the host's. All but the deepest two blocks attend to dilated neighbourhoods; these two to all voxels where there are
    at most ``max_tokens``.

    Shape: (B, input_channels, *size) -> a map (B, C, *grid) for each stage.
    """

    def __init__(
        self,
        input_channels: int,
        stages: Sequence[Stage],
        patch_size: Sequence[int],
        encoder: nn.Module,
        *,
        attention: bool,
        max_tokens: int,
    ):
        super().__init__()
        dim, norm = len(patch_size), host_norm(encoder)
        self.steps, self.blocks = nn.ModuleList(), nn.ModuleList()
        before = input_channels
        for number, stage in enumerate(stages):
            heads = most_heads(stage.channels, MOST_HEADS)
            tokens = math.prod(stage.grid(patch_size))
            if number == 0:
                step: nn.Module = encoder.conv_op(before, stage.channels, stage.stride, stage.stride)
            else:
                step = ConvNormAct(
                    before, stage.channels, stage.extent(3), stride=stage.step, norm=norm, act=None,
                    bias=norm is None, dim=dim,
                )  # fmt: skip
            attend: nn.Module | None = None
            if attention and number >= len(stages) - 2 and tokens <= max_tokens:
                attend = GlobalAttention(stage.channels, heads, dim=dim)
            elif attention:
                flat = [not along for along in stage.convolved]
                attend = MultiScaleDilatedAttention(
                    stage.channels, heads, dilations=DILATIONS[:heads], dim=dim, flat=flat
                )  # fmt: skip
            self.steps.append(step)
            self.blocks.append(DilatedBlock(stage.channels, attend, kernel=stage.extent(3), dim=dim, recompute=True))
            before = stage.channels

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for step, block in zip(self.steps, self.blocks, strict=True):
            x = step(x)
            x = block(for_depthwise(x)).contiguous(memory_format=layout_of(x))
            maps.append(x)
        return maps


class MixAttOnPlans(OnPlans):
    """FIAS's parts on a U-Net of nnU-Net, 2D and 3D, any planned strides.

    With e_s the output of stage s of the host's encoder, p_s of the global path, d_s of the host's decoder::

        e_s = stage_s(e_{s-1}),   e_s <- e_s + g * DMK(e_s)                    Eq. (1)-(2)
        skip_s = e_s + g * CAF(e_s, p_s)                                       Eq. (3)-(6)
        d_s = stage'_s([up(d_{s+1}); skip_s]),   d_s <- d_s + g * MixAtt(d_s)  Eq. (8)-(10)

    on the stages of stride 4 or more, MixAtt where they have at most ``max_tokens`` voxels; finer stages stay the
    host's. As in the paper the two encoders do not read each other, only the decoder reads their fusion. Every ``g`` is
    one learned factor a channel that starts at 0 (``initialize`` does it, as nnU-Net calls it), so the network starts
    as its host, bit by bit, and all of the host's weights fit. Where the plans do not convolve an axis yet, kernels and
    neighbourhoods have extent 1 there.

    Parameters of the host keep their names; ours begin with ``path``, ``dmk``, ``fuse`` and ``mix``.

    Shape: (B, input_channels, *size) -> (B, num_classes, *size), or a list of maps with deep supervision.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        patch_size: Of the plans; decides which stages are within ``max_tokens``. Other sizes are possible in
            ``forward``.
        dmk: Whether the host's stages get multi-kernel convolutions.
        fusion: "caf", or "sum" of the two maps.
        mixatt: Whether the decoder's stages get mixing attention.
        attention: Whether the global path attends; without, its blocks are depth-wise convolutions and MLPs.
        max_tokens: Most voxels of a stage whose attention is between all voxels.
        min_stride: Least stride of a stage with more than the host's, on any axis.
        zero_start: Whether ``initialize`` starts the network as its host.
        deep_supervision: nnU-Net's.
        host: The host's own arguments.

    Raises:
        ValueError: an unknown option.

    Deviations: all of this is our design. From the paper: the formulas of the parts, dilations 1 to 3. Ours: the sites,
    one block a stage, the factors ``g``, up to 4 heads that divide the width, head i with dilation 1, 2, 3, 1; norm and
    activation of DMK and of the path's steps are the host's; at most 2048 tokens: at stride 4 of
    256 x 224 (3584) attention between all takes a quarter of a training step.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        patch_size: Sequence[int],
        dmk: bool = True,
        fusion: str = "caf",
        mixatt: bool = True,
        attention: bool = True,
        max_tokens: int = 2048,
        min_stride: int = 4,
        zero_start: bool = True,
        deep_supervision: bool = False,
        **host: object,
    ):
        check_option("fusion", fusion, FUSIONS)
        super().__init__(
            input_channels=input_channels, num_classes=num_classes, deep_supervision=deep_supervision, **host
        )
        stages, dim = stages_of(self.encoder), len(patch_size)
        levels = coarse_levels(stages, patch_size, 2**62, min_stride)
        self.levels = levels
        self.path = GlobalPath(
            input_channels, [stages[level] for level in levels], patch_size, self.encoder,
            attention=attention, max_tokens=max_tokens,
        )  # fmt: skip
        self.dmk, self.fuse, self.mix = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for level in levels:
            stage = stages[level]
            width, key = stage.channels, str(level)

            def gained(branch: nn.Module, width: int = width) -> Gained:
                return Gained(branch, width, dim=dim, zero_start=zero_start)

            if dmk:
                self.dmk[key] = gained(MultiKernel(stage, self.encoder))
            caf = ContextAwareFusion(width, dim=dim, spatial_kernel=stage.extent(7), recompute=True)
            self.fuse[key] = gained(caf if fusion == "caf" else Sum())
            if mixatt and level < len(stages) - 1 and math.prod(stage.grid(patch_size)) <= max_tokens:
                heads = most_heads(width, MOST_HEADS)
                self.mix[key] = gained(MixingAttention(width, heads, dim=dim, recompute=True))

    @classmethod
    def initialize(cls, module: nn.Module) -> None:
        """The host's initialisation, then ours; nnU-Net applies it to every module, children first."""
        super().initialize(module)
        if isinstance(module, Gained):
            module.initialize()

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = dict(zip(self.levels, self.path(x), strict=True))
        x, outputs = self.stem(x), []
        for level, stage in enumerate(self.encoder.stages):
            x = stage(x)
            if str(level) in self.dmk:
                x = self.dmk[str(level)](x)
            outputs.append(self.fuse[str(level)](x, maps[level]) if level in maps else x)
        return outputs

    def finish(self, level: int, x: torch.Tensor) -> torch.Tensor:
        return self.mix[str(level)](x) if str(level) in self.mix else x

    def added_parts(self) -> list[tuple[int, nn.Module, int]]:
        parts = [(level, block, 1) for level, block in zip(self.levels, self.path.blocks, strict=True)]
        for maps, modules in ((1, self.dmk), (2, self.fuse), (1, self.mix)):
            parts += [(int(level), module, maps) for level, module in modules.items()]
        return parts


class MixAttPlainConvUNet(MixAttOnPlans, PlainConvUNet):
    """nnU-Net's ``PlainConvUNet`` with MixAtt, 2D or 3D; see ``MixAttOnPlans``.

    Shape: (B, input_channels, *size) -> (B, num_classes, *size), or a list of maps with deep supervision.

    >>> from nnunet_attn.architectures import MixAttPlainConvUNet
    >>> planned = dict(
    ...     n_stages=3, features_per_stage=(16, 32, 64), conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.ReLU,
    ...     kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), conv_bias=True,
    ...     n_conv_per_stage=(2, 2, 2), n_conv_per_stage_decoder=(2, 2),
    ... )
    >>> net = MixAttPlainConvUNet(1, 2, patch_size=(8, 32, 32), **planned).eval()
    >>> net(torch.randn(1, 1, 8, 32, 32)).shape
    torch.Size([1, 2, 8, 32, 32])
    """


class MixAttResidualEncoderUNet(MixAttOnPlans, ResidualEncoderUNet):
    """nnU-Net's ``ResidualEncoderUNet`` with MixAtt, 2D or 3D; see ``MixAttOnPlans``.

    Shape: (B, input_channels, *size) -> (B, num_classes, *size), or a list of maps with deep supervision.

    >>> from nnunet_attn.architectures import MixAttResidualEncoderUNet
    >>> planned = dict(
    ...     n_stages=3, features_per_stage=(16, 32, 64), conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.ReLU,
    ...     kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), conv_bias=True,
    ...     n_blocks_per_stage=(2, 2, 2), n_conv_per_stage_decoder=(2, 2),
    ... )
    >>> net = MixAttResidualEncoderUNet(1, 2, patch_size=(8, 32, 32), **planned).eval()
    >>> net(torch.randn(1, 1, 8, 32, 32)).shape
    torch.Size([1, 2, 8, 32, 32])
    """
