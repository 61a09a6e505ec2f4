"""Differential cross attention against loops, against torch's own attention, and at sizes and magnitudes that hurt."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnunet_attn.blocks.differential_cross_attention import (
    DifferentialCrossAttention,
    WindowCrossAttention,
    lambda_schedule,
    window_summaries,
)

IMPLEMENTATION = pytest.mark.parametrize("implementation", ["plain", "fused"])
BOTH_CLASSES = pytest.mark.parametrize("cls", [DifferentialCrossAttention, WindowCrossAttention])


def make(cls=DifferentialCrossAttention, channels=16, heads=2, *, seed=0, dtype=torch.float64, **kwargs) -> nn.Module:
    """A module with peaked maps (scores of deviation about 2), and lambda, norm and bias away from their start."""
    torch.manual_seed(seed)
    module = cls(channels, heads, **kwargs)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=1.5 / math.sqrt(channels))
            elif name.startswith("lambda"):
                parameter.normal_(std=0.5 / math.sqrt(module.width) ** 0.5)
            else:
                parameter.uniform_(0.5, 1.5)
    return module.to(dtype)


def image(*shape: int, seed=1, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def looped_means(x: torch.Tensor, window: int) -> list[torch.Tensor]:
    height, width, _ = x.shape
    return [
        torch.stack(
            [x[i, j] for i in range(a, min(a + window, height)) for j in range(b, min(b + window, width))]
        ).mean(0)
        for a in range(0, height, window)
        for b in range(0, width, window)
    ]


def looped_softmax(scores: list[float]) -> list[float]:
    exponentials = [math.exp(s - max(scores)) for s in scores]
    return [e / sum(exponentials) for e in exponentials]


def looped_attention(module: DifferentialCrossAttention, x: torch.Tensor, keys: list[torch.Tensor]) -> torch.Tensor:
    """Eq. (2) to (7), query by query and head by head. x: (H, W, C)."""
    channels, d = x.shape[-1], module.width
    w_q, w_k, w_v, w_o = (getattr(module, n).weight for n in ("query", "key", "value", "out"))
    lam = (
        math.exp(sum(float(a * b) for a, b in zip(module.lambda_q1, module.lambda_k1, strict=True)))
        - math.exp(sum(float(a * b) for a, b in zip(module.lambda_q2, module.lambda_k2, strict=True)))
        + module.lambda_init
    )
    result = torch.empty_like(x)
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            q, heads = w_q @ x[row, column], []
            for i in range(channels // (2 * d)):
                first, second, both = (slice(2 * d * i + a, 2 * d * i + b) for a, b in ((0, d), (d, 2 * d), (0, 2 * d)))
                a1 = looped_softmax([float(q[first] @ (w_k @ s)[first]) / math.sqrt(d) for s in keys])
                a2 = looped_softmax([float(q[second] @ (w_k @ s)[second]) / math.sqrt(d) for s in keys])
                o = sum((p1 - lam * p2) * (w_v @ s)[both] for p1, p2, s in zip(a1, a2, keys, strict=True))
                o = o / torch.sqrt((o * o).mean() + 1e-5) * module.norm.weight
                heads.append((1 - module.lambda_init) * o)
            result[row, column] = w_o @ torch.cat(heads) + module.out.bias
    return result


def gradients(module: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    module.zero_grad()
    output = module(x)
    (output * image(*output.shape, seed=5, dtype=output.dtype)).sum().backward()
    return {"output": output.detach(), "x": x.grad} | {n: p.grad.clone() for n, p in module.named_parameters()}


def test_lambda_starts_as_in_the_differential_transformer():
    expected = [0.200, 0.356, 0.471, 0.556, 0.619, 0.666, 0.701, 0.727, 0.746]
    expected += [0.760, 0.770, 0.778, 0.784, 0.788, 0.791, 0.793, 0.795, 0.796]
    assert [lambda_schedule(depth) for depth in range(1, 19)] == pytest.approx(expected, abs=6e-4)


def test_lambda_is_the_reparametrisation():
    module = DifferentialCrossAttention(8, 1, lambda_init=0.3)
    assert module.lambda_q1.shape == (4,)
    for vector, value in zip(("q1", "k1", "q2", "k2"), (0.5, 0.25, 0.1, 2.0), strict=True):
        nn.init.constant_(getattr(module, f"lambda_{vector}"), value)
    assert module.attention_lambda().item() == pytest.approx(math.exp(0.5) - math.exp(0.8) + 0.3)


@pytest.mark.parametrize("size", [(7, 7), (14, 21), (8, 8), (15, 6), (1, 20), (20, 1), (13, 29), (22, 36)])
def test_summaries_are_the_means_of_the_windows(size):
    x = image(2, *size, 3)
    expected = torch.stack([torch.stack(looped_means(sample, 7)) for sample in x])
    assert expected.shape[1] == -(-size[0] // 7) * -(-size[1] // 7)
    torch.testing.assert_close(window_summaries(x, 7), expected)


@IMPLEMENTATION
@pytest.mark.parametrize(("size", "keys"), [((9, 8), 4), ((2, 8), 2), ((3, 5), 15)])
def test_formula_by_loops(implementation, size, keys):
    module = make(lambda_init=0.4, implementation=implementation)
    x = image(2, *size, 16)
    with torch.no_grad():
        output = module(x)
        for sample, result in zip(x, output, strict=True):
            tokens = looped_means(sample, 7) if max(size) > 7 else list(sample.flatten(0, 1))
            assert len(tokens) == keys
            torch.testing.assert_close(result, looped_attention(module, sample, tokens))


@IMPLEMENTATION
def test_standard_attention_is_torch_s(implementation):
    module = make(WindowCrossAttention, implementation=implementation)
    reference = nn.MultiheadAttention(16, 4, batch_first=True).double()
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([module.query.weight, module.key.weight, module.value.weight]))
        reference.in_proj_bias.zero_()
        reference.out_proj.load_state_dict(module.out.state_dict())
        x = image(2, 9, 15, 16)
        summary = window_summaries(x, 7)
        expected, _ = reference(x.flatten(1, 2), summary, summary)
        torch.testing.assert_close(module(x).flatten(1, 2), expected)


def difference(module: nn.Module, *projected: torch.Tensor) -> torch.Tensor:
    """Eq. (4) of the fused form."""
    return module.difference(module.fused(*projected), module.attention_lambda())


@IMPLEMENTATION
def test_without_lambda_it_is_plain_attention_of_the_first_maps(implementation):
    module = make(lambda_init=0.0, implementation=implementation)
    with torch.no_grad():
        for vector in (module.lambda_q1, module.lambda_q2):
            vector.zero_()
    q, k, v = image(2, 30, 16), image(2, 5, 16, seed=2), image(2, 5, 16, seed=3)
    q1, k1 = (t.unflatten(2, (2, 2, 4))[:, :, :, 0].transpose(1, 2) for t in (q, k))
    expected = F.scaled_dot_product_attention(q1, k1, v.unflatten(2, (2, 8)).transpose(1, 2)).transpose(1, 2)
    found = module.plain(q, k, v) if implementation == "plain" else difference(module, q, k, v)
    torch.testing.assert_close(found, expected)
    expected = F.rms_norm(expected, (8,), module.norm.weight, 1e-5).flatten(2)
    torch.testing.assert_close(module.attend(q, k, v), module.out(expected))


@BOTH_CLASSES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("size", "window"), [((13, 22), 7), ((5, 3), 7), ((9, 4), None), ((1, 1), 7), ((1, 17), 5)])
def test_both_implementations_give_the_same_output_and_gradients(cls, size, window, dtype):
    plain, fused = (make(cls, 32, 2, window=window, dtype=dtype, implementation=i) for i in ("plain", "fused"))
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in fused.state_dict().items()}
    x = image(2, *size, 32, dtype=dtype)
    expected, found = gradients(plain, x), gradients(fused, x)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    for name, value in expected.items():
        assert (found[name] - value).norm() <= tolerance * (1 + value.norm()), name


def test_zeros_that_widen_queries_and_keys_leave_the_scale_alone():
    module = make(channels=32, heads=2)
    q, k, v = image(2, 40, 32), image(2, 6, 32, seed=2), image(2, 6, 32, seed=3)
    (q1, q2), (k1, k2) = (t.unflatten(2, (2, 2, 8)).permute(3, 0, 2, 1, 4) for t in (q, k))
    values = v.unflatten(2, (2, 16)).transpose(1, 2)

    def unpadded(scale):
        o1, o2 = (F.scaled_dot_product_attention(a, b, values, scale=scale) for a, b in ((q1, k1), (q2, k2)))
        return (o1 - module.attention_lambda() * o2).transpose(1, 2)

    with torch.no_grad():
        found = difference(module, q, k, v)
        torch.testing.assert_close(found, unpadded(8**-0.5))
        assert (found - unpadded(16**-0.5)).abs().max() > 0.1  # the scale of the padded width


@BOTH_CLASSES
@IMPLEMENTATION
def test_a_map_of_one_window_attends_over_its_pixels(cls, implementation):
    module = make(cls, implementation=implementation)
    x = image(1, 7, 6, 16)
    with torch.no_grad():
        tokens = x.flatten(1, 2)
        torch.testing.assert_close(module(x), make(cls, window=None, implementation=implementation)(x))
        assert module(x).flatten(1, 2).std(dim=1).min() > 0.05
        mean = window_summaries(x, 7)  # what would come of the single mean: the same everywhere
        constant = module.attend(module.query(tokens), module.key(mean), module.value(mean))
        assert constant.std(dim=1).max() < 1e-12
        wide = image(1, 7, 8, 16)  # one pixel more is two windows
        assert not torch.allclose(module(wide), make(cls, window=None, implementation=implementation)(wide))


@BOTH_CLASSES
@IMPLEMENTATION
def test_gradcheck(cls, implementation):
    module = make(cls, 8, 1, window=2, implementation=implementation)
    x = image(1, 3, 3, 8).requires_grad_()
    parameters = list(module.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *parameters))


@IMPLEMENTATION
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("magnitude", [1e-3, 1.0, 300.0])
def test_half_precision_is_close_to_float32_at_any_magnitude_of_the_heads(implementation, dtype, magnitude):
    """Heads of magnitude 300 overflow a norm in float16, whose result then is zero and not NaN."""
    module = make(channels=64, heads=1, window=None, dtype=torch.float32, implementation=implementation)
    with torch.no_grad():
        module.value.weight.mul_(magnitude)
        module.out.bias.zero_()
        x = image(2, 8, 9, 64, dtype=torch.float32)
        tokens = x.flatten(1, 2)
        heads = difference(module, module.query(tokens), module.key(tokens), module.value(tokens))
        assert heads.abs().median() > 0.3 * magnitude
        assert heads.abs().max() > 3 * magnitude
        exact = module(x)
        with torch.autocast("cpu", dtype=dtype):
            close = module(x).float()
        cast = module.to(dtype)(x.to(dtype)).float()  # without autocast, all weights coarse
    tolerance = 0.02 if dtype == torch.float16 else 0.12
    for output in (close, cast):
        assert (output - exact).norm() < tolerance * exact.norm()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 10, "heads": 2}, "10 channels and 2 heads"),
        ({"channels": 8, "heads": 2, "window": 0}, "window must be at least 1"),
        ({"channels": 8, "heads": 2, "implementation": "flash"}, "got 'flash'"),
    ],
)
@BOTH_CLASSES
def test_wrong_arguments_are_named(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(**arguments)
