"""Losses beyond nnU-Net's own, and the check that a network returns what its loss expects."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import nn


def check_outputs(output: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor | Sequence[torch.Tensor]) -> None:
    """Raise ValueError unless predictions and targets agree in number and spatial size.

    nnU-Net's deep supervision zips the two lists: a missing or extra map would train wrong without a word.
    """
    outputs = [output] if isinstance(output, torch.Tensor) else list(output)
    targets = [target] if isinstance(target, torch.Tensor) else list(target)
    sizes, expected = [tuple(o.shape[2:]) for o in outputs], [tuple(t.shape[2:]) for t in targets]
    if isinstance(output, torch.Tensor) != isinstance(target, torch.Tensor) or sizes != expected:
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

    def forward(
        self, output: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor | Sequence[torch.Tensor]
    ) -> torch.Tensor:
        if not self.checked:
            check_outputs(output, target)
            self.checked = True
        return self.loss(output, target)


class MutationLoss(nn.Module):
    """Deep supervision over all combinations of full-size prediction maps.

    With maps ``m_i``, one full-resolution target ``y`` and the non-empty subsets ``S`` of the maps,

        L = reduce_S  base_loss(sum_{i in S} m_i, y)         m_i: logits; reduce: mean or sum over the 2^n - 1 subsets

    Regions and the ignore label are the base loss's business and work as nnU-Net's do. One map and one target (deep
    supervision off) go to the base loss as they are.

    Args:
        base_loss: Loss of one map of logits and one target, nnU-Net's own.
        maps: Number of maps that the network returns.
        first: Index of the first map that takes part in the subsets: 0 if all do, 1 if map 0 is the aggregate that
            serves as the prediction only.
        reduction: "mean" keeps the size of the loss and of its gradient independent of the number of maps; "sum" is
            the original's.

    Shape: maps (B, C, *size), a list; target (B, 1 or C, *size), a tensor or a list of one tensor.

    Raises:
        ValueError: on the first call, if number or size of the maps is not what the target asks for.

    Reference: Rahman and Marculescu, "Multi-scale Hierarchical Vision Transformer with Cascaded Attention Decoding for
    Medical Image Segmentation", MIDL 2023 (arXiv:2303.16892); used by EMCAD (arXiv:2405.06880) and FIAS
    (arXiv:2411.10881).
    """

    def __init__(self, base_loss: nn.Module, *, maps: int, first: int = 0, reduction: str = "mean"):
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be mean or sum, got {reduction!r}")
        if not 0 <= first < maps:
            raise ValueError(f"first must be an index of one of the {maps} maps, got {first}")
        self.base_loss, self.maps, self.reduction = base_loss, maps, reduction
        indices = range(first, maps)
        self.subsets = [s for size in range(1, len(indices) + 1) for s in combinations(indices, size)]
        self.checked = False

    def forward(
        self, output: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor | Sequence[torch.Tensor]
    ) -> torch.Tensor:
        if not isinstance(target, torch.Tensor):
            if len(target) != 1:
                raise ValueError(f"the mutation loss takes one full-resolution target, got {len(target)}")
            (target,) = target
        if isinstance(output, torch.Tensor):
            return self.base_loss(output, target)
        if not self.checked:
            check_outputs(output, [target] * self.maps)
            self.checked = True
        losses = torch.stack([self.base_loss(sum(output[i] for i in s), target) for s in self.subsets])
        return losses.mean() if self.reduction == "mean" else losses.sum()
