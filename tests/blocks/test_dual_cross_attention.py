import math

import pytest
import torch
from torch import nn

from nnunet_attn.blocks.cross_attention import ChannelCrossAttention, SpatialCrossAttention
from nnunet_attn.blocks.dual_cross_attention import DualCrossAttention

POOL = ((8, 8), (4, 4), (2, 2), (1, 1))
FOUR = {"channels": (8, 12, 16, 24), "pool": POOL}
EVEN = [(32, 48), (16, 24), (8, 12), (4, 6)]


def randomised(module: nn.Module, spread: float = 0.5) -> nn.Module:
    """All norms and per-channel maps away from their start, the same for equal modules."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return module


def skips(channels, sizes, *, batch: int = 2, dtype=torch.float64, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, c, *s, generator=generator, dtype=dtype) for c, s in zip(channels, sizes, strict=True)]


def outputs_and_gradients(module: nn.Module, inputs: list[torch.Tensor]) -> tuple[list, list]:
    inputs = [x.clone().requires_grad_() for x in inputs]
    outputs = module(inputs)
    loss = sum(
        (o * w).sum()
        for o, w in zip(
            outputs, skips(*zip(*[(o.shape[1], o.shape[2:]) for o in outputs], strict=True), seed=7), strict=True
        )
    )
    loss.backward()
    return outputs, [x.grad for x in inputs] + [p.grad for p in module.parameters() if p.requires_grad]


@pytest.mark.parametrize(
    ("sizes", "arguments"),
    [
        (EVEN, FOUR),
        (EVEN, FOUR | {"blocks": 2}),
        (EVEN, FOUR | {"channel_heads": 2}),
        (EVEN, FOUR | {"channel_heads": 4, "spatial_heads": 2, "blocks": 2}),
        (EVEN, FOUR | {"spatial_attention": False}),
        (EVEN, FOUR | {"channel_attention": False}),
        (EVEN, FOUR | {"channel_scale": "ref784"}),
        ([(41, 50), (21, 25), (11, 13), (6, 7)], FOUR),
        ([(41, 50), (20, 25), (10, 12), (5, 6)], FOUR),
        ([(41, 50), (21, 25), (11, 13), (6, 7)], FOUR | {"coarsen_above": 15}),
        ([(7, 17, 18), (7, 9, 9), (4, 5, 5)], {"channels": (8, 12, 16), "pool": ((2, 4, 4), (2, 2, 2), (1, 1, 1))}),
        ([(33,), (17,)], {"channels": (8, 4), "pool": ((2,), (1,))}),
    ],
    ids=[
        "even",
        "two-blocks",
        "channel-heads",
        "heads",
        "channel",
        "spatial",
        "ref784",
        "odd",
        "floored",
        "cap",
        "3d",
        "1d",
    ],
)
def test_folded_equals_plain(sizes, arguments):
    plain = randomised(DualCrossAttention(**arguments, implementation="plain")).double()
    folded = DualCrossAttention(**arguments).double()
    folded.load_state_dict(plain.state_dict())
    inputs = skips(arguments["channels"], sizes)
    outputs, gradients = outputs_and_gradients(plain, inputs)
    outputs_folded, gradients_folded = outputs_and_gradients(folded, inputs)
    assert [o.shape for o in outputs] == [x.shape for x in inputs]
    for a, b in zip(outputs, outputs_folded, strict=True):
        assert (a - b).abs().max() < 1e-12
    for a, b in zip(gradients, gradients_folded, strict=True):
        assert (a - b).abs().max() < 1e-10


def tiny_tokens() -> list[torch.Tensor]:
    return [t.flatten(2).transpose(1, 2) for t in skips((2, 4), [(3,), (3,)], batch=1)]


def normed(tokens: torch.Tensor, norm: nn.LayerNorm) -> list[list[float]]:
    return norm(tokens)[0].tolist()


@pytest.mark.parametrize("implementation", ["plain", "folded"])
def test_channel_attention_by_hand(implementation):
    module = randomised(ChannelCrossAttention((2, 4), implementation=implementation)).double()
    tokens = tiny_tokens()
    updates = module(tokens)
    levels = [normed(t, n) for t, n in zip(tokens, module.norms, strict=True)]
    joint = [[v for level in levels for v in level[p]] for p in range(3)]
    for i, maps in enumerate(module.maps):
        wq, bq, wk, bk, wv, bv, wo, bo = (p.tolist() for p in maps.parameters())
        for c in range(len(wq)):
            query = [wq[c] * levels[i][p][c] + bq[c] for p in range(3)]
            logits = [sum(query[p] * (wk[d] * joint[p][d] + bk[d]) for p in range(3)) / math.sqrt(6) for d in range(6)]
            weights = [math.exp(v) / sum(map(math.exp, logits)) for v in logits]
            for p in range(3):
                value = sum(weights[d] * (wv[d] * joint[p][d] + bv[d]) for d in range(6))
                assert updates[i][0, p, c].item() == pytest.approx(wo[c] * value + bo[c], abs=1e-12)


@pytest.mark.parametrize("implementation", ["plain", "folded"])
def test_spatial_attention_by_hand(implementation):
    module = randomised(SpatialCrossAttention((2, 4), 2, implementation=implementation)).double()
    tokens = tiny_tokens()
    updates = module(tokens)
    levels = [normed(t, n) for t, n in zip(tokens, module.norms, strict=True)]
    joint = [[v for level in levels for v in level[p]] for p in range(3)]
    for i, maps in enumerate(module.maps):
        wq, bq, wk, bk, wv, bv, wo, bo = (p.tolist() for p in maps.parameters())
        for c in range(len(wv)):
            head = range(3) if c < len(wv) // 2 else range(3, 6)  # channels of queries and keys in the channel's head
            for p in range(3):
                logits = [
                    sum((wq[d] * joint[p][d] + bq[d]) * (wk[d] * joint[r][d] + bk[d]) for d in head) / math.sqrt(3)
                    for r in range(3)
                ]
                weights = [math.exp(v) / sum(map(math.exp, logits)) for v in logits]
                value = sum(weights[r] * (wv[c] * levels[i][r][c] + bv[c]) for r in range(3))
                assert updates[i][0, p, c].item() == pytest.approx(wo[c] * value + bo[c], abs=1e-12)


def test_way_in_and_out_without_attention():
    """Means of windows, aligned corners, and the raw skip added before the norm."""
    module = DualCrossAttention(
        (4, 8), ((2, 2), (1, 1)), channel_attention=False, spatial_attention=False, norm=nn.Identity, act=nn.Identity
    ).double()
    for linear in module.project:
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    for affine in module.embed:
        nn.init.ones_(affine.weight)
        nn.init.zeros_(affine.bias)
    fine, coarse = skips((4, 8), [(4, 6), (2, 3)])
    out = module([fine, coarse])
    means = fine.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    assert torch.allclose(
        (out[0] - fine)[:, :, [0, 0, -1, -1], [0, -1, 0, -1]], means[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    )
    assert torch.allclose(out[1], 2 * coarse)


def test_the_key_bias_of_the_spatial_attention_has_no_effect():
    module = randomised(DualCrossAttention(**FOUR, implementation="plain")).double().eval()
    inputs = skips(FOUR["channels"], EVEN)
    before = module(inputs)
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    assert frozen == [f"blocks.0.attentions.1.maps.{i}.key.bias" for i in range(4)]
    for name in frozen:
        module.get_parameter(name).data.add_(3)
    assert max((a - b).abs().max() for a, b in zip(before, module(inputs), strict=True)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("implementation", ["plain", "folded"])
def test_half_precision_with_peaked_attention(dtype, implementation):
    """Products of query and key beyond the largest float16, so that the channel attention must not see autocast."""
    channels, sizes = (32, 64, 128), [(128, 128), (64, 64), (32, 32)]
    module = DualCrossAttention(channels, ((4, 4), (2, 2), (1, 1)), implementation=implementation).eval()
    channel, spatial = module.blocks[0].attentions
    with torch.no_grad():
        for maps in (*channel.maps, *spatial.maps):
            maps.query.weight.mul_(4).add_(3)
            maps.key.weight.mul_(3).add_(2)
    seen = []
    channel.register_forward_hook(lambda _module, tokens, updates: seen.append((tokens[0], updates)))
    inputs = [x.to(dtype).float() for x in skips(channels, sizes, batch=1, dtype=torch.float32)]
    with torch.no_grad():
        exact = module(inputs)
        with torch.autocast("cpu", dtype=dtype):
            half = module([x.to(dtype) for x in inputs])
            again = channel(seen[0][0])
    tokens, updates = seen[0]
    normed = torch.cat([n(t) for n, t in zip(channel.norms, tokens, strict=True)], dim=2)
    queries = torch.cat([m.query(n) for m, n in zip(channel.maps, normed.split(channels, dim=2), strict=True)], dim=2)
    assert (queries.transpose(1, 2) @ channel.maps[0].key(normed)).abs().max() > torch.finfo(torch.float16).max
    assert all(torch.equal(a, b) for a, b in zip(updates, again, strict=True))
    for a, b in zip(exact, half, strict=True):
        assert torch.isfinite(b).all()
        assert (a - b.float()).norm() / a.norm() < 0.03


def test_no_map_of_tokens_by_tokens_is_kept():
    kept = []
    inputs = skips((32, 64, 128, 256), [(256, 192), (128, 96), (64, 48), (32, 24)], batch=1, dtype=torch.float32)
    for implementation in ("plain", "folded"):
        module = DualCrossAttention((32, 64, 128, 256), POOL, implementation=implementation)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.shape) or t, lambda t: t):
            module([x.requires_grad_() for x in inputs])
        kept.append(any(shape[-2:] == (768, 768) for shape in sizes))
    assert kept == [True, False]


def test_output_has_the_memory_format_of_the_skips():
    module = DualCrossAttention(**FOUR)
    assert all(o.is_contiguous() for o in module(skips(FOUR["channels"], EVEN, dtype=torch.float32)))


def test_tokens_are_capped():
    module = DualCrossAttention((4, 8, 16), ((4, 4), (2, 2), (1, 1)))
    assert module.token_grid([(224, 224), (112, 112), (56, 56)]) == ([(4, 4), (2, 2), (1, 1)], (56, 56))
    assert module.token_grid([(512, 512), (256, 256), (128, 128)]) == ([(8, 8), (4, 4), (2, 2)], (64, 64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (8, 10)}, r"multiples of the 4 heads of SpatialCrossAttention, got \[8, 10\]"),
        ({"channel_heads": 3}, "multiples of the 3 heads of ChannelCrossAttention"),
        ({"pool": ((2, 2),)}, "one entry per level"),
        ({"pool": ((2, 2), (1,))}, "one entry per level"),
        ({"implementation": "fast"}, "implementation must be one of folded, plain, got 'fast'"),
        ({"channel_scale": 1.0}, "channel_scale must be one of paper, ref784, got 1.0"),
        ({"blocks": 0}, "at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DualCrossAttention(**({"channels": (8, 16), "pool": ((2, 2), (1, 1))} | arguments))


def test_skips_that_do_not_fit():
    module = DualCrossAttention((8, 16), ((2, 2), (1, 1)))
    fine, coarse = skips((8, 16), [(8, 8), (4, 4)], dtype=torch.float32)
    with pytest.raises(ValueError, match="expected 2 skips with 2 axes"):
        module([fine])
    with pytest.raises(ValueError, match=r"different token grids \[\(4, 4\), \(8, 8\)\]"):
        module([fine, torch.cat([torch.cat([coarse] * 2, 2)] * 2, 3)])


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_the_way_back_keeps_no_map_of_the_skips_size(norm):
    """As it is; compiled, with nnU-Net's norm, which counts nothing in place. Batches count once."""
    inputs = [x.requires_grad_() for x in skips((8, 16), [(32, 32), (16, 16)], dtype=torch.float32)]
    found = []
    for backend in (None, "aot_eager_decomp_partition"):
        module = randomised(DualCrossAttention((8, 16), ((8, 8), (4, 4)), norm=norm))
        call = torch.compile(module, backend=backend, fullgraph=True) if backend else module
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            outputs = call(inputs)
        own = {x.untyped_storage().data_ptr() for x in inputs}
        large = [t.shape for t in kept if t.untyped_storage().data_ptr() not in own and t.numel() >= 2 * 16 * 256]
        assert not large or (backend and norm is nn.BatchNorm2d)
        gradients = torch.autograd.grad(sum(o.square().sum() for o in outputs), inputs)
        found.append([*outputs, *gradients, *module.buffers()])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
