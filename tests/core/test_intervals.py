"""Intervals over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sfumato import Difference, Interval
from sfumato.intervals import student


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 19, 20, 21, 22, 30, 57, 120, 10_000])
def test_quantiles_are_those_of_students_t(degrees: int) -> None:
    """At every number of seeds the quantile is scipy's, to five digits."""
    assert student(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-5)


def test_an_interval_is_that_of_a_t_test() -> None:
    """It is the confidence interval that scipy gives of a one-sample t-test; one value has none."""
    values = [3.0, 4.5, 2.5, 7.0]
    found = Interval.of(values)
    assert found is not None
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-6)
    assert found.half == pytest.approx((wanted.high - wanted.low) / 2, rel=1e-6)
    assert Interval.of([1.0]) is None


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Of 2,000 samples of three normals, 95 % of the intervals hold the mean, within 5 standard errors."""
    draws = np.random.default_rng(0).standard_normal((2000, 3)).tolist()
    intervals = [interval for draw in draws if (interval := Interval.of(draw)) is not None]
    share = sum(i.low <= 0 <= i.high for i in intervals) / 2000
    assert abs(share - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 2000)


def test_pairs_cancel_what_seeds_share() -> None:
    """Where a seed moves both figures alike, the paired interval has no width, whatever the spread."""
    one, other = [1.0, 5.0, 9.0], [0.5, 4.5, 8.5]
    difference = Difference.of(one, other)
    assert difference is not None
    assert difference.mean == pytest.approx(0.5)
    assert difference.interval is not None
    assert difference.interval.half == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("gaps", "marked"),
    [
        ([1.0, 1.1, 0.9, 1.0], False),
        ([1.0, 1.1, 0.9, 1.0, 1.05], True),
        ([-1.0, -1.1, -0.9, -1.0, -1.05], True),
        ([1.0, -1.1, 0.9, -1.0, 1.05], False),
    ],
)
def test_fewer_than_five_seeds_mark_nothing(gaps: list[float], marked: bool) -> None:  # noqa: FBT001
    """However clear four seeds look, only five or more whose interval excludes 0 are marked."""
    difference = Difference.of(gaps, [0.0] * len(gaps))
    assert difference is not None
    assert difference.marked is marked


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_leaves_no_interval(bad: float) -> None:
    """Such a value has no spread that could be told, and ends nothing."""
    assert Interval.of([1.0, bad, 2.0]) is None


def test_nothing_to_pair_is_no_difference() -> None:
    """Two variants without a common seed have no difference, and one seed has no interval."""
    assert Difference.of([], []) is None
    single = Difference.of([2.0], [1.0])
    assert single is not None
    assert (single.mean, single.interval, single.marked) == (1.0, None, False)
