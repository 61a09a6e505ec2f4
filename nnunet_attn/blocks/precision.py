"""Where attention must not run in half precision."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager:
    """Context without autocast on ``device``; on ``meta``, which knows none, nothing to switch off.

    ``torch.amp.is_autocast_available`` is not asked: it breaks the compiled graph in torch 2.6.
    """
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The type in which autocast multiplies on ``device`` at present; None where it is off."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``x.to(dtype)``, without a call for the compiler to trace where ``x`` has that type."""
    return x if x.dtype == dtype else x.to(dtype)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """``x`` in float32 if it is coarser than that."""
    return cast(x, torch.promote_types(x.dtype, torch.float32))
