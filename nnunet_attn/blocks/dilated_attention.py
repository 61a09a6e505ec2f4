"""Multi-scale dilated attention: each pixel attends to 3x3 pixels around it, spread by the dilation of its heads."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from torch import nn

from nnunet_attn.blocks.layout import SPATIAL, check_layout
from nnunet_attn.blocks.precision import at_least_float32
from nnunet_attn.blocks.recording import Maps, Point, marked_index, note


def dilated_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dilation: int, flat: Sequence[bool] = ()
) -> torch.Tensor:
    """Attention of each pixel ``p`` to its nine taps ``p + r t``, t in {-1, 0, 1}^2, r the dilation (SWDA).

        a_t = softmax_t( q_p . k_{p + r t} / sqrt(d) ),        o_p = sum_t a_t v_{p + r t}

    Keys and values are zero outside the map, and the outside taps stay in the softmax, with logit 0 and value 0 (as in
    the released code, whose ImageNet weights rely on it): in a corner and for zero keys the weights inside the map sum
    to 4/9.

    Computed with nine shifted views of the padded map, so no tensor of nine neighbourhoods exists; logits and softmax
    are in float32.

    In 3D there are 27 taps; an axis that is ``flat`` has extent 1, and no taps beside the pixel.

    Shape: q, k, v (B, H, W, heads, d) -> (B, H, W, heads, d), or with three axes.

    Reference: Jiao et al., "DilateFormer: Multi-Scale Dilated Transformer for Visual Recognition", IEEE TMM 2023
    (arXiv:2302.01791), sliding window dilated attention; FIAS (arXiv:2411.10881), section 2.2.
    """
    size, width = q.shape[1:-2], q.shape[-1]
    reach = [0 if level else dilation for level in flat or (False,) * len(size)]
    k, v = (F.pad(x, (0, 0, 0, 0, *(r for r in reversed(reach) for _ in (0, 1)))) for x in (k, v))
    offsets = neighbours(reach)

    q = at_least_float32(q) * width**-0.5
    logits = [(q * tap(k, reach, offset, size)).sum(-1) for offset in offsets]
    weights = torch.stack(logits).softmax(0).unsqueeze(-1).to(v.dtype)  # (taps, B, H, W, heads, 1)
    return sum(weight * tap(v, reach, offset, size) for weight, offset in zip(weights, offsets, strict=True))


def tap(padded: torch.Tensor, reach: Sequence[int], offset: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """What one offset shows of a map padded by ``reach``. Shape: (B, *size + 2 reach, ...) -> (B, *size, ...)."""
    for axis, (r, step, length) in enumerate(zip(reach, offset, size, strict=True), start=1):
        padded = padded.narrow(axis, r + step, length)
    return padded


def neighbours(reach: Sequence[int]) -> list[tuple[int, ...]]:
    """Offsets of the taps, ``reach`` voxels to both sides of each axis; none along an axis of reach 0."""
    return list(itertools.product(*((-r, 0, r) if r else (0,) for r in reach)))


def dilated_attention_gathered(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dilation: int, flat: Sequence[bool] = ()
) -> torch.Tensor:
    """The literal form of ``dilated_attention`` for any number of axes: all taps gathered, then matrix products."""
    size = q.shape[1:-2]
    reach = [0 if level else dilation for level in flat or (False,) * len(size)]

    def gathered(x: torch.Tensor) -> torch.Tensor:  # (B, *size, heads, taps, d)
        taps = []
        for offset in neighbours(reach):
            places = torch.meshgrid(*(torch.arange(n) + o for n, o in zip(size, offset, strict=True)), indexing="ij")
            inside = torch.stack([(p >= 0) & (p < n) for p, n in zip(places, size, strict=True)]).all(0)
            clipped = tuple(p.clamp(0, n - 1) for p, n in zip(places, size, strict=True))
            taps.append(x[(slice(None), *clipped)] * inside[..., None, None])
        return torch.stack(taps, dim=-2)

    logits = q.unsqueeze(-2) @ gathered(k).transpose(-1, -2) / q.shape[-1] ** 0.5
    return (logits.softmax(-1) @ gathered(v)).squeeze(-2)


class MultiScaleDilatedAttention(nn.Module):
    """Dilated attention with one dilation per group of heads, between a 1x1 convolution and a linear layer (MSDA).

    The channels of q, k and v are cut into one group per dilation, and each group into its heads.

    Shape: (B, H, W, channels) -> (B, H, W, channels), any H and W.

    >>> from nnunet_attn.blocks import MultiScaleDilatedAttention
    >>> attend = MultiScaleDilatedAttention(72, heads=3)
    >>> attend(torch.randn(2, 28, 28, 72)).shape
    torch.Size([2, 28, 28, 72])

    Args:
        channels: Channels of input and output.
        heads: Heads over all groups.
        dilations: Dilation of each group.
        dim: Number of spatial axes.
        flat: For each axis whether the neighbourhood has extent 1 there; default: no axis.

    Raises:
        ValueError: ``heads`` is no multiple of the number of dilations, or ``channels`` none of ``heads``.

    Reference: Jiao et al., DilateFormer (arXiv:2302.01791), multi-scale dilated attention.

    Deviations: nine shifted products where the released code unfolds; nothing is written into the input.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        dilations: tuple[int, ...] = (1, 2, 3),
        dim: int = 2,
        flat: Sequence[bool] = (),
    ):
        super().__init__()
        if heads % len(dilations) or channels % heads:
            raise ValueError(
                f"heads must be a multiple of the {len(dilations)} dilations and divide the channels, "
                f"got {heads} heads for {channels} channels"
            )
        self.channels, self.heads, self.dilations = channels, heads, dilations
        self.dim, self.flat = dim, tuple(flat) or (False,) * dim
        self.qkv = convert_dim_to_conv_op(dim)(channels, 3 * channels, kernel_size=1)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", *SPATIAL[self.dim], self.channels))
        # the 1x1 convolution, written as a linear layer because channels are last
        qkv = F.linear(x, self.qkv.weight.flatten(1), self.qkv.bias)
        qkv = qkv.unflatten(-1, (3, len(self.dilations), self.heads // len(self.dilations), -1))
        q, k, v = qkv.unbind(-4)  # each (B, *size, groups, heads of the group, d)
        note(self, lambda point: self.attention_maps(q, k, point))
        groups = zip(q.unbind(-3), k.unbind(-3), v.unbind(-3), self.dilations, strict=True)
        return self.proj(torch.stack([dilated_attention(*group, self.flat) for group in groups], dim=-3).flatten(-3))

    def attention_maps(self, q: torch.Tensor, k: torch.Tensor, point: Point) -> Maps:
        """Attention of the marked pixel over the whole map, by dilation, (B, heads of the group, *size).

        Taps outside the map have a share of the softmax and no place, so that near the border the sum is below 1.
        """
        marked: dict[str, torch.Tensor] = {}
        for group, dilation in enumerate(self.dilations):
            queries, keys = q[..., group, :, :], k[..., group, :, :]  # (B, *size, heads, d)
            size = queries.shape[1:-2]
            own = queries.flatten(1, -3)[:, marked_index(point, size)]
            centre = torch.unravel_index(torch.tensor(marked_index(point, size)), size)
            taps = neighbours([0 if level else dilation for level in self.flat])
            places = [tuple(int(c) + t for c, t in zip(centre, tap, strict=True)) for tap in taps]
            inside = [all(0 <= i < n for i, n in zip(place, size, strict=True)) for place in places]
            logits = [
                (own * keys[(slice(None), *place)]).sum(-1) if there else own.new_zeros(own.shape[:2])
                for place, there in zip(places, inside, strict=True)
            ]
            weights = (at_least_float32(torch.stack(logits)) * own.shape[-1] ** -0.5).softmax(0)  # (taps, B, heads)
            spread = weights.new_zeros(own.shape[0], own.shape[1], *size)
            for weight, place, there in zip(weights, places, inside, strict=True):
                if there:
                    spread[(slice(None), slice(None), *place)] = weight
            name = f"dilation {dilation}"  # several groups may have it
            marked[name] = torch.cat((marked[name], spread), dim=1) if name in marked else spread
        return Maps(marked=marked)
