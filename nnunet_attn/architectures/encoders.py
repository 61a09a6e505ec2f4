"""Encoders of other people's making that our networks build on, and the names of their published weights."""

import re

import timm
import torch
from timm.models.pvt_v2 import MlpWithDepthwiseConv, checkpoint_filter_fn
from torch import nn

from nnunet_attn.blocks.recompute import ActLinear

PVT_V2_B2 = "pvt_v2_b2"
PVT_V2_B2_WIDTHS = (64, 128, 320, 512)


def pvt_v2_b2(input_channels: int = 3, *, drop_path_rate: float = 0.1) -> nn.Module:
    """PVTv2-B2 of timm: maps of 64, 128, 320 and 512 channels at 1/4, 1/8, 1/16 and 1/32; 24,849,856 parameters.

    The drop path rate is that of the original (timm's own default is 0).

    Shape: (B, input_channels, H, W) -> list of four, H and W multiples of 32

    Reference: Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer", arXiv:2106.13797.
    """
    encoder = timm.create_model(PVT_V2_B2, features_only=True, in_chans=input_channels, drop_path_rate=drop_path_rate)
    for mlp in encoder.modules():
        if isinstance(mlp, MlpWithDepthwiseConv):  # the hidden values are kept before the activation alone
            mlp.act, mlp.fc2 = nn.Identity(), ActLinear.of(mlp.fc2)
    return encoder


def pvt_v2_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``weights`` under the names of ``pvt_v2_b2``, from those of PVTv2's release or of timm's classifier.

    The classifier's head is left out; names that are neither are kept, for the loader to refuse.
    """
    classifier = checkpoint_filter_fn(weights, None)
    return {re.sub(r"^stages\.", "stages_", k): v for k, v in classifier.items() if not k.startswith("head.")}
