"""CSFF by loops, and what its switches leave of it."""

import pytest
import torch
from torch import nn

from nnunet_attn.blocks.channel_spatial_fusion import (
    ChannelAttention,
    ChannelSpatialFusion,
    ConcatFusion,
    SpatialAttention,
)


def image(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_channel_attention_by_loops():
    module = ChannelAttention(8, reduction=4).double()
    down, up = module.mlp[0].weight[:, :, 0, 0], module.mlp[2].weight[:, :, 0, 0]
    x = image(2, 8, 3, 5)
    expected = torch.empty_like(x)
    for b in range(2):
        mean = torch.stack([sum(x[b, c].flatten()) / 15 for c in range(8)])
        peak = torch.stack([max(x[b, c].flatten()) for c in range(8)])
        logits = up @ (down @ mean).clamp(min=0) + up @ (down @ peak).clamp(min=0)
        for c in range(8):
            expected[b, c] = x[b, c] / (1 + torch.exp(-logits[c]))
    torch.testing.assert_close(module(x), expected)


def test_spatial_attention_by_loops():
    module = SpatialAttention().double()
    weight = module.conv.conv.weight[0]  # (2, 7, 7)
    x = image(1, 6, 9, 4)
    maps = torch.stack([x[0].mean(0), x[0].max(0).values])
    expected = torch.empty_like(x)
    for i in range(9):
        for j in range(4):
            logit = sum(
                weight[m, 3 + a, 3 + b] * maps[m, i + a, j + b]
                for m in range(2)
                for a in range(-3, 4)
                for b in range(-3, 4)
                if 0 <= i + a < 9 and 0 <= j + b < 4
            )
            expected[0, :, i, j] = x[0, :, i, j] / (1 + torch.exp(-logit))
    torch.testing.assert_close(module(x), expected)


def test_the_parts_follow_each_other_as_in_figure_3():
    module = ChannelSpatialFusion(16).double().eval()
    skip, x = image(2, 16, 9, 7), image(2, 16, 9, 7, seed=2)
    joined = module.join(torch.cat([module.refine_skip(skip), module.refine_decoder(x)], 1))
    torch.testing.assert_close(module(skip, x), module.spatial_attention(module.channel_attention(joined)))
    for refine, part in ((module.refine_skip, "skip"), (module.refine_decoder, "decoder")):
        assert refine.conv.weight.shape == (16, 16, 3, 3), part
    with torch.no_grad():
        module.join.conv.weight[:, :16] = 0  # the first half of the concatenation is the skip
        torch.testing.assert_close(module(skip, x), module(-skip, x))
        assert not torch.allclose(module(skip, x), module(skip, -x))


def test_attention_without_weights_is_a_half_each():
    for switches, factor in (
        ({}, 0.25),
        ({"channel_attention": False}, 0.5),
        ({"spatial_attention": False}, 0.5),
        ({"channel_attention": False, "spatial_attention": False}, 1.0),
    ):
        module = ChannelSpatialFusion(16, **switches).double().eval()
        for part in (module.channel_attention, module.spatial_attention):
            for parameter in part.parameters():
                nn.init.zeros_(parameter)
        skip, x = image(1, 16, 5, 6), image(1, 16, 5, 6, seed=2)
        joined = module.join(torch.cat([module.refine_skip(skip), module.refine_decoder(x)], 1))
        torch.testing.assert_close(module(skip, x), factor * joined)


@pytest.mark.parametrize("channels", [64, 128, 256])
def test_parameters_of_the_switches(channels):
    full = parameters(ChannelSpatialFusion(channels))
    assert full == {64: 148_450, 128: 592_738, 256: 2_369_122}[channels]
    assert full - parameters(ChannelSpatialFusion(channels, spatial_attention=False)) == 2 * 7 * 7
    assert full - parameters(ChannelSpatialFusion(channels, channel_attention=False)) == 2 * channels**2 // 16
    assert parameters(ConcatFusion(channels)) == (18 + 9) * channels**2 + 4 * channels


def test_concatenation_is_two_convolutions_of_skip_and_decoder_feature():
    module = ConcatFusion(4).double().eval()
    skip, x = image(1, 4, 5, 6), image(1, 4, 5, 6, seed=2)
    first, second = module.convs
    torch.testing.assert_close(module(skip, x), second(first(torch.cat([skip, x], 1))))
    assert first.conv.weight.shape == (4, 8, 3, 3)


@pytest.mark.parametrize(
    "module", [ChannelSpatialFusion(4, reduction=2), ConcatFusion(4)], ids=lambda m: type(m).__name__
)
def test_gradcheck(module):
    torch.manual_seed(0)
    module = module.double().eval()
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.1, 0.6)  # away from the corner of ReLU
    skip, x = (image(1, 4, 3, 3, seed=s).abs().requires_grad_() for s in (1, 2))
    assert torch.autograd.gradcheck(lambda a, b, *_: module(a, b), (skip, x, *module.parameters()))


@pytest.mark.parametrize("reduction", [0, 9])
def test_a_reduction_that_leaves_no_channel_is_refused(reduction):
    with pytest.raises(ValueError, match=f"8 channels, got {reduction}"):
        ChannelSpatialFusion(8, reduction=reduction)
