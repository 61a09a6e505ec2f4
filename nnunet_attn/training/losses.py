"""Losses beyond nnU-Net's own, and the check that a network returns what its loss expects."""

from collections.abc import Sequence

import torch
from torch import nn


def check_outputs(output: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor | Sequence[torch.Tensor]) -> None:
    """Raise ValueError unless predictions and targets agree in number and spatial size.

    nnU-Net's deep supervision zips the two lists: a missing or extra map would train wrong without a word.
    """
    outputs = list(output) if isinstance(output, (list, tuple)) else [output]
    targets = list(target) if isinstance(target, (list, tuple)) else [target]
    sizes, expected = [tuple(o.shape[2:]) for o in outputs], [tuple(t.shape[2:]) for t in targets]
    if isinstance(output, (list, tuple)) != isinstance(target, (list, tuple)) or sizes != expected:
        raise ValueError(
            f"the network returned {len(outputs)} map(s) of size {sizes}, but deep supervision of this plan has "
            f"{len(targets)} target(s) of size {expected}, full resolution first"
        )


class CheckedLoss(nn.Module):
    """``loss`` with ``check_outputs`` on the first call."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss
        self.checked = False

    def forward(self, output, target):
        if not self.checked:
            check_outputs(output, target)
            self.checked = True
        return self.loss(output, target)
