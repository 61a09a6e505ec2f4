import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from nnunet_attn.comparison.statistics import (
    Difference,
    bootstrap_interval,
    holm,
    is_significant,
    paired_difference,
    per_patient,
    smallest_p,
    wilcoxon_p,
)

NAMES = [f"p{i:02d}" for i in range(30)]


def test_wilcoxon_is_scipys_with_ties_left_out():
    differences = np.array([0.3, -0.1, 0.25, 0.05, 0.4, -0.02, 0.0, 0.0])
    assert wilcoxon_p(differences) == stats.wilcoxon(differences[:6]).pvalue
    assert wilcoxon_p(np.zeros(5)) == 1
    # by hand: all of n differences positive is one of 2^n sign patterns, times two for both tails
    assert wilcoxon_p(np.arange(1.0, 8.0)) == pytest.approx(2 / 2**7) == smallest_p(7)
    assert smallest_p(5) > 0.05 > smallest_p(6)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1, p * len(p_values)) + 1e-15
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_interval_of_single_case_patients_is_scipys_bootstrap_of_the_mean():
    values = np.random.default_rng(3).beta(8, 2, 30)
    expected = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=2000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert bootstrap_interval(values, NAMES, resamples=2000) == pytest.approx(expected, abs=2e-3)
    low, high = bootstrap_interval(values, NAMES)
    assert low < values.mean() < high


def test_patients_are_resampled_and_not_their_slices():
    """Ten equal slices of each patient add no knowledge."""
    values = np.random.default_rng(1).normal(0.8, 0.1, 15)
    once = bootstrap_interval(values, NAMES[:15])
    tenfold = bootstrap_interval(np.repeat(values, 10), np.repeat(NAMES[:15], 10))
    as_if_independent = bootstrap_interval(np.repeat(values, 10), [str(i) for i in range(150)])
    assert tenfold == pytest.approx(once, abs=1e-9)
    assert np.diff(as_if_independent) < 0.5 * np.diff(once)
    wide = paired_difference(np.repeat(values, 10), np.zeros(150), np.repeat(NAMES[:15], 10))
    assert wide.p == wilcoxon_p(values)
    assert (wide.cases, wide.patients, wide.wins) == (150, 15, 15)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        values = rng.normal(0.02, 0.05, 25)
        low, high = bootstrap_interval(values, NAMES[:25], resamples=500)
        inside += low <= 0.02 <= high
    assert 0.90 <= inside / 300 <= 0.98


def test_constant_and_single_values():
    assert bootstrap_interval(np.full(5, 0.25), NAMES[:5]) == (0.25, 0.25)
    assert all(map(math.isnan, bootstrap_interval(np.array([0.25]), NAMES[:1])))
    almost = np.array([0.5, 0.5, 0.5, 0.5, 0.6])
    low, high = bootstrap_interval(almost, NAMES[:5])
    assert 0.5 <= low <= high <= 0.6


def test_paired_difference_by_hand():
    candidate = np.array([0.9, 0.8, 0.7, math.nan, 0.5, 0.5])
    baseline = np.array([0.8, 0.8, 0.8, 0.4, math.nan, 0.3])
    result = paired_difference(candidate, baseline, ["a", "b", "c", "d", "e", "c"])
    assert (result.cases, result.patients) == (4, 3)
    assert result.mean == pytest.approx((0.1 + 0.0 - 0.1 + 0.2) / 4)
    assert (result.wins, result.ties, result.losses) == (2, 1, 0)  # c: (-0.1 + 0.2) / 2
    turned = paired_difference(candidate, baseline, ["a", "b", "c", "d", "e", "c"], lower_is_better=True)
    assert (turned.wins, turned.ties, turned.losses) == (0, 1, 2)
    assert paired_difference(np.array([math.nan]), np.array([1.0]), ["a"]) is None
    sums, counts = per_patient(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"])
    assert (sums.tolist(), counts.tolist()) == ([2.0, 5.0], [1, 2])


def test_swapping_the_methods_only_turns_the_sign():
    rng = np.random.default_rng(5)
    a, b = rng.random((2, 30))
    forth, back = paired_difference(a, b, NAMES), paired_difference(b, a, NAMES)
    assert back.mean == pytest.approx(-forth.mean)
    assert back.p == pytest.approx(forth.p)
    assert (back.wins, back.losses) == (forth.losses, forth.wins)


def test_significance_needs_both_test_and_interval():
    def difference(low, high):
        return Difference(30, 30, (low + high) / 2, low, high, 0.001, 20, 0, 10)

    assert is_significant(difference(0.01, 0.02), 0.04)
    assert is_significant(difference(-0.02, -0.01), 0.04)
    assert not is_significant(difference(0.01, 0.02), 0.06)
    assert not is_significant(difference(-0.01, 0.02), 0.001)
    assert not is_significant(difference(math.nan, math.nan), 0.001)
