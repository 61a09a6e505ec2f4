"""DilateFormer-Tiny: dilated attention in two fine stages, global attention in two coarse ones."""

import torch
from torch import nn

from nnunet_attn.blocks.dilated_attention import MultiScaleDilatedAttention
from nnunet_attn.blocks.dilated_block import DilatedBlock
from nnunet_attn.blocks.global_attention import GlobalAttention
from nnunet_attn.blocks.recompute import in_turn, recomputed

DEPTHS = (2, 2, 6, 2)
WIDTHS = (72, 144, 288, 576)
HEADS = (3, 6, 12, 24)
ATTENTIONS = (MultiScaleDilatedAttention, MultiScaleDilatedAttention, GlobalAttention, GlobalAttention)


class PatchEmbed(nn.Module):
    """Four 3x3 convolutions, two of them with stride 2, to a quarter of the size.

    Shape: (B, input_channels, H, W) -> (B, channels, ceil(H / 4), ceil(W / 4)).
    """

    def __init__(self, input_channels: int, channels: int):
        super().__init__()
        layers, before = [], input_channels
        for width, stride in ((16, 1), (32, 2), (64, 1)):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.GELU()]
            before = width
        self.proj = nn.Sequential(*layers, nn.Conv2d(before, channels, 3, 2, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *others = self.proj
        x = first(x)
        for norm, act, conv in zip(others[::3], others[1::3], others[2::3], strict=True):
            x = recomputed(in_turn(norm, act, conv), x, within=norm, cheap=True)
        return x


class Downsample(nn.Module):
    """Convolution 3x3 with stride 2, and BatchNorm.

    Shape: (B, C, H, W) -> (B, out_channels, ceil(H / 2), ceil(W / 2)).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, 2, 1), nn.BatchNorm2d(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)


class Stage(nn.Module):
    """Blocks of one scale, then the step to the next scale (none after the last).

    Shape: (B, C, H, W) -> output of the blocks (B, C, H, W), input of the next stage.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        attention: type[nn.Module] | None,
        drop_paths: tuple[float, ...],
        next_channels: int | None,
    ):
        super().__init__()
        self.blocks = nn.Sequential(
            *(DilatedBlock(channels, attention and attention(channels, heads), drop_path=p) for p in drop_paths)
        )
        self.downsample = Downsample(channels, next_channels) if next_channels else nn.Identity()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.blocks(x)
        return x, self.downsample(x)


class DilateFormer(nn.Module):
    """DilateFormer-Tiny without its classifier, as an encoder of four scales.

    Blocks 2, 2, 6, 2; widths 72, 144, 288, 576; heads 3, 6, 12, 24. Parameters carry the names of the released
    ImageNet checkpoints, of which only the classifier ("head.", "norm.") is left out. Any image size.

    Shape: (B, input_channels, H, W) -> list of (B, WIDTHS[i], ceil(H / 4 / 2^i), ceil(W / 4 / 2^i)): the output of the
    blocks of each stage, before its downsampling and without a further norm.

    >>> from nnunet_attn.architectures import DilateFormer
    >>> encode = DilateFormer(3).eval()
    >>> [tuple(x.shape[1:]) for x in encode(torch.randn(1, 3, 64, 64))]
    [(72, 16, 16), (144, 8, 8), (288, 4, 4), (576, 2, 2)]

    Args:
        input_channels: Channels of the image.
        drop_path: Stochastic depth of the last block, rising linearly from 0.
        attention: False leaves the attention of all blocks out, with its norms.

    Reference: Jiao et al., "DilateFormer: Multi-Scale Dilated Transformer for Visual Recognition", IEEE TMM 2023
    (arXiv:2302.01791), the model "Tiny".

    Deviations: attention in forms that need no unfolded map and no attention matrix; no fixed image size. The biases of
    the convolutions before BatchNorm (``stages.*.downsample.proj.0.bias``) are the released code's; their gradient is
    zero. Linear weights start from a normal distribution of deviation 0.02 truncated at 2, as in the released code,
    convolutions from torch's default.
    """

    def __init__(self, input_channels: int = 3, *, drop_path: float = 0.1, attention: bool = True):
        super().__init__()
        self.patch_embed = PatchEmbed(input_channels, WIDTHS[0])
        rates = [drop_path * i / (sum(DEPTHS) - 1) for i in range(sum(DEPTHS))]
        starts = [sum(DEPTHS[:i]) for i in range(len(DEPTHS))]
        self.stages = nn.ModuleList(
            Stage(
                width,
                heads,
                attention=kind if attention else None,
                drop_paths=tuple(rates[start : start + depth]),
                next_channels=next_width,
            )
            for width, heads, kind, start, depth, next_width in zip(
                WIDTHS, HEADS, ATTENTIONS, starts, DEPTHS, (*WIDTHS[1:], None), strict=True
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.patch_embed(x)
        taps = []
        for stage in self.stages:
            tap, x = stage(x)
            taps.append(tap)
        return taps
