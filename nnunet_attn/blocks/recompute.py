"""Parts whose inner values are computed again in the backward pass instead of being kept."""

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """``function(*inputs)``, of which only the inputs are kept for the backward pass. It must draw no random numbers.

    Without gradients it is the plain call.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
