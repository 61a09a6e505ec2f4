"""What is recorded is what the block used: weights times values is its output; recording changes nothing."""

import itertools

import pytest
import torch
from einops import rearrange
from small_networks import build, image
from torch import nn

from nnunet_attn.blocks import (
    CAB,
    LGAG,
    ContextAwareFusion,
    CrossStageAttentionResidual,
    DifferentialCrossAttention,
    DualCrossAttention,
    GlobalAttention,
    MultiScaleDilatedAttention,
    WindowCrossAttention,
)
from nnunet_attn.blocks.cross_attention import ChannelCrossAttention, SpatialCrossAttention
from nnunet_attn.blocks.feature_history import enlarge, max_pool, smaller
from nnunet_attn.catalog import ENTRIES
from nnunet_attn.maps import record_attention


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def lively(block: nn.Module) -> nn.Module:
    """Float64, evaluation, and no parameter at a start that hides it."""
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.7)
    return block.double().eval()


def recorded(block: nn.Module, *inputs, point=None):
    with torch.no_grad(), record_attention(block, point) as maps:
        output = block(*inputs)
    assert torch.equal(flat(output), flat(block(*inputs)))
    return output, maps[""][0] if "" in maps else maps


def flat(output) -> torch.Tensor:
    return torch.cat([t.flatten() for t in output]) if isinstance(output, list) else output


def points(*size: int):
    """Centre of each cell of a grid, and its index."""
    for place in itertools.product(*map(range, size)):
        yield tuple((i + 0.5) / n for i, n in zip(place, size, strict=True)), place


@pytest.mark.parametrize("window", [2, None])
@pytest.mark.parametrize("kind", [WindowCrossAttention, DifferentialCrossAttention])
def test_window_attention(kind, window):
    block, x = lively(kind(8, 2, window=window)), random(1, 4, 5, 8)
    given = {}
    block.value.register_forward_hook(lambda _, __, out: given.update(value=out))
    block.out.register_forward_hook(lambda _, inputs, __: given.update(heads=inputs[0]))
    for point, (i, j) in points(4, 5):
        _, maps = recorded(block, x, point=point)
        found = given["heads"].view(1, 4, 5, 8)[0, i, j]
        if kind is WindowCrossAttention:
            rows = maps.marked["attention"].flatten(2)  # (1, 2 h, M)
            values = rearrange(given["value"], "b m (j d) -> b j m d", j=4)
            assert torch.allclose(rows.sum(-1), torch.ones_like(rows[..., 0]))
            expected = (rows[:, :, None] @ values).flatten()
        else:
            first, second, rows = (maps.marked[name].flatten(2) for name in ("A1", "A2", "A1 - lambda A2"))
            assert torch.allclose(rows, first - block.attention_lambda() * second)
            assert maps.numbers["lambda"] == pytest.approx(block.attention_lambda().item())
            for a in (first, second):
                assert torch.allclose(a.sum(-1), torch.ones_like(a[..., 0]))
            taken = block.attention_lambda() * second
            assert torch.allclose(
                maps.pixel["removed"][0, i, j], torch.minimum(first, taken.clamp_min(0)).sum(-1).mean()
            )
            assert torch.allclose(maps.pixel["negative"][0, i, j], (taken - first).clamp_min(0).sum(-1).mean())
            values = rearrange(given["value"], "b m (h w) -> b h m w", h=2)
            heads = nn.functional.rms_norm(rows[:, :, None] @ values, (4,), block.norm.weight, block.norm.eps)
            expected = ((1 - block.lambda_init) * heads).flatten()
        assert torch.allclose(found, expected)


@pytest.mark.parametrize("heads", [1, 2])
def test_channel_cross_attention(heads):
    block, tokens = lively(ChannelCrossAttention([4, 6], heads)), [random(2, 9, 4), random(2, 9, 6)]
    output, maps = recorded(block, tokens)
    normed = torch.cat([norm(t) for norm, t in zip(block.norms, tokens, strict=True)], dim=2)
    for level, own in enumerate(block.maps):
        matrix = maps.matrix[f"level {level}"]
        assert torch.allclose(matrix.sum(-1), torch.ones_like(matrix[..., 0]))
        assert torch.allclose(output[level], own.output((matrix @ own.value(normed).transpose(1, 2)).transpose(1, 2)))


def test_spatial_cross_attention():
    block, tokens = lively(SpatialCrossAttention([4, 8], 2)), [random(1, 6, 4), random(1, 6, 8)]
    for point, (i,) in points(6):
        output, maps = recorded(block, tokens, point=point)
        for level, own in enumerate(block.maps):
            rows = maps.marked[f"level {level}"]  # (1, h, P)
            assert torch.allclose(rows.sum(-1), torch.ones_like(rows[..., 0]))
            values = rearrange(own.value(block.norms[level](tokens[level])), "b p (h d) -> b h p d", h=2)
            expected = own.output((rows[:, :, None] @ values).flatten(1))
            assert torch.allclose(output[level][:, i], expected)


def test_tokens_of_dual_cross_attention_lie_in_space():
    block = lively(DualCrossAttention([4, 8], [(4, 4), (2, 2)]))
    _, maps = recorded(block, [random(1, 4, 16, 24), random(1, 8, 8, 12)])
    assert maps["blocks.0.attentions.1"][0].marked["level 1"].shape == (1, 4, 4, 6)


@pytest.mark.parametrize("form", ["2d", "3d"])
def test_cross_stage_attention(form):
    size, sizes = ((8, 12), [(16, 24), (4, 6)]) if form == "2d" else ((4, 4, 6), [(4, 8, 12), (2, 2, 3)])
    block = lively(CrossStageAttentionResidual(5, (3, 5), dim=len(size)))
    history, x = [random(2, width, *s) for width, s in zip((3, 5), sizes, strict=True)], random(2, 5, *size)
    output, maps = recorded(block, history, x)
    values = [x]
    for entry, projection in zip(history, block.projections, strict=True):
        values.append(projection(enlarge(max_pool(entry, smaller(entry.shape[2:], size)), size, False)))
    weights = torch.stack(
        [w for name, w in maps.pixel.items() if name.startswith("weight of ") and "finer" not in name]
    )
    assert torch.allclose(weights.sum(0), torch.ones_like(weights[0]))
    assert torch.allclose(output, (weights[:, :, None] * torch.stack(values)).sum(0))
    assert torch.equal(maps.pixel["weight of finer entries"], weights[1])
    assert ((maps.pixel["entropy"] > 0) & (maps.pixel["entropy"] < 1)).all()


def test_global_attention():
    block, x = lively(GlobalAttention(8, 2)), random(1, 3, 4, 8)
    values = rearrange(block.qkv(x).chunk(3, -1)[2], "b h w (j d) -> b j (h w) d", j=2)
    for point, (i, j) in points(3, 4):
        output, maps = recorded(block, x, point=point)
        rows = maps.marked["attention"].flatten(2)
        assert torch.allclose(output[:, i, j], block.proj((rows[:, :, None] @ values).flatten(1)))


def test_windows_that_the_edge_cuts_reach_beyond_the_map():
    x = random(1, 16, 10, 8)
    for kind in (WindowCrossAttention, DifferentialCrossAttention):
        _, maps = recorded(lively(kind(8, 2)), x)
        assert {tuple(t.shape[2:]) for t in maps.marked.values()} == {(3, 2)}
        assert maps.reach == (21 / 16, 14 / 10)
        assert recorded(lively(kind(8, 2, window=None)), x)[1].reach == ()
        assert recorded(lively(kind(8, 2)), random(1, 16, 5, 8))[1].reach == (21 / 16, 1)
    assert recorded(lively(GlobalAttention(8, 2, sr_ratio=4)), random(1, 6, 8, 8))[1].reach == (8 / 6, 1)


def test_dilated_attention():
    block, x = lively(MultiScaleDilatedAttention(12, 3)), random(1, 7, 8, 12)
    values = nn.functional.linear(x, block.qkv.weight.flatten(1), block.qkv.bias)[..., 24:]
    for point, (i, j) in points(7, 8):
        output, maps = recorded(block, x, point=point)
        heads = [
            torch.einsum("bhyx,byxd->bd", maps.marked[f"dilation {group + 1}"], values[..., 4 * group : 4 * group + 4])
            for group in range(3)
        ]
        assert torch.allclose(output[:, i, j], block.proj(torch.cat(heads, dim=-1)))


def test_gates():
    gate, g, x = lively(LGAG(4)), random(1, 4, 5, 6), random(1, 4, 5, 6)
    output, maps = recorded(gate, g, x)
    assert torch.allclose(output, x * maps.pixel["gate"][:, None])
    channels = lively(CAB(16))
    weights, maps = recorded(channels, random(1, 16, 5, 6))
    assert torch.equal(weights.flatten(1), maps.channel["channel weights"])
    fuse, parts = lively(ContextAwareFusion(4)), (random(1, 4, 5, 6), random(1, 4, 5, 6))
    output, maps = recorded(fuse, *parts)
    united = torch.cat(parts, dim=1) * maps.channel["channel weights"][..., None, None]
    assert torch.allclose(output, maps.pixel["spatial weights"][:, None] * fuse.reduce(united))


@pytest.mark.parametrize("compiled", [False, True])
def test_nothing_is_recorded_outside_or_under_compile(compiled):
    block = DifferentialCrossAttention(8, 2).eval()
    run = torch.compile(block, fullgraph=True, backend="eager") if compiled else block
    x = torch.randn(1, 4, 5, 8)
    with torch.no_grad():
        expected = run(x)
        with record_attention(block) as maps:
            assert torch.equal(run(x), expected)
    assert bool(maps) is not compiled


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.trainer)
def test_every_network_records_and_keeps_its_output(entry):
    network, x = build(entry).eval(), image(entry, batch=1)
    with torch.no_grad():
        expected = network(x)
        with record_attention(network) as maps:
            assert torch.equal(network(x), expected)
    assert maps
    calls = [call for calls in maps.values() for call in calls]
    kinds = [kind for call in calls for kind in vars(call).values() if isinstance(kind, dict)]
    assert all(torch.isfinite(t).all() and len(t) == 1 for kind in kinds for t in kind.values() if torch.is_tensor(t))
    assert all(n >= 1 for call in calls for n in call.reach)
