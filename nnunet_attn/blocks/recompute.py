"""Parts whose inner values are computed again in the backward pass instead of being kept."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

_keep = False


@contextmanager
def everything_kept() -> Iterator[None]:
    """``recomputed`` is the plain call inside: what would be kept is then seen."""
    global _keep  # one per process, as autograd's own modes
    before, _keep = _keep, True
    try:
        yield
    finally:
        _keep = before


def batch_norms(module: nn.Module | None) -> list[_BatchNorm]:
    """The batch norms inside."""
    return [] if module is None else [m for m in module.modules() if isinstance(m, _BatchNorm)]


@contextmanager
def fixed_statistics(module: nn.Module) -> Iterator[None]:
    """The batch norms inside compute as before and leave their running mean and variance, and their count, alone."""
    before = [(m, m.momentum, m.num_batches_tracked) for m in batch_norms(module)]
    for norm, _, batches in before:
        norm.momentum = 0.0  # the weight of this batch
        norm.num_batches_tracked = None if batches is None else batches.clone()  # synchronised norms insist on a count
    try:
        yield
    finally:
        for norm, momentum, batches in before:
            norm.momentum, norm.num_batches_tracked = momentum, batches


def recomputed(
    function: Callable[..., torch.Tensor],
    *inputs: torch.Tensor,
    within: nn.Module | None = None,
    cheap: bool = False,
) -> torch.Tensor:
    """``function(*inputs)``, of which only the inputs are kept for the backward pass. It must draw no random numbers.

    The second computation stops at the last value that the backward pass needs: of a chain of norm and activation that
    ends with a linear layer or a convolution, these run again, and the product does not. Without gradients it is the
    plain call.

    Args:
        function: Called once more in the backward pass.
        inputs: What is kept.
        within: Holds the batch norms that ``function`` calls, whose running statistics must count a batch once.
            Compiled, a function with batch norms is the plain call: a count in place cannot be repeated there.
        cheap: The function is one that ``torch.compile`` computes again unasked; compiled, it is the plain call.
    """
    compiling = torch.compiler.is_compiling()
    if not torch.is_grad_enabled() or _keep or (compiling and (cheap or batch_norms(within))):
        return function(*inputs)
    if within is None or compiling:
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), fixed_statistics(within)

    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def in_turn(*modules: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """One module after the other, as one function."""
    return lambda x: reduce(lambda y, module: module(y), modules, x)


class ActLinear(nn.Linear):
    """``linear(gelu(x))`` that keeps ``x`` alone; the parameters, and their names, are those of the linear layer.

    Shape: (..., in_features) -> (..., out_features).
    """

    @classmethod
    def of(cls, linear: nn.Linear) -> "ActLinear":
        """With the parameters of ``linear``; no random number is drawn."""
        new = cls(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        new.weight, new.bias = linear.weight, linear.bias
        return new

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return recomputed(lambda x: nn.functional.linear(nn.functional.gelu(x), self.weight, self.bias), x, cheap=True)
