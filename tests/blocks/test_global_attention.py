"""Fused attention against the softmax matrix written out."""

import pytest
import torch

from nnunet_attn.blocks.global_attention import GlobalAttention, at_width_of_8


def written_out(layer, x, pooled=None):
    """Softmax attention over all pixels; keys and values from ``pooled`` where given."""
    batch, height, width, channels = x.shape
    weight, bias = layer.qkv.weight, layer.qkv.bias
    keys = x if pooled is None else pooled
    q = (x @ weight[:channels].T + bias[:channels]).reshape(batch, -1, layer.heads, channels // layer.heads)
    k, v = (
        (keys @ weight[i * channels : (i + 1) * channels].T + bias[i * channels : (i + 1) * channels]).reshape(
            batch, -1, layer.heads, channels // layer.heads
        )
        for i in (1, 2)
    )
    weights = (torch.einsum("bnhd,bmhd->bhnm", q, k) / (channels // layer.heads) ** 0.5).softmax(-1)
    return layer.proj(torch.einsum("bhnm,bmhd->bnhd", weights, v).reshape(batch, height, width, channels))


def test_equals_the_matrix_form():
    torch.manual_seed(0)
    layer, x = GlobalAttention(12, 3).double(), torch.randn(2, 5, 4, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(x), written_out(layer, x))


@pytest.mark.parametrize("width", [3, 8, 36])
def test_padded_heads_change_nothing(width):
    """The form on a GPU."""
    q, k, v = (torch.randn(2, 3, n, width, dtype=torch.float64) for n in (5, 7, 7))
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(at_width_of_8(q, k, v), plain)


@pytest.mark.parametrize("size", [(6, 4), (5, 3), (1, 1)], ids=str)
def test_averaged_keys_are_the_projection_of_averaged_windows(size):
    torch.manual_seed(0)
    layer, x = GlobalAttention(12, 3, sr_ratio=2).double(), torch.randn(2, *size, 12, dtype=torch.float64)
    windows = [[x[:, i : i + 2, j : j + 2].mean((1, 2)) for j in range(0, size[1], 2)] for i in range(0, size[0], 2)]
    pooled = torch.stack([torch.stack(row, dim=1) for row in windows], dim=1)
    torch.testing.assert_close(layer(x), written_out(layer, x, pooled))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="5 heads for 12 channels"):
        GlobalAttention(12, 5)
    with pytest.raises(ValueError, match="got 0"):
        GlobalAttention(12, 3, sr_ratio=0)
