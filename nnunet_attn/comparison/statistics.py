"""Intervals and tests over patients. A patient's cases (frames, slices) are not independent, so they stay together."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 9999
ALPHA = 0.05


def per_patient(values: np.ndarray, patients: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of each patient's values, patients in order of their names."""
    _, index = np.unique(np.asarray(patients), return_inverse=True)
    return np.bincount(index, weights=values), np.bincount(index)


def bootstrap_interval(
    values: np.ndarray, patients: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % interval (BCa) of the mean over cases, patients being resampled with all their cases.

    NaN for fewer than two patients; the value itself where all patients agree, for which BCa is not defined.
    """
    sums, counts = per_patient(values, patients)
    if len(sums) < 2:
        return float("nan"), float("nan")
    means = sums / counts
    if np.ptp(means) < 1e-12:
        return float(means[0]), float(means[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # jackknife of nearly constant data; the result is checked
        result = stats.bootstrap(
            (sums, counts),
            lambda s, n, axis: s.sum(axis) / n.sum(axis),
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = result.confidence_interval
    if np.isnan(low) or np.isnan(high):
        low, high = np.quantile(result.bootstrap_distribution, (ALPHA / 2, 1 - ALPHA / 2))
    return float(low), float(high)


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; patients without difference are left out; 1 if none is left."""
    differences = differences[differences != 0]
    return float(stats.wilcoxon(differences).pvalue) if len(differences) else 1.0


def smallest_p(patients: int) -> float:
    """The smallest p that the two-sided signed-rank test can reach with so many patients."""
    return min(1.0, 2.0 ** (1 - patients))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the family-wise error rate is kept when all tests are read.

    The k-th smallest of m values is multiplied by m - k + 1, and none may fall below one before it.
    """
    adjusted = np.empty(len(p_values))
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return adjusted.tolist()


@dataclass(frozen=True)
class Difference:
    """Paired comparison of one method with the baseline on one quantity, candidate minus baseline.

    Attributes:
        cases, patients: How many had a value from both.
        mean: Mean difference over cases, with its interval.
        p: Wilcoxon over patients (a patient's value is the mean over its cases).
        wins, ties, losses: Patients for whom the candidate is better, equal, worse.
    """

    cases: int
    patients: int
    mean: float
    low: float
    high: float
    p: float
    wins: int
    ties: int
    losses: int


def paired_difference(
    candidate: np.ndarray,
    baseline: np.ndarray,
    patients: Sequence[str],
    *,
    lower_is_better: bool = False,
    resamples: int = RESAMPLES,
) -> Difference | None:
    """Compare case by case; cases where either has no value (NaN) drop out. None if no case is left."""
    differences = np.asarray(candidate, dtype=float) - np.asarray(baseline, dtype=float)
    valid = ~np.isnan(differences)
    if not valid.any():
        return None
    differences, patients = differences[valid], np.asarray(patients)[valid]
    sums, counts = per_patient(differences, patients)
    means = np.round(sums / counts, 12)  # a tie must not become a difference by rounding
    better = -means if lower_is_better else means
    low, high = bootstrap_interval(differences, patients, resamples=resamples)
    return Difference(
        cases=len(differences),
        patients=len(means),
        mean=float(differences.mean()),
        low=low,
        high=high,
        p=wilcoxon_p(means),
        wins=int((better > 0).sum()),
        ties=int((better == 0).sum()),
        losses=int((better < 0).sum()),
    )


def is_significant(difference: Difference, corrected_p: float) -> bool:
    """Our rule, stricter than the test alone: corrected p below 0.05 and an interval of the mean without 0.

    Wilcoxon's test looks at ranks, the interval at the mean; where they disagree nothing is claimed.
    """
    return corrected_p < ALPHA and (difference.low > 0 or difference.high < 0)
