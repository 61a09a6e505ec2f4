"""Nine shifted slices against the literal unfold, and what zero padding inside the softmax means."""

import pytest
import torch

from nnunet_attn.blocks.dilated_attention import (
    MultiScaleDilatedAttention,
    dilated_attention,
    dilated_attention_gathered,
)


def random_qkv(height, width, *, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return [(scale * torch.randn(2, height, width, 2, 4, generator=generator, dtype=dtype)) for _ in range(3)]


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("size", [(9, 8), (3, 2), (1, 1)], ids=str)
def test_slices_equal_unfold_with_gradients(size, dilation):
    qkv = [x.requires_grad_() for x in random_qkv(*size)]
    fast, literal = dilated_attention(*qkv, dilation), dilated_attention_gathered(*qkv, dilation)
    torch.testing.assert_close(fast, literal, rtol=0, atol=1e-12)
    direction = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(fast, qkv, direction), torch.autograd.grad(literal, qkv, direction), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_one_pixel_by_hand():
    q, k, v = random_qkv(7, 7)
    head, (y, x), dilation = 1, (2, 4), 2
    taps = [(y + dilation * dy, x + dilation * dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    logits = torch.stack([q[0, y, x, head] @ k[0, i, j, head] / 2 for i, j in taps])  # d = 4
    expected = sum(w * v[0, i, j, head] for w, (i, j) in zip(logits.softmax(0), taps, strict=True))
    torch.testing.assert_close(dilated_attention(q, k, v, dilation)[0, y, x, head], expected)


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_outside_taps_stay_in_the_softmax(dilation):
    q, _, _ = random_qkv(8, 9)
    out = dilated_attention(q, torch.zeros_like(q), torch.ones_like(q), dilation)
    inside = out[0, :, :, 0, 0]
    middle = inside[dilation:-dilation, dilation:-dilation]
    torch.testing.assert_close(middle, torch.ones_like(middle))
    assert inside[0, 0].item() == pytest.approx(4 / 9)
    assert inside[-1, -1].item() == pytest.approx(4 / 9)
    assert inside[0, 4].item() == pytest.approx(6 / 9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_at_the_scale_of_trained_maps(dtype):
    """Logits up to about 80; both forms get the same rounded input, so the error is that of the computation."""
    rounded = [x.to(dtype) for x in random_qkv(9, 8, scale=6)]
    close = dilated_attention(*rounded, 2)
    exact = dilated_attention_gathered(*(x.double() for x in rounded), 2)
    assert close.dtype == dtype
    assert ((close.double() - exact).norm() / exact.norm()).item() < torch.finfo(dtype).eps


def test_layer_cuts_channels_into_dilations_then_heads():
    """With one input channel group of values zeroed, only that dilation's outputs vanish."""
    torch.manual_seed(0)
    layer = MultiScaleDilatedAttention(24, 6).double()
    layer.proj = torch.nn.Identity()
    x = torch.randn(1, 9, 9, 24, dtype=torch.float64)
    qkv = torch.einsum("bhwc,oc->bhwo", x, layer.qkv.weight[:, :, 0, 0]) + layer.qkv.bias
    q, k, v = (part.reshape(1, 9, 9, 3, 2, 4) for part in qkv.split(24, dim=-1))
    expected = [
        dilated_attention_gathered(q[..., i, :, :], k[..., i, :, :], v[..., i, :, :], r)
        for i, r in enumerate((1, 2, 3))
    ]
    torch.testing.assert_close(layer(x), torch.cat([e.flatten(3) for e in expected], dim=-1))


@pytest.mark.parametrize(("channels", "heads"), [(24, 4), (25, 3)])
def test_heads_that_do_not_fit_are_refused(channels, heads):
    with pytest.raises(ValueError, match=f"{heads} heads for {channels} channels"):
        MultiScaleDilatedAttention(channels, heads)
