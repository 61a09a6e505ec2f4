"""Monte Carlo attention against sampling done literally, and mixing attention against its equations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp
from torch import nn

from nnunet_attn.blocks.mixing_attention import MixingAttention, MonteCarloAttention, sampled_mean

DRAWS = 3000


def shuffled_and_pooled(x: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """Shuffle the pixels, pool to k x k cells, take one cell."""
    shuffled = x.flatten(2)[..., torch.randperm(x.shape[2] * x.shape[3])].reshape(x.shape)
    k = sizes[torch.randint(len(sizes), ()).item()]
    i, j = torch.randint(k, (2,)).tolist()
    return F.adaptive_avg_pool2d(shuffled, k)[..., i : i + 1, j : j + 1]


def draws(function, x: torch.Tensor) -> np.ndarray:
    """Rounded, because a third of the draws is the mean of the whole map, up to the order of the summation."""
    return np.array([function(x).item() for _ in range(DRAWS)]).round(5)


@pytest.mark.parametrize(
    ("size", "whole_map"),
    [((5, 7), 1 / 3), ((3, 4), 1 / 3), ((2, 2), 1 / 3 + 1 / 27)],  # one of nine cells over 2x2 pixels has all of them
    ids=str,
)
def test_law_is_that_of_shuffling_and_pooling(size, whole_map):
    torch.manual_seed(0)
    x = torch.randn(1, 1, *size)
    ours = draws(sampled_mean, x)
    level = 1.95 * (2 / DRAWS) ** 0.5  # 0.1 %
    assert ks_2samp(ours, draws(lambda x: shuffled_and_pooled(x, (1, 2, 3)), x)).statistic < level
    assert ks_2samp(ours, draws(lambda x: shuffled_and_pooled(x, (1, 2)), x)).statistic > level
    assert (np.abs(ours - x.mean().item()) < 2e-5).mean() == pytest.approx(whole_map, abs=0.03)


def test_sample_is_shared_by_batch_and_channels():
    torch.manual_seed(0)
    one = torch.randn(1, 1, 6, 5)
    a = sampled_mean(torch.cat((one, 2 * one, one + 1), dim=1).repeat(3, 1, 1, 1))
    assert a.shape == (3, 3, 1, 1)
    torch.testing.assert_close(a, a[:1].expand(3, -1, -1, -1))
    torch.testing.assert_close(a[0, 1], 2 * a[0, 0])
    torch.testing.assert_close(a[0, 2], a[0, 0] + 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_large_map_fits_half_precision(dtype):
    torch.manual_seed(0)
    x = 50 + torch.randn(1, 4, 128, 128)
    with torch.autocast("cpu", dtype=dtype):
        for _ in range(5):
            torch.testing.assert_close(
                sampled_mean(x.to(dtype)).float(), torch.full((1, 4, 1, 1), 50.0), rtol=0.02, atol=0
            )


def test_gate_is_the_formula_on_the_global_mean_in_evaluation():
    torch.manual_seed(0)
    attention, x = MonteCarloAttention(72).double().eval(), torch.randn(2, 72, 4, 3, dtype=torch.float64)
    first, _, second, _ = attention.gate
    assert first.weight.shape == (32, 72, 1, 1)
    hidden = (x.mean((2, 3)) @ first.weight[:, :, 0, 0].T + first.bias).relu()
    expected = torch.sigmoid(hidden @ second.weight[:, :, 0, 0].T + second.bias)[..., None, None]
    before = torch.get_rng_state()
    torch.testing.assert_close(attention(x), expected)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("channels", "hidden"), [(576, 144), (288, 72), (144, 40), (72, 32)])
def test_hidden_width(channels, hidden):
    assert MonteCarloAttention(channels).gate[0].out_channels == hidden


def test_without_gate_it_is_the_mean():
    attention, x = MonteCarloAttention(8, gate=False).eval(), torch.randn(2, 8, 4, 3)
    assert not list(attention.parameters())
    torch.testing.assert_close(attention(x), x.mean((2, 3), keepdim=True))


def test_compiled_in_one_graph_it_still_draws():
    torch.manual_seed(0)
    attention, x = MonteCarloAttention(8, gate=False), torch.randn(1, 8, 12, 12)
    torch.compiler.reset()
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    # a third of the calls returns the mean of the whole map
    assert len({round(compiled(x)[0, 0].item(), 5) for _ in range(40)}) > 20
    attention.eval()
    torch.testing.assert_close(compiled(x), attention(x))


def test_mixing_attention_is_the_formula():
    torch.manual_seed(0)
    mixing, p1 = MixingAttention(12, 3).double().eval(), torch.randn(2, 12, 5, 4, dtype=torch.float64)
    tokens = p1.flatten(2).transpose(1, 2)
    normed = F.layer_norm(tokens, (12,), mixing.norm.weight, mixing.norm.bias)
    reference = nn.MultiheadAttention(12, 3, batch_first=True).double()
    reference.in_proj_weight.data, reference.in_proj_bias.data = mixing.attention.qkv.weight, mixing.attention.qkv.bias
    reference.out_proj = mixing.attention.proj
    s = reference(normed, normed, normed)[0].transpose(1, 2).reshape(p1.shape)
    p2 = s + p1
    torch.testing.assert_close(mixing(p1), p2 * mixing.monte_carlo(p2) + s)
