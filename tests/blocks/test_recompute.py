"""What is computed again in the backward pass: same numbers, less kept, statistics counted once."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_attn.blocks.recompute import ActLinear, fixed_statistics, in_turn, recomputed


class Calls(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self):
        super().__init__()
        self.count: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count[func.overloadpacket.__name__] += 1
        return func(*args, **kwargs or {})


def chain(momentum: float | None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm2d(3, momentum=momentum), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3, bias=False)
    ).double()


def test_synchronised_norms_can_be_computed_again():
    """nnU-Net makes batch norms synchronised on several GPUs, and these insist on a count of batches."""
    modules = nn.SyncBatchNorm.convert_sync_batchnorm(chain(0.1))
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    before = [b.clone() for b in modules.buffers()]
    with fixed_statistics(modules):
        modules(x)
    assert all(torch.equal(a, b) for a, b in zip(before, modules.buffers(), strict=True))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("training", [True, False])
def test_statistics_count_a_batch_once(momentum, training):
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    found = []
    for again in (False, True):
        modules = chain(momentum).train(training)
        for _ in range(2):
            x.grad = None
            y = recomputed(in_turn(*modules), x, within=modules, cheap=True) if again else modules(x)
            y.square().sum().backward()
        assert modules[0].momentum == momentum
        found.append([y, x.grad, *(p.grad for p in modules.parameters()), *modules.buffers()])
    assert found[1][-1] == (2 if training else 0)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_input_is_kept_and_the_product_not_repeated():
    """Of gelu and linear layer the layer runs once, or recomputing would cost more than it does now."""
    linear = ActLinear.of(nn.Linear(8, 4))
    x, kept = torch.randn(5, 8, requires_grad=True), []
    with Calls() as calls:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            y = linear(x)
        y.sum().backward()
    assert [t.shape for t in kept] == [x.shape]
    assert (calls.count["addmm"], calls.count["gelu"]) == (1, 2)
    torch.testing.assert_close(y, nn.functional.linear(nn.functional.gelu(x), linear.weight, linear.bias))


def test_act_linear_is_the_linear_layer_it_is_made_of():
    torch.manual_seed(0)
    linear, state = nn.Linear(8, 4, bias=False), torch.get_rng_state()
    new = ActLinear.of(linear)
    assert torch.equal(torch.get_rng_state(), state)
    assert [*new.state_dict()] == ["weight"]
    assert new.weight is linear.weight
