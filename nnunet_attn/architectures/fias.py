"""FIAS: a transformer and a multi-kernel encoder, fused by context, decoded by mixing attention."""

from collections.abc import Sequence

import torch
from timm.layers import LayerNorm2d
from torch import nn

from nnunet_attn.architectures.dilateformer import WIDTHS, DilateFormer
from nnunet_attn.blocks.context_aware_fusion import ContextAwareFusion
from nnunet_attn.blocks.conv import ConvNormAct
from nnunet_attn.blocks.depthwise_multi_kernel import DepthwiseMultiKernelEncoder
from nnunet_attn.blocks.dilated_block import DilatedBlock
from nnunet_attn.blocks.mixing_attention import MixingAttention
from nnunet_attn.blocks.resize import resize

DECODER_WIDTHS = (288, 144, 72, 72)
DECODER_HEADS = (8, 6, 4, 2)


class SumFusion(nn.Module):
    """Sum of the encoders' maps, the ablation of ``ContextAwareFusion``."""

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        return sum(maps[1:], start=maps[0])


class DecoderBlock(nn.Module):
    """One block of the decoder.

        P_1 = Drop(ReLU(Conv_3x3(ReLU(BN(Conv_3x3(X))))))                     Eq. (7)
        P   = Conv_3x3(MixAtt(P_1))                                           Eq. (8)-(10)

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int, *, mixing: nn.Module, dropout: float):
        super().__init__()
        self.convs = nn.Sequential(
            ConvNormAct(in_channels, channels),
            ConvNormAct(channels, channels, norm=None, bias=True),
            nn.Dropout2d(dropout),
        )
        self.mixing = mixing
        self.out = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.mixing(self.convs(x)))


class FIASDecoder(nn.Module):
    """Four blocks from the coarsest scale to the finest, and a head on each of the last three.

    Block 1 takes the coarsest fused map alone; each further block takes the fused map of its scale beside the output of
    the block before, resized to it.

    Shape: fused maps (B, WIDTHS[i], H_i, W_i), finest first -> logits (B, num_classes, *size), or with deep supervision
    ``[aggregate, m_4, m_8, m_16]`` of that shape each.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mixatt: bool,
        mca_gate: bool,
        sr_ratio: int,
        dropout: float,
        deep_supervision: bool,
    ):
        super().__init__()
        self.deep_supervision = deep_supervision
        self.blocks = nn.ModuleList()
        before = 0
        for channels, heads, width in zip(reversed(WIDTHS), DECODER_HEADS, DECODER_WIDTHS, strict=True):
            mixing = MixingAttention(channels, heads, mca_gate=mca_gate, sr_ratio=sr_ratio) if mixatt else nn.Identity()
            self.blocks.append(DecoderBlock(before + channels, channels, width, mixing=mixing, dropout=dropout))
            before = width
        self.seg_layers = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in DECODER_WIDTHS[1:])

    def forward(self, fused: list[torch.Tensor], size: Sequence[int]) -> torch.Tensor | list[torch.Tensor]:
        x = self.blocks[0](fused[-1])
        maps = []
        for block, head, skip in zip(self.blocks[1:], self.seg_layers, reversed(fused[:-1]), strict=True):
            x = block(torch.cat((resize(x, skip.shape[2:]), skip), dim=1))
            maps.append(resize(head(x), size))
        aggregate = sum(maps[1:], start=maps[0])
        return [aggregate, *reversed(maps)] if self.deep_supervision else aggregate


class FIAS(nn.Module):
    """FIAS for 2D images of any size and number of channels.

        F1 = DilateFormer(image),   F2 = DMK(image),   fused_i = CAF(F1_i, F2_i),   logits = Decoder(fused)

    The prediction is the sum of the three heads' logits at the size of the image. With deep supervision the three maps
    follow it, finest first: ``[aggregate, m_4, m_8, m_16]`` (from 1/4, 1/8 and 1/16 of the size), for a loss over
    subsets of the three.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W), or a list of four such.

    >>> from nnunet_attn.architectures import FIAS
    >>> net = FIAS(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        dmk: Whether there is the DMK encoder; without, the fusion has one input.
        fusion: "caf", or "sum" of the two encoders' maps.
        mixatt: Whether the decoder mixes by attention; without, its blocks are convolutions only.
        attention: Whether the transformer attends; without, its blocks are depth-wise convolutions and MLPs.
        mca_gate: Whether Monte Carlo attention makes a gate of the sampled mean; False multiplies by the mean itself,
            which is Eq. (9) to the letter.
        out_norm: LayerNorm over the channels of each map of the transformer before the fusion.
        sr_ratio: Side of the windows over which the decoder's attention averages keys and values; a deviation, to
            bound its cost at patches of 512 and above.
        dropout: Dropout of whole maps in the decoder.
        drop_path: Stochastic depth of the transformer's last block.
        deep_supervision: Whether the maps are returned beside the prediction.

    Raises:
        ValueError: unknown ``fusion``.

    Reference: Liu, Xu, Ho, "FIAS: Feature Imbalance-Aware Medical Image Segmentation with Dynamic Fusion and Mixing
    Attention", ISBI 2025 (arXiv:2411.10881).

    Deviations: the paper starts from a pre-trained DilateFormer, by our inference the published "Tiny" with its
    ImageNet weights, which are the user's to provide. Our choices, where the paper is silent: the four decoder blocks
    sit at 1/32 to 1/4, block 1 without a predecessor; the last convolution of a block narrows the channels; Dropout2d
    with 0.1; heads bilinear to the full size; the prediction is the sum of logits over all three maps. The biases of
    the convolutions before BatchNorm in ``encoder.stages.*.downsample`` are the checkpoint's and have zero gradient.
    """

    # what a classifier's checkpoint holds beyond the encoder
    ignored_pretrained_keys: tuple[str, ...] = ("head.", "norm.")

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        dmk: bool = True,
        fusion: str = "caf",
        mixatt: bool = True,
        attention: bool = True,
        mca_gate: bool = True,
        out_norm: bool = False,
        sr_ratio: int = 1,
        dropout: float = 0.1,
        drop_path: float = 0.1,
        deep_supervision: bool = False,
    ):
        super().__init__()
        if fusion not in ("caf", "sum"):
            raise ValueError(f'fusion must be "caf" or "sum", got {fusion!r}')
        self.encoder = DilateFormer(input_channels, drop_path=drop_path, attention=attention)
        if not attention:
            blocks = (n for n, m in self.encoder.named_modules() if isinstance(m, DilatedBlock))
            self.ignored_pretrained_keys += tuple(f"{n}.{part}." for n in blocks for part in ("norm1", "attn"))
        self.out_norms = nn.ModuleList(LayerNorm2d(width) if out_norm else nn.Identity() for width in WIDTHS)
        self.dmk = DepthwiseMultiKernelEncoder(input_channels, WIDTHS) if dmk else None
        self.fusions = nn.ModuleList(
            ContextAwareFusion(width, inputs=2 if dmk else 1) if fusion == "caf" else SumFusion() for width in WIDTHS
        )
        self.decoder = FIASDecoder(
            num_classes,
            mixatt=mixatt,
            mca_gate=mca_gate,
            sr_ratio=sr_ratio,
            dropout=dropout,
            deep_supervision=deep_supervision,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        encodings = [[norm(tap) for norm, tap in zip(self.out_norms, self.encoder(x), strict=True)]]
        if self.dmk is not None:
            encodings.append(self.dmk(x))
        fused = [fuse(*maps) for fuse, maps in zip(self.fusions, zip(*encodings, strict=True), strict=True)]
        return self.decoder(fused, x.shape[2:])
