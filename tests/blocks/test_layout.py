"""Memory layouts: what depth-wise convolutions are given, and what blocks hand back."""

import pytest
import torch

from nnunet_attn.blocks import DCABlock, DifferentialCrossAttention
from nnunet_attn.blocks.layout import SIDE_BY_SIDE, channels_last, for_depthwise, layout_of

SIZES = [(2, 8, 6, 5), (2, 8, 3, 6, 5)]


@pytest.mark.parametrize("size", SIZES)
def test_values_stay_and_channels_lie_side_by_side(size):
    x = torch.randn(size)
    for turned in (for_depthwise(x), channels_last(x)):
        assert torch.equal(turned, x)
        assert turned.is_contiguous(memory_format=SIDE_BY_SIDE[x.ndim])
        assert layout_of(turned) == SIDE_BY_SIDE[x.ndim]
    assert layout_of(x) == torch.contiguous_format


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_block_hands_back_the_layout_it_was_given(size, recompute):
    dim = len(size) - 2
    block = DCABlock(8, DifferentialCrossAttention(8, heads=1, dim=dim), dim=dim, recompute=recompute)
    x = torch.randn(size)
    plain, turned = block(x), block(channels_last(x))
    assert layout_of(plain) == torch.contiguous_format
    assert layout_of(turned) == SIDE_BY_SIDE[x.ndim]
    torch.testing.assert_close(plain, turned)
