import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from nnunet_attn.comparison.statistics import (
    Difference,
    FoldDisagreement,
    find_disagreements,
    holm,
    is_significant,
    paired_difference,
    smallest_p,
    unequal_means_p,
    wilcoxon_p,
)
from nnunet_attn.scoring.intervals import group_index, group_sums

NAMES = np.arange(30)


def test_an_interval_of_differences_ends_where_they_can():
    found = paired_difference(np.array([0.9, 0.1]), np.array([0.1, 0.9]), np.arange(2), limit=1.0)
    assert (found.low, found.high) == (-1.0, 1.0)
    few = paired_difference(np.array([0.9]), np.array([0.1]), np.arange(1), limit=1.0)
    assert math.isnan(few.low)


def test_samples_with_one_mean_are_told_from_others_as_often_as_said():
    rng = np.random.default_rng(0)
    p = [unequal_means_p([rng.normal(0, 1, 12), rng.normal(0, 3, 20), rng.normal(0, 2, 15)]) for _ in range(400)]
    assert 0.03 < np.mean(np.array(p) < 0.05) < 0.07
    assert unequal_means_p([rng.normal(0, 1, 12), rng.normal(3, 1, 12)]) < 1e-4
    assert unequal_means_p([rng.normal(0, 1, 12)]) is None
    assert unequal_means_p([rng.normal(0, 1, 12), np.zeros(12)]) is None


def test_wilcoxon_is_scipys_with_ties_left_out():
    differences = np.array([0.3, -0.1, 0.25, 0.05, 0.4, -0.02, 0.0, 0.0])
    assert wilcoxon_p(differences) == stats.wilcoxon(differences[:6]).pvalue
    assert wilcoxon_p(np.zeros(5)) == 1
    # by hand: all of n differences positive is one of 2^n sign patterns, times two for both tails
    assert wilcoxon_p(np.arange(1.0, 8.0)) == pytest.approx(2 / 2**7) == smallest_p(7)
    assert smallest_p(5) > 0.05 > smallest_p(6)
    assert smallest_p(7, rows=3) == pytest.approx(3 / 2**6)
    assert smallest_p(7, rows=3) < 0.05 < smallest_p(7, rows=4)
    assert smallest_p(3, rows=9) == 1


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


def test_tests_are_over_groups_and_not_over_their_slices():
    """Ten equal slices of each patient add no knowledge."""
    values = np.random.default_rng(1).normal(0.8, 0.1, 15)
    index = np.repeat(np.arange(15), 10)
    wide = paired_difference(np.repeat(values, 10), np.zeros(150), index)
    assert wide.p == wilcoxon_p(values)
    assert (wide.cases, wide.groups, wide.wins) == (150, 15, 15)


def test_null_comparisons_of_grouped_cases_are_called_different_in_five_percent():
    """20 groups of 20 frames, correlation 0.8; power at 0.65 standard deviations of a case."""
    rng, index = np.random.default_rng(4), np.repeat(np.arange(20), 20)
    null = found = by_cases = 0
    for i in range(300):
        values = np.sqrt(0.8) * rng.standard_normal(20)[index] + np.sqrt(0.2) * rng.standard_normal(400)
        null += paired_difference(values, np.zeros(400), index).p < 0.05
        found += paired_difference(values + 0.65, np.zeros(400), index).p < 0.05
        by_cases += i < 60 and paired_difference(values, np.zeros(400), np.arange(400)).p < 0.05
    assert 0.02 <= null / 300 <= 0.08
    assert found / 300 >= 0.8
    assert by_cases / 60 > 0.45  # what counting frames as patients does


def test_paired_difference_by_hand():
    candidate = np.array([0.9, 0.8, 0.7, math.nan, 0.5, 0.5])
    baseline = np.array([0.8, 0.8, 0.8, 0.4, math.nan, 0.3])
    index = group_index(["a", "b", "c", "d", "e", "c"])
    result = paired_difference(candidate, baseline, index)
    assert (result.cases, result.groups, result.only_in_one) == (4, 3, 2)
    assert result.mean == pytest.approx((0.1 + 0.0 - 0.1 + 0.2) / 4)
    assert (result.wins, result.ties, result.losses) == (2, 1, 0)  # c: (-0.1 + 0.2) / 2
    turned = paired_difference(candidate, baseline, index, lower_is_better=True)
    assert (turned.wins, turned.ties, turned.losses) == (0, 1, 2)
    assert paired_difference(np.array([math.nan]), np.array([1.0]), np.zeros(1, dtype=int)) is None
    sums, counts = group_sums(np.array([1.0, 2.0, math.nan, 4.0]), group_index(["b", "a", "a", "b"]))
    assert (sums.tolist(), counts.tolist()) == ([2.0, 5.0], [1, 2])
    repeated = paired_difference(np.stack([candidate, candidate + 0.2]), np.stack([baseline] * 3), index)
    assert repeated.mean == pytest.approx(result.mean + 0.1)
    assert repeated.high - repeated.low > result.high - result.low


def test_swapping_the_methods_only_turns_the_sign():
    rng = np.random.default_rng(5)
    a, b = rng.random((2, 30))
    forth, back = paired_difference(a, b, NAMES), paired_difference(b, a, NAMES)
    assert back.mean == pytest.approx(-forth.mean)
    assert back.p == pytest.approx(forth.p)
    assert (back.wins, back.losses) == (forth.losses, forth.wins)


def test_significance_needs_both_test_and_interval():
    def difference(low, high, side=1):
        return Difference(30, 30, 0, (low + high) / 2, low, high, 0.001, side, 20, 0, 10)

    assert is_significant(difference(0.01, 0.02), 0.04)
    assert is_significant(difference(-0.02, -0.01, -1), 0.04)
    assert not is_significant(difference(0.01, 0.02), 0.06)
    assert not is_significant(difference(-0.01, 0.02), 0.001)
    assert not is_significant(difference(math.nan, math.nan), 0.001)
    for side, claimed in ((1, True), (0, False), (-1, False)):
        assert is_significant(difference(0.01, 0.02), 0.001, FoldDisagreement({}, 0.01, side)) is claimed


def test_what_a_few_groups_gain_is_no_claim_if_most_lose():
    """A baseline that misses some lesions: the mean says higher, the ranks say lower."""
    rng = np.random.default_rng(0)
    differences = np.concatenate([rng.normal(-0.01, 0.004, 80), rng.normal(0.5, 0.1, 20)])
    found = paired_difference(differences, np.zeros(100), np.arange(100))
    assert found.p < 0.05
    assert found.low > 0
    assert found.side == -1
    assert not is_significant(found, found.p)
    all_gain = paired_difference(abs(differences), np.zeros(100), np.arange(100))
    assert is_significant(all_gain, all_gain.p)


def test_folds_with_few_or_constant_groups_are_left_out():
    rng = np.random.default_rng(0)
    folds = {str(k): rng.normal(mean, 0.01, 20) for k, mean in enumerate((0.05, -0.03, 0.05, 0.05, 0.05))}
    all_five = find_disagreements({("a", "b"): folds})["a", "b"]
    assert list(all_five.by_fold) == ["0", "1", "2", "3", "4"]
    assert all_five.side == 0
    for rest in (folds["4"][:4], np.zeros(20)):
        four = find_disagreements({("a", "b"): folds | {"4": rest}})["a", "b"]
        assert list(four.by_fold) == ["0", "1", "2", "3"]
    assert find_disagreements({("a", "b"): {"0": folds["0"], "1": folds["1"][:4]}}) == {}
