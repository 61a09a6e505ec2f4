"""Intervals over groups and repeats: against Student's, by hand, and by how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy import stats

from nnunet_attn.scoring.intervals import difference_interval, group_index, mean_interval
from nnunet_attn.scoring.metrics import RANGES


def test_groups_of_one_case_give_students_interval():
    values = np.random.default_rng(3).beta(8, 2, 30)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    found = mean_interval(values, np.arange(30))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(values.mean())


def test_groups_of_equal_size_give_students_interval_of_their_means():
    """Ten equal slices of each patient add no knowledge."""
    rng = np.random.default_rng(1)
    values = rng.normal(0.8, 0.1, (15, 10))
    expected = stats.ttest_1samp(values.mean(1), 0).confidence_interval()
    found = mean_interval(values.ravel(), np.repeat(np.arange(15), 10))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    as_if_independent = mean_interval(np.repeat(values.mean(1), 10), np.arange(150))
    assert as_if_independent.high - as_if_independent.low < 0.5 * (found.high - found.low)


def test_variance_and_degrees_of_freedom_of_uneven_groups_are_those_of_the_quadratic_form():
    """Bell and McCaffrey's numbers from matrices: x'Ax is unbiased, df = tr(A)^2 / tr(A^2)."""
    rng = np.random.default_rng(0)
    sizes = np.array([1, 3, 8, 2, 20])
    index = np.repeat(np.arange(5), sizes)
    values = rng.normal(size=sizes.sum())
    means = np.bincount(index, values) / sizes
    w = sizes / sizes.sum()
    centring = np.eye(5) - np.outer(np.ones(5), w)
    a = centring.T @ np.diag(w**2 / np.diag(centring @ centring.T)) @ centring
    assert np.trace(a) == pytest.approx(np.sum(w**2))  # no bias: the variance of the mean where groups have variance 1
    freedom = np.trace(a) ** 2 / np.trace(a @ a)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(means @ a @ means)
    found = mean_interval(values, index)
    assert (found.low, found.high) == pytest.approx((w @ means - half, w @ means + half))


def test_mean_of_classes_is_nnunets():
    """Over classes, of the means over cases; a class that no case has is left out."""
    nan = math.nan
    values = np.array([[0.9, 0.5, nan], [0.7, nan, nan], [0.8, 0.7, nan]])
    found = mean_interval(values, np.arange(3))
    assert found.mean == pytest.approx((0.8 + 0.6) / 2)
    assert found.low < found.mean < found.high
    with_two = mean_interval(values[:, :2], np.arange(3))
    assert with_two == found or (with_two.low, with_two.high) == (found.low, found.high)


@pytest.mark.parametrize(("having", "least"), [(20, 0.93), (5, 0.93), (2, 0.88)])
def test_a_class_that_few_groups_have_widens_the_interval(having, least):
    """20 patients, five classes, one of them hard and rare."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(600):
        values = 0.8 + rng.normal(0, 0.04, (20, 1)) + rng.normal(0, 0.05, (20, 5))
        values[:, 0] = 0.8 + rng.normal(0, 0.25, 20)
        values[having:, 0] = np.nan
        found = mean_interval(values, np.arange(20))
        hits += found.low <= 0.8 <= found.high
    assert hits / 600 > least


def test_no_interval_where_one_group_has_a_class():
    values = np.random.default_rng(0).random((20, 2))
    values[1:, 0] = np.nan
    found = mean_interval(values, np.arange(20))
    assert found.mean == pytest.approx((values[0, 0] + values[:, 1].mean()) / 2)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_an_interval_ends_where_the_values_do():
    """The mean of a few distances, one of them large: t alone would reach below 0."""
    distances = np.array([0.0, 1.0, 0.5, 40.0])
    free, limited = (mean_interval(distances, np.arange(4), *limits) for limits in ((), (RANGES["HD95"],)))
    assert free.low < 0 == limited.low
    assert (limited.mean, limited.high) == (free.mean, free.high)


def test_constant_values_and_too_few_groups():
    found = mean_interval(np.full(5, 0.25), np.arange(5))
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)
    one = mean_interval(np.array([0.2, 0.4]), np.zeros(2, dtype=int))
    assert one.mean == pytest.approx(0.3)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    only_one_has_values = mean_interval(np.array([0.2, math.nan]), np.arange(2))
    assert math.isnan(only_one_has_values.low)
    assert math.isnan(mean_interval(np.full(3, math.nan), np.arange(3)).mean)


def test_group_numbers_follow_names():
    assert group_index(["b", "a", "b"]).tolist() == [1, 0, 1]


def share_covered(rng, groups, shape, repeats=1, draws=1000):
    inside, index = 0, np.repeat(np.arange(groups), 20)
    for _ in range(draws):
        effect = rng.standard_t(3, groups) / np.sqrt(3) if shape == "heavy" else rng.standard_normal(groups)
        values = np.sqrt(0.8) * effect[index] + np.sqrt(0.2) * rng.standard_normal(len(index))
        if repeats == 1:
            found = mean_interval(values, index)
        else:
            parts = [np.zeros(len(index)), values]
            parts = [p + 0.2 * rng.standard_normal((repeats, 1)) for p in parts]
            parts = [p + 0.2 * rng.standard_normal((repeats, groups))[:, index] for p in parts]
            found = difference_interval([p[:, :, None] for p in parts], index)
        inside += found.low <= 0 <= found.high
    return inside / draws


@pytest.mark.parametrize("shape", ["normal", "heavy"])
@pytest.mark.parametrize("groups", [10, 20, 60])
def test_interval_holds_the_truth_as_often_as_it_says(groups, shape):
    """20 frames a group with correlation 0.8; scripts/simulate_groups.py has more settings and draws."""
    assert 0.93 <= share_covered(np.random.default_rng(groups + 1), groups, shape) <= 0.975


@pytest.mark.parametrize("repeats", [2, 3])
def test_interval_counts_the_chance_of_training(repeats):
    """Repeats shift all cases of a row; to resample groups alone would hold the truth in 80 to 85 %."""
    assert 0.92 <= share_covered(np.random.default_rng(0), 20, "normal", repeats, draws=500) <= 0.985


def test_repeats_without_chance_are_a_single_training():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(1, 40, 2))
    index = np.repeat(np.arange(10), 4)
    single, repeated = mean_interval(values, index), mean_interval(np.repeat(values, 3, axis=0), index)
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))
    assert repeated.run_sd == pytest.approx(0)
    assert math.isnan(single.run_sd)
