"""XAttnRes on the paper's U-Net and on the networks that nnU-Net's plans name."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.helper import convert_conv_op_to_dim
from dynamic_network_architectures.building_blocks.residual import StackedResidualBlocks
from torch import nn

from nnunet_attn.architectures.planned import narrow_decoder
from nnunet_attn.blocks.cross_stage_attention import CrossStageAttentionResidual
from nnunet_attn.blocks.feature_history import FeatureHistory
from nnunet_attn.blocks.options import check_option

Mixin: Any = object  # to mypy: with whatever the class's other base has

MODES = ("both", "replace", "none", "skip")
POSITIONS = ("full", "encoder", "decoder")
SITES = ("up", "concat")


def readers(
    channels: Sequence[int], first_history: Sequence[int], outputs: Sequence[int], *, active: bool, **options: Any
) -> nn.ModuleList:
    """One XAttnRes per stage of an encoder or decoder; each returns its input unchanged unless ``active``.

    Args:
        channels: Width of what each stage hands to its XAttnRes.
        first_history: Widths of the history before the path's first stage.
        outputs: Widths of the stages' outputs, each of which joins the history.
        active: Whether to read at all.
        options: Of ``CrossStageAttentionResidual``.
    """
    histories = [[*first_history, *outputs[:n]] if active else [] for n in range(len(channels))]
    return nn.ModuleList(
        CrossStageAttentionResidual(width, history, **options)
        for width, history in zip(channels, histories, strict=True)
    )


def double_conv(in_channels: int, channels: int) -> nn.Sequential:
    """Twice: 3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNetDecoder(nn.Module):
    """Stages and head of the U-Net's decoder, deepest first; ``XAttnResUNet.forward`` runs them."""

    def __init__(self, widths: Sequence[int], num_classes: int, *, skips: bool):
        super().__init__()
        self.deep_supervision = False
        skip_widths = list(reversed(widths[:-1]))
        self.widths = [*skip_widths[1:], widths[0]]
        self.up_widths = [widths[-1], *self.widths[:-1]]
        self.stages = nn.ModuleList(
            double_conv(up + skip if skips else up, width)
            for up, skip, width in zip(self.up_widths, skip_widths, self.widths, strict=True)
        )
        self.seg_layers = nn.ModuleList([nn.Conv2d(widths[0], num_classes, 1)])


class XAttnResUNet(nn.Module):
    """The paper's U-Net with XAttnRes before each stage; 1,062,361 parameters as a host (3 channels, 1 class).

        e_i = f_i(XAttnRes(H, down(e_{i-1})))                    H = [e_1 .. e_{i-1}]                       (eq. 10)
        d_j = f_j([skip; XAttnRes(H, up(d_{j-1}))])              H = [e_1 .. e_S, d_1 .. d_{j-1}]

    The second is eq. 11 with the skip connection, which the paper's text keeps; as printed, without it, eq. 11 is
    "replace".

    down: max pooling by 2; up: bilinear to the skip's size, aligned corners; f: twice 3x3 convolution, batch norm, ReLU
    Any image size: an odd side is pooled to its half, rounded down, and enlarged back to the skip's size; one of a
    single pixel stays.

    | mode, position, site (3 channels, 1 class) | parameters |
    |---|---|
    | both, full, up (default) | 1,154,161 |
    | both, encoder only / decoder only | 1,085,581 / 1,130,941 |
    | both, full, concat | 1,278,469 (paper: 1.28 M) |
    | replace / none | 1,028,773 / 936,973 |

    The convolutions of "replace" and "none" read C channels instead of 2C, so these networks are smaller than the host.

    Pooling and interpolation are those of the host, so the newest entry of the history, brought to the stage's size,
    equals ``x`` where sizes are even. Encoder stage 2, whose history is that one entry, is therefore the identity and
    its query gets no gradient; elsewhere ``x`` counts twice.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        widths: Widths of the encoder's stages.
        mode: "both", "replace" (XAttnRes in place of the skip connections), "none" (neither), "skip" (the host).
        position: "full", "encoder" or "decoder".
        query_init, query_std: See ``CrossStageAttentionResidual``.
        site: What the decoder's XAttnRes refines: "up", the enlarged map, or "concat", that with the skip (our reading
            of the published parameter count; mode "both" only).
        deep_supervision: Must be False: there is one head.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W)

    >>> from nnunet_attn.architectures import XAttnResUNet
    >>> net = XAttnResUNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])

    Raises:
        ValueError: an unknown option, or deep supervision.

    Reference: Liu, Xu, Chen, "XAttnRes: Cross-Stage Attention Residuals for Medical Image Segmentation",
    arXiv:2604.03297, Eq. (9)-(11), Tables 2-5.

    Deviations: the paper prints +0.22 M parameters and +0.37 G for XAttnRes here, which no literal reading of its
    equations gives; "concat" comes nearest (+0.216 M). Widths are inferred from the published 1.06 M and 2.50 G.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        widths: Sequence[int] = (18, 36, 72, 144, 144),
        mode: str = "both",
        position: str = "full",
        query_init: str = "zero",
        query_std: float = 0.02,
        site: str = "up",
        deep_supervision: bool = False,
    ):
        super().__init__()
        check_option("mode", mode, MODES)
        check_option("position", position, POSITIONS)
        check_option("site", site, SITES)
        if site == "concat" and mode != "both":
            raise ValueError(f'site "concat" needs the skip connection and XAttnRes, hence mode "both", got {mode!r}')
        if deep_supervision:
            raise ValueError(
                "XAttnResUNet has one head and no deep supervision; with plans that name it, train by "
                "nnUNetTrainerNoDeepSupervision"
            )
        self.skips, self.concat = mode in ("both", "skip"), site == "concat"
        active = mode in ("both", "replace")
        self.encoder = nn.ModuleList(double_conv(*pair) for pair in pairwise((input_channels, *widths)))
        self.decoder = UNetDecoder(widths, num_classes, skips=self.skips)
        into = self.decoder.up_widths
        if self.concat:
            into = [up + skip for up, skip in zip(into, reversed(widths[:-1]), strict=True)]
        options = {"query_init": query_init, "query_std": query_std, "align_corners": True}
        self.x_enc = readers(
            (input_channels, *widths[:-1]), (), widths, active=active and position != "decoder", **options
        )
        self.x_dec = readers(into, widths, self.decoder.widths, active=active and position != "encoder", **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        history = FeatureHistory()
        for stage, read in zip(self.encoder, self.x_enc, strict=True):
            down = F.max_pool2d(x, [min(2, side) for side in x.shape[2:]]) if len(history) else x
            x = stage(read(history, down))
            history.append(x)
        *skips, x = history.features
        for stage, read, skip in zip(self.decoder.stages, self.x_dec, reversed(skips), strict=True):
            up = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=True)
            if self.concat:
                up = read(history, torch.cat([skip, up], dim=1))
            else:
                up = read(history, up)
                up = torch.cat([skip, up], dim=1) if self.skips else up
            x = stage(up)
            history.append(x)
        return self.decoder.seg_layers[-1](x)


class _XAttnResOnPlans(Mixin):
    """XAttnRes on a U-Net of nnU-Net, which comes second among the base classes; 2D and 3D, any strides.

    Where nnU-Net has no separate "down", its first strided unit is it: in encoder stage s > 1,

        y = unit_1(e_{s-1});  e_s = unit_n(.. unit_2(XAttnRes([e_1 .. e_{s-1}], y)))

    and in the decoder ``up`` is the transposed convolution: ``d_j = stage_j([XAttnRes(H, up(d_{j-1})); skip])``.

    Parameters of the host keep their names; those of XAttnRes begin with ``x_enc`` and ``x_dec``. With mode "skip" the
    network is the host, bit by bit, and loads its weights strictly. With "replace" and "none" the decoder's first
    convolutions read C channels instead of 2C.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        mode: str = "both",
        position: str = "full",
        query_init: str = "zero",
        query_std: float = 0.02,
        deep_supervision: bool = False,
        **host: Any,
    ):
        check_option("mode", mode, MODES)
        check_option("position", position, POSITIONS)
        super().__init__(
            input_channels=input_channels, num_classes=num_classes, deep_supervision=deep_supervision, **host
        )
        self.skips = mode in ("both", "skip")
        active = mode in ("both", "replace")
        widths = list(self.encoder.output_channels)
        upwards = widths[-2::-1]
        options = {
            "dim": convert_conv_op_to_dim(self.encoder.conv_op), "query_init": query_init, "query_std": query_std
        }  # fmt: skip
        self.x_enc = readers(widths, (), widths, active=active and position != "decoder", **options)
        self.x_dec = readers(upwards, widths, upwards, active=active and position != "encoder", **options)
        if not self.skips:
            narrow_decoder(self, range(len(widths) - 1), nonlin_first=host.get("nonlin_first", False))

    @staticmethod
    def stage_units(stage: nn.Module) -> nn.Sequential:
        """The units of an encoder stage of nnU-Net's, the strided one first."""
        return stage.blocks if isinstance(stage, StackedResidualBlocks) else stage[0].convs

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        history = FeatureHistory()
        stem = getattr(self.encoder, "stem", None)
        x = x if stem is None else stem(x)
        for stage, read in zip(self.encoder.stages, self.x_enc, strict=True):
            first, *others = self.stage_units(stage)
            x = read(history, first(x))
            for unit in others:
                x = unit(x)
            history.append(x)
        *skips, x = history.features
        decoder, outputs = self.decoder, []
        for up, read, stage, head, skip in zip(
            decoder.transpconvs, self.x_dec, decoder.stages, decoder.seg_layers, reversed(skips), strict=True
        ):
            x = read(history, up(x))
            x = stage(torch.cat((x, skip), 1) if self.skips else x)
            history.append(x)
            if decoder.deep_supervision or stage is decoder.stages[-1]:
                outputs.append(head(x))
        return outputs[::-1] if decoder.deep_supervision else outputs[0]

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> np.int64:
        """nnU-Net's measure of memory, the numbers in all feature maps: the host's and what XAttnRes keeps.

        That is ``x`` (decoder) or the output (encoder), two statistics per pixel and value, and each pooled entry with
        the positions of its maxima. nnU-Net counts one map per convolution where training keeps two, so this is on the
        safe side by a factor of two: room for the values that the backward pass rebuilds.
        """
        voxels, size = [], list(input_size)
        for stride in self.encoder.strides:
            size = [side // step for side, step in zip(size, stride, strict=True)]
            voxels.append(math.prod(size))
        numbers, pooled = super().compute_conv_feature_map_size(input_size), set()
        levels = range(len(voxels))
        for read, level in zip((*self.x_enc, *self.x_dec), (*levels, *reversed(levels[:-1])), strict=True):
            if read.history_channels:
                numbers += (read.channels + 2 * (len(read.history_channels) + 1)) * voxels[level]
                pooled |= {(entry, level) for entry in range(level)}
        return numbers + sum(2 * self.encoder.output_channels[entry] * voxels[level] for entry, level in pooled)


class XAttnResPlainConvUNet(_XAttnResOnPlans, PlainConvUNet):
    """XAttnRes on nnU-Net's default network, 2D or 3D.

    Shape: (B, input_channels, *size) -> (B, num_classes, *size), or a list of maps with deep supervision.

    >>> from nnunet_attn.architectures import XAttnResPlainConvUNet
    >>> planned = dict(
    ...     n_stages=3, features_per_stage=(16, 32, 64), conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.ReLU,
    ...     kernel_sizes=((3, 3, 3),) * 3, strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), conv_bias=True,
    ...     n_conv_per_stage=(2, 2, 2), n_conv_per_stage_decoder=(2, 2),
    ... )
    >>> net = XAttnResPlainConvUNet(1, 2, **planned).eval()
    >>> net(torch.randn(1, 1, 8, 32, 32)).shape
    torch.Size([1, 2, 8, 32, 32])
    """


class XAttnResResidualEncoderUNet(_XAttnResOnPlans, ResidualEncoderUNet):
    """XAttnRes on nnU-Net's network with residual encoder, 2D or 3D.

    Shape: (B, input_channels, *size) -> (B, num_classes, *size), or a list of maps with deep supervision.

    >>> from nnunet_attn.architectures import XAttnResResidualEncoderUNet
    >>> planned = dict(
    ...     n_stages=3, features_per_stage=(16, 32, 64), conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.ReLU,
    ...     kernel_sizes=((3, 3, 3),) * 3, strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), conv_bias=True,
    ...     n_blocks_per_stage=(2, 2, 2), n_conv_per_stage_decoder=(2, 2),
    ... )
    >>> net = XAttnResResidualEncoderUNet(1, 2, **planned).eval()
    >>> net(torch.randn(1, 1, 8, 32, 32)).shape
    torch.Size([1, 2, 8, 32, 32])
    """
