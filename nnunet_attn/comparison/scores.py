"""All scores of a comparison as arrays, one per row: repeats x cases x classes x metrics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from nnunet_attn.scoring.groups import Groups
from nnunet_attn.scoring.intervals import group_index, mean_without_nan
from nnunet_attn.scoring.metrics import METRICS

MEAN = "mean"  # nnU-Net's foreground_mean: each class averaged over cases, then averaged over classes
CASE_MEAN = "case_mean"  # a case's mean over the classes that have a value in it; used by the paired tests
COUNTS = ("n_pred", "n_ref", "ml_pred", "ml_ref")
COLUMNS = ("row", "repeat", "fold", "case", "group", "class", "metric", "value")
RowScores = Mapping[tuple[str, str], Mapping[str, Mapping[str, float]]]  # (fold, case) -> class -> metric -> value


@dataclass(frozen=True)
class Scores:
    """Scores of the same cases by every row.

    Attributes:
        values: By row, an array (repeats, cases, classes and ``CASE_MEAN``, metrics and voxel counts); NaN where there
            is no value. The first row is the baseline.
        keys: Fold and name of each case.
        groups: Groups of the cases.
        classes: Names of the classes; ``CASE_MEAN`` follows as the last entry of the arrays' third axis.
        metrics: Names along the arrays' last axis.
    """

    values: dict[str, np.ndarray]
    keys: list[tuple[str, str]]
    groups: Groups
    classes: tuple[str, ...]
    metrics: tuple[str, ...]

    @property
    def rows(self) -> list[str]:
        """Names of the rows, the baseline first."""
        return list(self.values)

    @cached_property
    def index(self) -> np.ndarray:
        """Group index of each case, for ``scoring.intervals``."""
        return group_index([self.groups.of[case] for _, case in self.keys])

    @property
    def quantities(self) -> list[str]:
        """The quantities of each case: the classes and their mean; if there is a single class, only the mean."""
        return [*self.classes, CASE_MEAN] if len(self.classes) > 1 else [CASE_MEAN]

    @property
    def scored(self) -> list[str]:
        """The metrics that were computed, without the voxel counts."""
        return [metric for metric in METRICS if metric in self.metrics]

    def of(self, row: str, name: str, metric: str) -> np.ndarray:
        """(repeats, cases)."""
        return self.values[row][:, :, (*self.classes, CASE_MEAN).index(name), self.metrics.index(metric)]

    def over_repeats(self, row: str, name: str, metric: str) -> np.ndarray:
        """Mean over repeats, of shape (cases,)."""
        return mean_without_nan(self.of(row, name, metric), 0)

    def by_class(self, row: str, metric: str) -> np.ndarray:
        """(repeats, cases, classes)."""
        return self.values[row][:, :, : len(self.classes), self.metrics.index(metric)]

    def long_table(self) -> pd.DataFrame:
        """One line per value, with ``COLUMNS``; also for undefined values (NaN) of metrics that were computed."""
        names, parts = (*self.classes, CASE_MEAN), []
        folds, cases = ([key[i] for key in self.keys] for i in (0, 1))
        groups = [self.groups.of[case] for case in cases]
        for row, values in self.values.items():
            repeats, count = values.shape[:2]
            inner = len(names) * len(self.metrics)
            parts.append(pd.DataFrame({
                "row": pd.Categorical.from_codes(np.full(values.size, self.rows.index(row)), self.rows),
                "repeat": np.repeat(np.arange(1, repeats + 1), count * inner),
                **{
                    title: pd.Categorical(np.tile(np.repeat(np.array(column, dtype=object), inner), repeats))
                    for title, column in (("fold", folds), ("case", cases), ("group", groups))
                },
                "class": pd.Categorical.from_codes(
                    np.tile(np.repeat(np.arange(len(names)), len(self.metrics)), repeats * count), names
                ),
                "metric": pd.Categorical.from_codes(
                    np.tile(np.arange(len(self.metrics)), repeats * count * len(names)), self.metrics
                ),
                "value": values.reshape(-1),
            }))  # fmt: skip
        table = pd.concat(parts, ignore_index=True)
        return table[~((table["class"] == CASE_MEAN) & table.metric.isin(COUNTS))]


def stack_scores(runs: Mapping[str, Sequence[RowScores]], classes: Sequence[str], groups: Groups) -> Scores:
    """Arrays from nested dictionaries.

    Args:
        runs: By row, the scores of each repeat; all of the same cases.
        classes: Names of the classes.
        groups: Groups of the cases.
    """
    first = next(iter(runs.values()))[0]
    keys, example = list(first), next(iter(first.values()))
    present = {metric for scores in example.values() for metric in scores}
    metrics = tuple(metric for metric in (*METRICS, *COUNTS) if metric in present)
    values = {}
    for row, repeats in runs.items():
        array = np.full((len(repeats), len(keys), len(classes) + 1, len(metrics)), math.nan)
        for i, scores in enumerate(repeats):
            for j, key in enumerate(keys):
                of_case = scores[key]
                array[i, j, :-1] = [[of_case[name].get(m, math.nan) for m in metrics] for name in classes]
        array[:, :, -1] = mean_without_nan(array[:, :, :-1], 2)
        values[row] = array
    return Scores(values, keys, groups, tuple(classes), metrics)
