"""What the papers' schedules need beyond nnU-Net's: epochs that are passes over all slices, steps at several scales."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

STRIDE = 32  # sizes of multi-scale training are multiples of it


def count_slices(trainer: Any) -> int:
    """Slices of the fold's training cases as they are preprocessed; a picture is one slice."""
    cases, _ = trainer.do_split()
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, cases)
    return sum(dataset.load_case(case)[0].shape[1] for case in cases)


def set_paper_epochs(trainer: Any) -> None:
    """Make an epoch one pass over the training slices, ``ceil(slices / batch)`` iterations, and say so."""
    slices, batch = count_slices(trainer), trainer.configuration_manager.batch_size
    trainer.num_iterations_per_epoch = math.ceil(slices / batch)
    trainer.num_val_iterations_per_epoch = max(1, trainer.num_iterations_per_epoch // 5)
    trainer.print_to_log_file(
        f"Schedule of the paper: {trainer.num_epochs} epochs of {trainer.num_iterations_per_epoch} iterations "
        f"({slices} training slices, batch {batch})"
    )


def rescaled(batch: dict, scale: float, strides: Sequence[int] = (1, 1)) -> dict:
    """A 2D batch at another size: images bilinear, labels nearest.

    Sizes are rounded to multiples of 32, as PraNet's and EMCAD's training does, and of the network's strides.

    Args:
        batch: nnU-Net's: ``data`` (B, C, H, W), ``target`` (B, 1, h, w) or a list of such.
        scale: Factor of both edges.
        strides: What the network divides each edge by.
    """
    data, target = batch["data"], batch["target"]
    old, units = data.shape[2:], [math.lcm(STRIDE, int(n)) for n in strides]
    new = [max(unit, round(n * scale / unit) * unit) for n, unit in zip(old, units, strict=True)]

    def label(one: torch.Tensor) -> torch.Tensor:
        size = [max(1, round(t * n / o)) for t, n, o in zip(one.shape[2:], new, old, strict=True)]
        return functional.interpolate(one.float(), size=size, mode="nearest-exact").to(one.dtype)

    targets: Any = [label(one) for one in target] if isinstance(target, Sequence) else label(target)
    image = functional.interpolate(data, size=new, mode="bilinear", align_corners=False)
    return batch | {"data": image, "target": targets}
