"""Training in half precision: what is finite and not zero in float32 is neither lost nor infinite in float16.

On the CPU, which rounds as a GPU does: autocast, and a GradScaler that halves its scale until the gradients fit.
"""

import pydoc
from collections.abc import Callable, Sequence

import pytest
import torch
from planned_hosts import PATCHES, host_arguments
from small_networks import build, image, several_heads, small
from torch import nn

from nnunet_attn import blocks
from nnunet_attn.blocks.differential_cross_attention import softmax_map, window_summaries
from nnunet_attn.blocks.dilated_attention import dilated_attention
from nnunet_attn.blocks.mixing_attention import sampled_mean
from nnunet_attn.catalog import ENTRIES

DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weighted_sum(outputs: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    maps = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    return sum((m.float() * random(*m.shape, seed=1)).sum() / m.numel() for m in maps)


def gradients(function: Callable, tensors: Sequence[torch.Tensor], dtype: torch.dtype | None) -> list[torch.Tensor]:
    """Gradients of a loss of ``function()``; under autocast unscaled, with the first scale at which they are finite."""
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is not None)
    optimizer = torch.optim.SGD(tensors, 0.0)
    for _ in range(24):
        torch.manual_seed(0)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            loss = weighted_sum(function())
        assert torch.isfinite(loss)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        found = [torch.zeros_like(t) if t.grad is None else t.grad.clone() for t in tensors]
        if all(torch.isfinite(g).all() for g in found):
            return found
        scaler.step(optimizer)
        scaler.update()
    raise AssertionError("not finite at any scale")


def check_gradients(function: Callable, named: dict[str, torch.Tensor], dtype: torch.dtype, share: float) -> None:
    """None is lost; ``share`` bounds the difference to float32 where it is a block's own."""
    exact = gradients(function, [*named.values()], None)
    close = gradients(function, [*named.values()], dtype)
    largest = max(g.abs().max() for g in exact)
    for name, wanted, found in zip(named, exact, close, strict=True):
        if wanted.abs().max() > 1e-5 * largest:
            assert found.abs().max() > 0, f"{name}: zero"
            assert (found - wanted).norm() <= share * wanted.norm(), name


FAST_IN_FLOAT16 = ("nnUNetTrainerDCAUNet", "nnUNetTrainerXAttnResUNet")


@pytest.mark.parametrize(
    ("entry", "dtype"),
    [
        pytest.param(e, d, id=f"{e.trainer}-{d}", marks=[pytest.mark.slow] * slow)
        for e in ENTRIES
        for d in (torch.bfloat16, torch.float16)
        for slow in [d == torch.float16 and e.trainer not in FAST_IN_FLOAT16]  # convolutions that a CPU does slowly
    ],
)
def test_no_gradient_of_a_network_is_lost(entry, dtype):
    network = build(entry, **({"deep_supervision": True} if several_heads(entry) else {})).train()
    x = image(entry)
    parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
    check_gradients(lambda: network(x), parameters, dtype, float("inf"))


def attend(cls: type, implementation: str) -> Callable:
    block = cls(16, heads=2, implementation=implementation)
    return lambda q, k, v: block.attend(q, k, v)


def pooled(skip: torch.Tensor) -> torch.Tensor:
    return blocks.DualCrossAttention([8], pool=[(4, 4)]).pooled(skip, (4, 4), (3, 3))


def read_history(form: str) -> Callable:
    block = blocks.CrossStageAttentionResidual(8, (8, 8), query_init="kaiming", form=form)
    return lambda x, large, small: block([large, small], x)


# what the blocks compute themselves, outside of convolutions and linear layers, with the shapes that it takes
OWN_ARITHMETIC = {
    "windows": (lambda x: window_summaries(x, 4), [(1, 11, 9, 8)]),
    "sampled mean": (sampled_mean, [(1, 4, 40, 41)]),
    "pooled": (pooled, [(1, 8, 12, 12)]),
    **{f"history {form}": (read_history(form), [(1, 8, 6, 6), (1, 8, 12, 12), (1, 8, 3, 3)])
       for form in ("plain", "list", "streaming")},
}  # fmt: skip
QUERY_KEY_VALUE = {
    "softmax": (lambda q, k, _: softmax_map(q, k), [(1, 12, 8), (1, 6, 8), (1,)]),
    "dilated": (lambda q, k, v: dilated_attention(q, k, v, 2), [(1, 6, 7, 2, 8)] * 3),
    **{
        f"{cls.__name__} {way}": (attend(cls, way), [(1, 30, 16), (1, 12, 16), (1, 12, 16)])
        for cls in (blocks.WindowCrossAttention, blocks.DifferentialCrossAttention)
        for way in ("plain", "fused")
    },
}


@DTYPES
@pytest.mark.parametrize("magnitude", [300.0, 6e4])
@pytest.mark.parametrize("name", [*OWN_ARITHMETIC, *QUERY_KEY_VALUE])
def test_own_arithmetic_at_the_end_of_float16(name, magnitude, dtype):
    """The largest float16 is 65504: values near it give what they give in float32."""
    function, shapes = (OWN_ARITHMETIC | QUERY_KEY_VALUE)[name]

    def inputs(*magnitudes: float) -> list[torch.Tensor]:
        values = [random(*shape, seed=n) for n, shape in enumerate(shapes)]
        values = [(v * m / v.abs().max()).to(dtype) for v, m in zip(values, magnitudes, strict=True)]
        return [v.float().requires_grad_() for v in values]

    def cast(values: list[torch.Tensor]) -> torch.Tensor:
        return function(*(v.to(dtype) for v in values) if torch.is_autocast_enabled("cpu") else values)

    values = inputs(*[magnitude] * len(shapes))
    torch.manual_seed(0)
    exact = function(*values)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=dtype):
        close = cast(values).float()
    assert torch.isfinite(close).all()
    assert (close - exact).norm() <= 0.05 * exact.norm()
    if name in QUERY_KEY_VALUE:
        assert all(torch.isfinite(g).all() for g in gradients(lambda: cast(values), values, dtype))
        values = inputs(magnitude, 4 / magnitude, magnitude)  # of a softmax that is not at its end
    check_gradients(lambda: cast(values), {f"input {n}": v for n, v in enumerate(values)}, dtype, 0.2)


WHOLE = {
    "DifferentialCrossAttention": (lambda: blocks.DifferentialCrossAttention(16, heads=2), [(1, 14, 15, 16)]),
    "DCABlock": (lambda: blocks.DCABlock(16, blocks.DifferentialCrossAttention(16, heads=2)), [(1, 16, 14, 15)]),
    "ChannelSpatialFusion": (lambda: blocks.ChannelSpatialFusion(16), [(2, 16, 14, 15)] * 2),
    "DualCrossAttention": (
        lambda: blocks.DualCrossAttention([8, 16], pool=[(4, 4), (2, 2)]), [(2, 8, 24, 20), (2, 16, 12, 10)],
    ),
    "MultiScaleDilatedAttention": (lambda: blocks.MultiScaleDilatedAttention(24, heads=3), [(1, 9, 10, 24)]),
    "MixingAttention": (lambda: blocks.MixingAttention(16, heads=2, sr_ratio=2), [(1, 16, 9, 10)]),
    "ContextAwareFusion": (lambda: blocks.ContextAwareFusion(16), [(1, 16, 9, 10)] * 2),
    "MSCAM": (lambda: blocks.MSCAM(16), [(2, 16, 9, 10)]),
    "LGAG": (lambda: blocks.LGAG(16), [(2, 16, 9, 10)] * 2),
    "CrossStageAttentionResidual": (
        lambda: blocks.CrossStageAttentionResidual(8, (4, 16), query_init="kaiming"),
        [(1, 8, 6, 7), (1, 4, 12, 14), (1, 16, 3, 4)],
    ),
}  # fmt: skip


def call(block: nn.Module, maps: Sequence[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
    if isinstance(block, blocks.DualCrossAttention):
        return block(maps)
    if isinstance(block, blocks.CrossStageAttentionResidual):
        return block(maps[1:], maps[0])
    if isinstance(block, blocks.MSCAM):
        return block(maps[0], None)
    return block(*maps)


@DTYPES
@pytest.mark.parametrize("magnitude", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("name", WHOLE)
def test_no_gradient_of_a_block_is_lost(name, magnitude, dtype):
    torch.manual_seed(0)
    make, shapes = WHOLE[name]
    block, maps = make().train(), [magnitude * random(*shape, seed=n) for n, shape in enumerate(shapes)]
    inputs = {f"input {n}": m.requires_grad_() for n, m in enumerate(maps)}
    check_gradients(
        lambda: call(block, maps),
        inputs | {n: p for n, p in block.named_parameters() if p.requires_grad},
        dtype,
        float("inf"),
    )


@pytest.mark.parametrize("name", [*WHOLE])
def test_layout_of_a_block_s_input_changes_nothing(name):
    torch.manual_seed(0)
    make, shapes = WHOLE[name]
    block, maps = make().eval(), [random(*shape, seed=n).requires_grad_() for n, shape in enumerate(shapes)]
    values = [*maps, *(p for p in block.parameters() if p.requires_grad)]
    plain = torch.autograd.grad(weighted_sum(call(block, maps)), values, allow_unused=True)
    block = block.to(memory_format=torch.channels_last)
    turned = [m.contiguous(memory_format=torch.channels_last) for m in maps]
    for wanted, found in zip(
        plain, torch.autograd.grad(weighted_sum(call(block, turned)), values, allow_unused=True), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


OTHER_HOSTS = ("VNet", "R2UNet", "ResUNetPlusPlus", "DoubleUNet", "MultiResUNet")  # of Dual Cross-Attention


@pytest.mark.parametrize(
    ("entry", "dim"),
    [
        pytest.param(e, d, id=f"{e.trainer}-{d}D", marks=[pytest.mark.slow] * e.trainer.endswith(OTHER_HOSTS))
        for e in ENTRIES
        for d in e.dimensions
    ],
)
def test_layout_of_a_network_changes_nothing(entry, dim):
    """``channels_last`` and ``channels_last_3d``, of weights and image; in float64, where only an error differs."""
    layout = (torch.channels_last, torch.channels_last_3d)[dim - 2]
    torch.manual_seed(0)
    if dim == 3:
        plans = host_arguments(3) | ({"patch_size": PATCHES[3]} if "patch_size" in entry.arguments else {})
        network, x = pydoc.locate(entry.network)(2, 3, **plans), random(1, 2, *PATCHES[3])
    else:
        network, x = build(entry, **small(entry).arguments), image(entry, batch=1)
    network, x = network.double().eval(), x.double()
    weights = [p for p in network.parameters() if p.requires_grad]
    logits = network(x)
    plain = torch.autograd.grad(logits.square().mean(), weights, allow_unused=True)
    for p in weights:
        if p.ndim == dim + 2:
            p.data = p.data.contiguous(memory_format=layout)
    turned = network(x.contiguous(memory_format=layout))
    found = torch.autograd.grad(turned.square().mean(), weights, allow_unused=True)
    torch.testing.assert_close(turned, logits)
    largest = max(g.abs().max() for g in plain if g is not None)
    for one, other in zip(plain, found, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one - other).abs().max() <= 1e-8 * largest
