"""Learning curves of a row over its folds and repeats, from nnU-Net's logs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_attn.comparison.results import Fold

QUANTITIES = ("mean_dice", "val_loss", "train_loss")
POINTS = 500  # of a curve, as many as a figure can show


@dataclass(frozen=True)
class Curves:
    """Learning curves of one row.

    Attributes:
        epochs: Numbers of the epochs shown.
        of: By quantity: mean, smallest and largest value over all trainings, at those epochs.
    """

    epochs: np.ndarray
    of: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def learning_curves(folds: Sequence[Fold]) -> Curves:
    """Learning curves over the epochs that all trainings have logged."""
    common = set.intersection(*(set(fold.epochs) for fold in folds)) if folds else set()
    epochs = np.array(sorted(common), dtype=int)
    if len(epochs) > POINTS:
        epochs = epochs[np.unique(np.linspace(0, len(epochs) - 1, POINTS).round().astype(int))]
    curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for quantity in QUANTITIES:
        values = [[getattr(fold.epochs[e], quantity) for e in epochs.tolist()] for fold in folds]
        array = np.array([[np.nan if v is None else v for v in line] for line in values], dtype=float)
        array = array.reshape(len(folds), len(epochs))
        gap = np.isnan(array).any(axis=0)
        shown = np.where(gap, 0.0, array)
        none = np.array([])
        mean, low, high = (shown.mean(0), shown.min(0), shown.max(0)) if len(folds) else (none, none, none)
        curves[quantity] = np.where(gap, np.nan, mean), np.where(gap, np.nan, low), np.where(gap, np.nan, high)
    return Curves(epochs, curves)
