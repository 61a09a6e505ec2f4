"""Mixing attention (MixAtt): global self-attention and Monte Carlo attention over one map."""

import math

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from timm.layers import make_divisible
from torch import nn

from nnunet_attn.blocks.global_attention import GlobalAttention
from nnunet_attn.blocks.layout import SPATIAL, check_layout
from nnunet_attn.blocks.recompute import recomputed
from nnunet_attn.blocks.recording import Maps, note


def sampled_mean(x: torch.Tensor) -> torch.Tensor:
    """Mean of each channel over a random part of the map, the same part for the whole batch.

    In 3D the cells are those of k x k x k.

    Law: the pixels are shuffled, the shuffled map is pooled adaptively to k x k cells with k drawn from {1, 2, 3}, and
    one of the cells is drawn. A cell of a shuffled map is the mean over a random set of as many pixels as the cell has,
    so that number is all we need of the pooling:

        k ~ U{1, 2, 3},  i, j ~ U{0..k-1},  m = n_i(H) n_j(W),  n_i(L) = ceil((i + 1) L / k) - floor(i L / k)

    All draws stay tensors of the default generator: one graph under torch.compile, and no branch that could differ
    between the processes of DDP. The weights are float32, and so are product and sum under autocast: 1/m and the sum
    leave the range of float16.

    Shape: (B, C, H, W) -> (B, C, 1, 1).
    """
    k = torch.randint(1, 4, (1,), device=x.device)
    size = x.shape[2:]
    cells = torch.randint(6, (len(size), 1), device=x.device) % k  # 6 outcomes split evenly for each k
    sides = [((i + 1) * length + k - 1) // k - i * length // k for i, length in zip(cells.unbind(), size, strict=True)]
    pixels = math.prod(sides)
    weights = (torch.randperm(math.prod(size), device=x.device) < pixels) / pixels
    return (weights.unflatten(0, size) * x).sum(tuple(range(2, x.ndim)), keepdim=True).to(x.dtype)


class MonteCarloAttention(nn.Module):
    """Channel weights from the mean of a randomly sampled part of the map.

        A = sigmoid(W_2 ReLU(W_1 a)),      a: ``sampled_mean`` in training, the mean of the whole map in evaluation

    The expectation of the sampled mean is the mean of the map, so evaluation is its deterministic counterpart.

    Shape: (B, channels, H, W) -> (B, channels, 1, 1).

    >>> from nnunet_attn.blocks import MonteCarloAttention
    >>> weigh = MonteCarloAttention(72)
    >>> weigh(torch.randn(2, 72, 28, 28)).shape
    torch.Size([2, 72, 1, 1])

    Args:
        channels: Channels of the input.
        gate: Whether a gate is made of the mean (W_1, W_2, sigmoid); False returns ``a`` itself, Eq. (9) to the letter.
        dim: Number of spatial axes.

    Reference: Liu, Xu, Ho, FIAS (arXiv:2411.10881), Eq. (9), after the Monte Carlo attention of Dai et al., "Exploiting
    Scale-Variant Attention for Segmenting Small Medical Objects" (SvANet), IEEE TNNLS 2026 (arXiv:2407.07720).

    Deviations: the gate is read out of the cited attention; Eq. (9) shows only the pooled mean (our choice). The hidden
    width is the cited one: a quarter of the channels, to a multiple of 8, at least 32.
    """

    def __init__(self, channels: int, *, gate: bool = True, dim: int = 2):
        super().__init__()
        self.channels, self.dim, conv = channels, dim, convert_dim_to_conv_op(dim)
        hidden = make_divisible(channels // 4, 8, min_value=32)
        self.gate: nn.Module = nn.Identity()
        if gate:
            self.gate = nn.Sequential(
                conv(channels, hidden, 1), nn.ReLU(inplace=True), conv(hidden, channels, 1), nn.Sigmoid()
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", self.channels, *SPATIAL[self.dim]))
        axes = tuple(range(2, x.ndim))
        weights = self.gate(sampled_mean(x) if self.training else x.mean(axes, keepdim=True))
        note(self, lambda point: Maps(channel={"channel weights": weights.flatten(1)}))
        return weights


class MixingAttention(nn.Module):
    """Global self-attention, and channel weights on top of it.

        S = MHSA(LN(P_1)),      P_2 = S + P_1,      out = MCA(P_2) * P_2 + S

    Shape: (B, channels, H, W) -> (B, channels, H, W).

    >>> from nnunet_attn.blocks import MixingAttention
    >>> mix = MixingAttention(72, heads=2)
    >>> mix(torch.randn(2, 72, 28, 28)).shape
    torch.Size([2, 72, 28, 28])

    Args:
        channels: Channels of input and output.
        heads: Heads of the self-attention.
        mca_gate: See ``MonteCarloAttention``.
        sr_ratio: See ``GlobalAttention``; for large patches.
        dim: Number of spatial axes.
        recompute: Compute what the self-attention keeps again in the backward pass; same numbers.

    Reference: Liu, Xu, Ho, FIAS (arXiv:2411.10881), Eq. (8)-(10) without the last convolution. S is the same symbol in
    Eq. (8) and (10), so it is computed once.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        mca_gate: bool = True,
        sr_ratio: int = 1,
        dim: int = 2,
        recompute: bool = False,
    ):
        super().__init__()
        self.channels, self.dim, self.recompute = channels, dim, recompute
        self.norm = nn.LayerNorm(channels)
        self.attention = GlobalAttention(channels, heads, sr_ratio=sr_ratio, dim=dim)
        self.monte_carlo = MonteCarloAttention(channels, gate=mca_gate, dim=dim)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(self.norm(x.movedim(1, -1))).movedim(-1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_layout(self, "input", x, ("B", self.channels, *SPATIAL[self.dim]))
        attended = recomputed(self.attend, x) if self.recompute else self.attend(x)  # S
        mixed = attended + x  # P_2
        return self.monte_carlo(mixed) * mixed + attended
