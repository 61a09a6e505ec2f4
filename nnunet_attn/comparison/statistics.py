"""Tests over groups of cases, and paired differences. Intervals are in ``scoring.intervals``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from nnunet_attn.scoring.intervals import LEVEL, difference_interval, group_sums, mean_without_nan

ALPHA = 0.05
FEWEST = 5  # values of a sample that can be compared with others


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; groups with difference zero are left out; 1 if none is left."""
    differences = differences[differences != 0]
    return float(stats.wilcoxon(differences).pvalue) if len(differences) else 1.0


def signed_rank_side(differences: np.ndarray) -> int:
    """To which side Wilcoxon's signed-rank test leans: 1 if positive differences have more rank, -1 if negative."""
    differences = differences[differences != 0]
    return int(np.sign(np.sum(np.sign(differences) * stats.rankdata(np.abs(differences)))))


def smallest_p(groups: int, rows: int = 1) -> float:
    """The smallest p that the two-sided signed-rank test over so many groups can reach after Holm's correction.

    Args:
        groups: Number of groups with a difference.
        rows: Rows that are compared with the baseline; Holm multiplies the smallest of their p-values by this number.
    """
    return min(1.0, rows * 2.0 ** (1 - groups))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, which controls the family-wise error rate.

    The k-th smallest of m values is multiplied by m - k + 1, and no result is below one before it.
    """
    adjusted = np.empty(len(p_values))
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return adjusted.tolist()


def comparable(sample: np.ndarray) -> bool:
    """Whether a sample has enough values, and a spread, to tell its mean from another's."""
    return len(sample) >= FEWEST and np.ptp(sample) > 0


def unequal_means_p(samples: Sequence[np.ndarray]) -> float | None:
    """P of Alexander and Govern's test that samples, each with a variance of its own, have one mean.

    Samples that are not ``comparable`` are left out; None if fewer than two remain.
    """
    samples = [sample for sample in samples if comparable(sample)]
    return float(stats.alexandergovern(*samples).pvalue) if len(samples) > 1 else None


@dataclass(frozen=True)
class FoldDisagreement:
    """A difference that depends on the fold more than the spread of its groups explains.

    All groups of a fold share its training, and so its luck and its data, which no interval over groups counts.

    Attributes:
        by_fold: Mean difference over the groups of each fold.
        p: Of Alexander and Govern's test, see ``unequal_means_p``.
        side: 1 or -1 where the folds show a difference all the same: each alone, or their means together (95 %
            intervals above or below 0, Student's t over the groups of a fold or over the folds); else 0.
    """

    by_fold: Mapping[str, float]
    p: float
    side: int

    def text(self) -> str:
        """The mean difference in each fold."""
        return ", ".join(f"{mean:+.4f} in fold {fold}" for fold, mean in self.by_fold.items())


def find_disagreements(
    samples: Mapping[tuple[str, str], Mapping[str, np.ndarray]],
) -> dict[tuple[str, str], FoldDisagreement]:
    """The differences of which the folds disagree, by Alexander and Govern's test after Holm's correction.

    Folds whose values are not ``comparable`` are left out.

    Args:
        samples: By the two rows that are compared, and by fold: the differences of the fold's groups.
    """
    folds = {
        key: {fold: values for fold, values in by_fold.items() if comparable(values)}
        for key, by_fold in samples.items()
    }
    p = {key: unequal_means_p(list(by_fold.values())) for key, by_fold in folds.items()}
    tested = {key: value for key, value in p.items() if value is not None}
    found = {}
    for key, corrected in zip(tested, holm(list(tested.values())), strict=True):
        if corrected < ALPHA:
            means = {fold: float(values.mean()) for fold, values in folds[key].items()}
            sides = {_side_of_zero(values) for values in folds[key].values()}
            side = sides.pop() if len(sides) == 1 else 0
            found[key] = FoldDisagreement(means, corrected, side or _side_of_zero(np.array([*means.values()])))
    return found


def _side_of_zero(values: np.ndarray) -> int:
    """On which side of 0 Student's 95 % interval of the mean lies, see ``_side``."""
    return _side(stats.ttest_1samp(values, 0).confidence_interval(LEVEL))


def _side(interval: Any) -> int:
    """1 or -1 where an interval, ``low`` to ``high``, lies above or below 0, else 0."""
    return int(interval.low > 0) - int(interval.high < 0)


@dataclass(frozen=True)
class Difference:
    """Paired comparison of one row with the baseline on one quantity, candidate minus baseline.

    Attributes:
        cases, groups: Numbers of those with a value in both rows.
        only_in_one: Number of cases with a value in only one row, which are left out.
        mean: Mean difference over cases, with its 95 % interval.
        p: Wilcoxon over groups (a group's value is the mean over its cases and over repeats).
        side: To which side the test leans, see ``signed_rank_side``.
        wins, ties, losses: Groups for which the candidate is better, equal, worse.
    """

    cases: int
    groups: int
    only_in_one: int
    mean: float
    low: float
    high: float
    p: float
    side: int
    wins: int
    ties: int
    losses: int


def paired_difference(
    candidate: np.ndarray,
    baseline: np.ndarray,
    index: np.ndarray,
    *,
    lower_is_better: bool = False,
    limit: float = math.inf,
) -> Difference | None:
    """Compare case by case; cases where either has no value (NaN in all repeats) are left out. None if no case is left.

    Args:
        candidate, baseline: (cases,) or (repeats, cases); their numbers of repeats may differ.
        index: Group of each case, see ``intervals.group_index``.
        lower_is_better: True for distances.
        limit: Largest difference that there can be; the interval ends there, which loses no coverage.
    """
    parts = [np.atleast_2d(np.asarray(part, dtype=float)) for part in (candidate, baseline)]
    means = [mean_without_nan(part, 0) for part in parts]
    has = [~np.isnan(mean) for mean in means]
    both = has[0] & has[1]
    if not both.any():
        return None
    sums, counts = group_sums((means[0] - means[1])[both], index[both])
    by_group = np.round(
        sums[counts > 0] / counts[counts > 0], 12
    )  # so that rounding errors do not turn a tie into a difference
    better = -by_group if lower_is_better else by_group
    interval = difference_interval([part[:, both, None] for part in parts], index[both])
    return Difference(
        cases=int(both.sum()),
        groups=len(by_group),
        only_in_one=int((has[0] != has[1]).sum()),
        mean=interval.mean,
        low=max(interval.low, -limit),
        high=min(interval.high, limit),
        p=wilcoxon_p(by_group),
        side=signed_rank_side(by_group),
        wins=int((better > 0).sum()),
        ties=int((better == 0).sum()),
        losses=int((better < 0).sum()),
    )


def is_significant(difference: Difference, corrected_p: float, folds: FoldDisagreement | None = None) -> bool:
    """Whether a difference is called significant: corrected p below 0.05, and an interval of the mean beyond 0.

    Both on the same side. This is stricter than the test alone: Wilcoxon's test is about ranks; the interval is about
    the mean and, with repeats, includes the randomness of training. If they disagree, nothing is claimed. Neither knows
    that all groups of a fold share its training: where ``folds`` disagree, these must show the same side, too.
    """
    side = _side(difference)
    return corrected_p < ALPHA and side != 0 and difference.side == side and (folds is None or folds.side == side)
