"""EMCAD: PVTv2-B2 with a decoder of multi-scale convolutional attention."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from nnunet_attn.architectures.encoders import PVT_V2_B2, PVT_V2_B2_WIDTHS, pvt_v2_b2, pvt_v2_names
from nnunet_attn.blocks.multi_scale_conv_attention import EUCB, LGAG, MSCAM, SAB
from nnunet_attn.blocks.resize import resize


class Ungated(nn.Module):
    """Passes the encoder's map, in the place of the gate LGAG."""

    def forward(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x


class EMCADDecoder(nn.Module):
    """From the encoder's maps to prediction maps of the image's size.

        d_4 = MSCAM(e_4);  for i = 3, 2, 1:  u = EUCB(d_{i+1}),  d_i = MSCAM(u + LGAG(u, e_i));  p_i = up(head(d_i))

    Returns p_1 or, with deep supervision, [p_1, p_2, p_3, p_4].

    Args:
        widths: Widths of e_1 to e_4.
        num_classes: Channels of each prediction map.
        gates: Whether to build the skip connections' LGAGs.
        attention: False leaves channel and spatial attention out and adds the skips ungated.
        deep_supervision: Whether to return all four maps; the heads are always there.

    Shape: e_i (B, widths[i], H / 2^(i+1), W / 2^(i+1)) -> (B, num_classes, H, W), one or four
    """

    def __init__(
        self,
        widths: Sequence[int],
        num_classes: int,
        *,
        gates: bool = True,
        attention: bool = True,
        deep_supervision: bool = False,
    ):
        super().__init__()
        self.deep_supervision = deep_supervision
        deepest_first = list(reversed(widths))
        self.spatial_attention = SAB() if attention else None
        self.attentions = nn.ModuleList(MSCAM(width, channel_attention=attention) for width in deepest_first)
        self.ups = nn.ModuleList(EUCB(*pair) for pair in pairwise(deepest_first))
        self.gates = None
        if gates:
            self.gates = nn.ModuleList(LGAG(width) if attention else Ungated() for width in deepest_first[1:])
        self.apply(self._initialize)
        self.seg_layers = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in deepest_first)

    @staticmethod
    def _initialize(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        *skips, d = features
        stages = [self.attentions[0](d, self.spatial_attention)]
        for up, gate, attention, e in zip(
            self.ups, self.gates or (), self.attentions[1:], reversed(skips), strict=True
        ):
            u = up(stages[-1])
            stages.append(attention(u + gate(u, e), self.spatial_attention))
        return self.predict(stages)

    def predict(self, stages: Sequence[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Heads on the stages' outputs, deepest first, and enlargement to the image: x32, x16, x8, x4."""
        size = [4 * side for side in stages[-1].shape[2:]]

        if not self.deep_supervision:
            return resize(self.seg_layers[-1](stages[-1]), size)
        return [resize(head(d), size) for head, d in zip(self.seg_layers, stages, strict=True)][::-1]


class PVTNetwork(nn.Module):
    """PVTv2-B2 and a decoder that turns its four maps into logits, for any image size and number of channels.

    The image is padded with zeros at the lower and right border to multiples of 32 and the logits are cropped. One
    channel goes through a learned 1 -> 3 stem (1x1 convolution, batch norm, ReLU), three go straight to the encoder;
    for other numbers (our choice) the encoder's first convolution has that many inputs. The stem's 12 parameters are
    part of EMCAD's published count, so they are always there; unused, they do not train.

    Args:
        input_channels: Channels of the image.
        decoder: From the encoder's maps, finest first, to one map of logits or a list of them.
        drop_path_rate: Of the encoder.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), one or a list
    """

    multiple = 32  # the encoder's total stride
    timm_encoder = PVT_V2_B2
    pretrained_names = staticmethod(pvt_v2_names)

    def __init__(self, input_channels: int, decoder: nn.Module, *, drop_path_rate: float):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU(inplace=True))
        self.uses_stem = input_channels == 1
        self.stem.requires_grad_(self.uses_stem)
        self.encoder = pvt_v2_b2(3 if self.uses_stem else input_channels, drop_path_rate=drop_path_rate)
        self.decoder = decoder

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        logits = self.decoder(self.encoder(self.stem(x) if self.uses_stem else x))
        if isinstance(logits, list):
            return [maps[..., :height, :width] for maps in logits]
        return logits[..., :height, :width]


class EMCAD(PVTNetwork):
    """EMCAD on PVTv2-B2: 26,764,411 parameters with 1 class, 26,772,635 with 9 (paper: 26.76 M).

    Any image size and number of channels, see ``PVTNetwork``.

    With deep supervision the output is [p1, p2, p3, p4], all of the image's size, p1 the prediction; it is made for the
    mutation loss over all subsets of the four maps.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        drop_path_rate: Of the encoder.
        attention: False leaves the decoder's attention and gates out; the encoder's attention stays.
        deep_supervision: Whether to return all four maps.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), one or a list of four

    >>> from nnunet_attn.architectures import EMCAD
    >>> net = EMCAD(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])

    Reference: Rahman, Munir, Marculescu, "EMCAD: Efficient Multi-scale Convolutional Attention Decoding for Medical
    Image Segmentation", CVPR 2024 (arXiv:2405.06880). Written from the paper's formulas and from how the original
    behaves (sizes, counts, initial values); its code, which stands under a research licence, is not used.

    Deviations: padding and cropping; other numbers of channels than one and three.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        drop_path_rate: float = 0.1,
        attention: bool = True,
        deep_supervision: bool = False,
    ):
        decoder = EMCADDecoder(PVT_V2_B2_WIDTHS, num_classes, attention=attention, deep_supervision=deep_supervision)
        super().__init__(input_channels, decoder, drop_path_rate=drop_path_rate)
