"""The operator of the spatial cross attention; against the formulas it stands in tests of the whole block."""

import pytest
import torch

from nnunet_attn.blocks.cross_attention import SpatialCrossAttention
from nnunet_attn.blocks.shared_key_attention import shared_key_attention

CHANNELS, HEADS = (4, 2, 6), 2


def arguments(dtype=torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(*shape, generator=generator, dtype=dtype, requires_grad=True)
        for shape in ((2, 5, 12), (3, 12), (3, 12))
    ]


@pytest.mark.parametrize("numbers", [2**20, 10])  # of 5 tokens: a whole map, and blocks of 2, 2 and 1 rows
def test_operator(numbers, monkeypatch):
    monkeypatch.setattr("nnunet_attn.blocks.shared_key_attention.BLOCK_SIZE", numbers)
    torch.library.opcheck(shared_key_attention, (*arguments(), CHANNELS, HEADS))
    assert torch.autograd.gradcheck(lambda *t: shared_key_attention(*t, CHANNELS, HEADS), arguments())


def test_no_second_derivative():
    joint, *maps = arguments()
    (gradient,) = torch.autograd.grad(
        shared_key_attention(joint, *maps, CHANNELS, HEADS).square().sum(), joint, create_graph=True
    )
    with pytest.raises(RuntimeError, match="no second derivative; set its implementation to 'plain'"):
        gradient.sum().backward()


@pytest.mark.parametrize("numbers", [2**20, 10])
def test_the_fused_kernel_gives_the_same(numbers, monkeypatch):
    monkeypatch.setattr("nnunet_attn.blocks.shared_key_attention.BLOCK_SIZE", numbers)
    torch.manual_seed(0)
    module = SpatialCrossAttention(CHANNELS, HEADS).double()
    joint = arguments()[0]
    for a, b in zip(module.streamed(joint), module.fused(joint.split(CHANNELS, 2), joint), strict=True):
        torch.testing.assert_close(a, b)
