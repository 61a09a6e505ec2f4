"""Compiled by inductor as nnU-Net compiles: the results of eager float32, one graph to train and one to evaluate.

nnU-Net calls ``torch.compile(network)`` on a GPU; inductor's front end, its decompositions and its fusions are the same
on a CPU, where only the generated code differs. It is compiled without vectors and optimisation, which takes a third of
the time. Stock nnU-Net's network stands beside ours, so that what fails there as well is known.

Gradients are compared by the norm of the difference: inductor sums in another order, and where that moves one of a
million activations across a ReLU's zero, single entries of a gradient move by a few thousandths of the largest. Where a
network repeats its convolutions this grows: gradients of R2U-Net differ by 2 to 6 % in float32 and by 1e-10 in float64,
so that is what it is compared in.
"""

import pydoc
from collections.abc import Sequence

import pytest
import torch
from planned_hosts import PATCHES, host_arguments
from small_networks import BY_INDUCTOR, build, image, several_heads, small
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import config

from nnunet_attn.catalog import ENTRIES
from nnunet_attn.training.base import takes_patch_size

IN_FLOAT64 = {"nnUNetTrainerDualCAR2UNet"}
NETWORKS = [pytest.param(entry, marks=[] if entry.trainer in BY_INDUCTOR else pytest.mark.slow, id=entry.trainer)
            for entry in ENTRIES]  # fmt: skip


@pytest.fixture(autouse=True)
def quick_compiler():
    """No graphs of other tests, quick to compile; random numbers drawn as in eager mode, for networks that draw."""
    torch.compiler.reset()
    counters.clear()
    with config.patch({"fallback_random": True, "cpp.simdlen": 1, "aot_inductor.debug_compile": True}):
        yield
    torch.compiler.reset()


def loss(outputs: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    maps = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    weights = (torch.randn(m.shape, generator=torch.Generator().manual_seed(1)) for m in maps)
    return sum((m * w).mean() for m, w in zip(maps, weights, strict=True))


def step(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of a training step."""
    network.zero_grad()
    torch.manual_seed(0)
    value = loss(network(x))
    value.backward()
    name = "_orig_mod."
    found = {k.removeprefix(name): p.grad.clone() for k, p in network.named_parameters() if p.grad is not None}
    return value.detach(), found


def check_compiled(network: nn.Module, x: torch.Tensor) -> None:
    graphs = []
    compiled = torch.compile(network)
    network.train()
    value, gradients = step(network, x)
    for _ in range(2):
        compiled_value, compiled_gradients = step(compiled, x)
    graphs.append(counters["stats"]["unique_graphs"])
    torch.testing.assert_close(compiled_value, value, rtol=1e-4, atol=1e-5)
    largest, tolerance = max(g.norm() for g in gradients.values()), 2e-2 if x.dtype == torch.float32 else 1e-8
    assert gradients.keys() == compiled_gradients.keys()
    wrong = {k: float((compiled_gradients[k] - g).norm() / g.norm()) for k, g in gradients.items()
             if (compiled_gradients[k] - g).norm() > tolerance * (g.norm() + 5e-4 * largest)}  # fmt: skip
    assert not wrong

    network.eval()
    with torch.no_grad():
        for _ in range(2):
            found, wanted = compiled(x), network(x)
        for a, b in zip(*([o] if isinstance(o, torch.Tensor) else o for o in (found, wanted)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())
    graphs.append(counters["stats"]["unique_graphs"])
    network.train()
    step(compiled, x)
    graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [1, 2, 2]
    assert not counters["graph_break"]


def of_two_stages(arguments: dict) -> dict:
    """A host's arguments cut to two stages of one convolution each."""
    cut = {4: 2, 3: 1}  # lists with an entry a stage, and a decoder's stage
    lists = {k: v[: cut[len(v)]] for k, v in arguments.items() if isinstance(v, (list, tuple))}
    return arguments | lists | {"n_stages": 2, "n_conv_per_stage": (1, 1), "n_conv_per_stage_decoder": (1,)}


@pytest.mark.parametrize("entry", NETWORKS)
def test_inductor(entry):
    torch.manual_seed(0)
    arguments, x = small(entry).arguments, image(entry)
    if 3 in entry.dimensions:  # on plans: of two stages, and the second one attends
        x = torch.randn(2, 2, *PATCHES[2])
        arguments = arguments | of_two_stages(host_arguments(2))
        arguments |= {"min_stride": 2} if "min_stride" in arguments else {}
        arguments |= {"patch_size": PATCHES[2]} if takes_patch_size(pydoc.locate(entry.network)) else {}
    if several_heads(entry):
        arguments = arguments | {"deep_supervision": True}
    dtype = torch.float64 if entry.trainer in IN_FLOAT64 else torch.float32
    check_compiled(build(entry, **arguments).to(dtype), x.to(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 3])
def test_inductor_on_the_stock_network(dim):
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    torch.manual_seed(0)
    network = PlainConvUNet(2, num_classes=3, deep_supervision=True, **host_arguments(dim))
    check_compiled(network, torch.randn(2, 2, *PATCHES[dim]))
