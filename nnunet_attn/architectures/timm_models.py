"""DCAU-Net's encoder as a classifier that timm's own training script knows, for pre-training on ImageNet.

Importing this module registers ``dcaunet_encoder`` with timm. The paper starts from such weights, which are not public
(arXiv:2603.09530, Sec. III-B); how they were trained, it does not say. ``scripts/encoder_from_timm.py`` turns timm's
checkpoint into the file that ``NNUNET_ATTN_PRETRAINED`` names.
"""

from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import register_model
from torch import nn

from nnunet_attn.architectures.dcau_net import DCAUNet, initialize_weights


class DCAUNetClassifier(nn.Module):
    """The encoder, the mean over the pixels of its deepest map, and a linear head.

    Shape: (B, in_chans, H, W) -> (B, num_classes)
    """

    pretrained_cfg: dict[str, Any]
    default_cfg: dict[str, Any]

    def __init__(self, in_chans: int = 3, num_classes: int = 1000, drop_rate: float = 0.0):
        super().__init__()
        network = DCAUNet(in_chans, 1)
        self.encoder = network.encoder
        self.num_classes = num_classes
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.encoder.stages[-1][-1].mlp[0].in_features, num_classes)
        self.apply(initialize_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.encoder(x)[-1].mean((2, 3))))


@register_model
def dcaunet_encoder(
    pretrained: bool = False, in_chans: int = 3, num_classes: int = 1000, drop_rate: float = 0.0, **_: Any
) -> DCAUNetClassifier:
    """DCAU-Net's default encoder for ``timm.create_model``; there are no weights to download.

    Raises:
        ValueError: ``pretrained`` is set.
    """
    if pretrained:
        raise ValueError("there are no published weights of dcaunet_encoder; train it")
    model = DCAUNetClassifier(in_chans, num_classes, drop_rate)
    model.pretrained_cfg = model.default_cfg = {
        "input_size": (3, 224, 224), "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, "crop_pct": 0.9,
        "interpolation": "bicubic", "num_classes": num_classes, "first_conv": None, "classifier": "head",
    }  # fmt: skip
    return model
