"""DCAU-Net: an encoder of differential cross attention, a decoder of channel-spatial fusion.

Reference: Y. Li, H. Wan, L. Lan, "DCAU-Net: Differential Cross Attention and Channel-Spatial Feature Fusion for Medical
Image Segmentation", arXiv:2603.09530 (2026), sections II-B and II-D, Fig. 2 and 3. No code was released.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from nnunet_attn.blocks.channel_spatial_fusion import ChannelSpatialFusion, ConcatFusion
from nnunet_attn.blocks.conv import ConvNormAct
from nnunet_attn.blocks.dca_block import ATTENTIONS, NORMS, DCABlock, differential_attention
from nnunet_attn.blocks.options import check_option
from nnunet_attn.blocks.recompute import recomputed
from nnunet_attn.blocks.resize import resize

FUSIONS = {
    "csff": ChannelSpatialFusion,
    "no_spatial_attention": partial(ChannelSpatialFusion, spatial_attention=False),
    "no_channel_attention": partial(ChannelSpatialFusion, channel_attention=False),
    "concat": ConcatFusion,
}


class DCAUNetEncoder(nn.Module):
    """Four stages, each a patch embedding (convolutions of stride 2, the first stage has two) and DCA blocks.

    Shape: (B, input_channels, H, W) -> maps (B, widths[i], ., .) at strides 4, 8, 16, 32; sizes are rounded up.

    Args: see ``DCAUNet``.
    """

    def __init__(
        self,
        input_channels: int,
        *,
        widths: Sequence[int],
        depths: Sequence[int],
        head_width: int,
        window: int,
        pixel_keys_last: bool,
        attention: str,
        lambda_init: float | None,
        norm: str,
        implementation: str,
    ):
        super().__init__()
        stem = ConvNormAct(input_channels, widths[0] // 2, stride=2, act=nn.GELU)
        strided = partial(ConvNormAct, stride=2, act=None)
        self.patch_embeds = nn.ModuleList([nn.Sequential(stem, strided(widths[0] // 2, widths[0]))])
        self.patch_embeds.extend(strided(a, b) for a, b in pairwise(widths))
        self.stages = nn.ModuleList(nn.Sequential() for _ in widths)
        depth = 0
        for stage, width, blocks in zip(self.stages, widths, depths, strict=True):
            heads = width // head_width
            keys = None if pixel_keys_last and stage is self.stages[-1] else window
            for _ in range(blocks):
                depth += 1  # l of Eq. (5), through the whole encoder
                module = differential_attention(
                    width,
                    heads,
                    depth,
                    attention=attention,
                    lambda_init=lambda_init,
                    window=keys,
                    implementation=implementation,
                )
                stage.append(DCABlock(width, module, norm=norm))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for embed, stage in zip(self.patch_embeds, self.stages, strict=True):
            x = embed(x).contiguous(memory_format=torch.channels_last)  # a view is then all that tokens need
            x = stage(x)
            features.append(x)
        return features


class DCAUNetDecoder(nn.Module):
    """Three steps of 1x1 CBR, resize to the skip, fusion with it; then resize to the image, 3x3 CBR, head.

    ``deep_supervision`` is there because nnU-Net sets it; with one head it changes nothing.

    Shape: the encoder's maps and (H, W) of the image -> (B, num_classes, H, W).

    Args: see ``DCAUNet``.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, *, fusion: str):
        super().__init__()
        self.deep_supervision = False
        self.ups = nn.ModuleList(ConvNormAct(a, b, 1) for a, b in pairwise(widths[::-1]))
        self.fusions = nn.ModuleList(FUSIONS[fusion](width) for width in widths[-2::-1])
        self.last = ConvNormAct(widths[0], widths[0] // 4)
        self.seg_layers = nn.ModuleList([nn.Conv2d(widths[0] // 4, num_classes, 1)])

    def forward(self, features: Sequence[torch.Tensor], size: Sequence[int]) -> torch.Tensor:
        *skips, x = features
        for up, fuse, skip in zip(self.ups, self.fusions, reversed(skips), strict=True):
            x = fuse(skip, resize(up(x), skip.shape[-2:]))
        conv, norm, act = self.last
        x = recomputed(lambda x: conv(resize(x, size)), x, cheap=True)  # the enlarged map is not kept
        return self.seg_layers[0](act(norm(x)))


def initialize_weights(module: nn.Module) -> None:
    """Linear and depth-wise: normal, deviation 0.02, cut at +-2; other convolutions: Kaiming, fan-out; biases: 0.

    With a Kaiming depth-wise convolution, ``x + DW(x)`` would multiply the activations from block to block.
    """
    if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups > 1):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


class DCAUNet(nn.Module):
    """DCAU-Net (Fig. 3): DCA blocks at strides 4 to 32, CSFF blocks back to stride 4, logits at the size of the image.

    Any image size: strided convolutions round up, a resize goes to the size of the map that waits, nothing is
    padded or cut. Below 33 pixels both ways the deepest map is a single pixel, which BatchNorm takes in training
    from a batch of 2 on. Maps are kept in torch's ``channels_last`` layout, in which tokens are a view of them.

    Shape: (B, input_channels, H, W) -> (B, num_classes, H, W).

    >>> from nnunet_attn.architectures import DCAUNet
    >>> net = DCAUNet(3, 9).eval()
    >>> net(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 9, 64, 64])

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        widths: Channels of the stages.
        depths: DCA blocks of the stages.
        head_width: 2 d, width of a differential head.
        window: Side of the windows whose means are the keys.
        pixel_keys_last: The last stage attends over pixels at every image size, as it does at the paper's 224 x 224,
            where its 7 x 7 map is one window. False: only where the map fits into one window.
        attention: "differential", "standard" (Table IV), or "none": blocks of depth-wise convolution and MLP alone.
        lambda_init: Fixed constant of Eq. (5) and (6) (Table IV: 0.5, 0.8), the vectors of lambda being learned as
            always; None for the schedule over depth.
        fusion: "csff", or of Table V "no_spatial_attention", "no_channel_attention", "concat".
        norm: "pre", or "post" with a third norm per block.
        implementation: "fused" or "plain", see ``WindowCrossAttention``. Same weights, same numbers.
        deep_supervision: The paper has one head; only False.

    Raises:
        ValueError: unknown option, widths that do not fit ``head_width``, or ``deep_supervision=True``.

    Deviations: the paper prints 21.56 M parameters and 4.67 G, and leaves most of the network open. From its text:
    four stages, the parts of a block and their order, MLP ratio 4, window 7, the parts of CSFF, four up-sampling
    steps. Our choice, so that both counts come within 1 % (21.61 M, 4.66 G by fvcore, for 3 channels and 9
    classes): depths 3, 4, 8, 3; strided 3x3 convolutions, without bias before BatchNorm, as patch embedding; 1x1
    CBR before each resize; the last step from 64 to 16 channels. Many other choices would fit too. Our choice
    without weight in the counts: head width, pixel keys in the last stage at other sizes than 224 x 224, bilinear
    resizing, pre-norm ("residual connection, followed by Layer Normalization" may mean "post"), epsilon of the
    norms, initialisation, no drop path, the reading of "fixed" in Table IV as a fixed constant. The ImageNet
    weights behind the paper's headline are not public; any weights for ``encoder`` can be loaded at the start of a
    training.

    In training the gradient of the very last bias of the encoder (of the last MLP, with "post" of the last norm) is
    zero: what is added to all pixels alike passes the 1x1 convolution and is removed by BatchNorm.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (3, 4, 8, 3),
        head_width: int = 64,
        window: int = 7,
        pixel_keys_last: bool = True,
        attention: str = "differential",
        lambda_init: float | None = None,
        fusion: str = "csff",
        norm: str = "pre",
        implementation: str = "fused",
        deep_supervision: bool = False,
    ):
        super().__init__()
        if deep_supervision:
            raise ValueError(
                "DCAUNet has one head and no deep supervision; where the plans name the network, train with "
                "nnUNetTrainerNoDeepSupervision"
            )
        for name, value, known in (
            ("attention", attention, ATTENTIONS),
            ("fusion", fusion, FUSIONS),
            ("norm", norm, NORMS),
        ):
            check_option(name, value, known)
        if len(widths) != len(depths):
            raise ValueError(f"widths and depths must be of one length, got {len(widths)} and {len(depths)}")
        if any(width % head_width for width in widths):
            raise ValueError(f"widths must be multiples of head_width {head_width}, got {', '.join(map(str, widths))}")
        self.encoder = DCAUNetEncoder(
            input_channels,
            widths=widths,
            depths=depths,
            head_width=head_width,
            window=window,
            pixel_keys_last=pixel_keys_last,
            attention=attention,
            lambda_init=lambda_init,
            norm=norm,
            implementation=implementation,
        )
        absent = {"standard": ("attention.lambda_", "attention.norm."), "none": ("attention.", "norm_attention.")}
        blocks = [name for name, module in self.encoder.named_modules() if isinstance(module, DCABlock)]
        self.ignored_pretrained_keys = tuple(f"{name}.{part}" for name in blocks for part in absent.get(attention, ()))
        self.decoder = DCAUNetDecoder(widths, num_classes, fusion=fusion)
        self.apply(initialize_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x), x.shape[-2:])
