"""Memorisation against scipy's Mann-Whitney statistic, DeLong's error against simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from sfumato_generation.memorisation import are_copies, probability_less


def values(*numbers: float) -> Tensor:
    """A sample."""
    return torch.tensor(numbers, dtype=torch.float64)


def test_a_probability_by_hand() -> None:
    """Of (1, 2) and (2, 3): 1 < 2, 1 < 3 and 2 < 3 count, and 2 = 2 counts half."""
    assert probability_less(values(1, 2), values(2, 3))[0] == 3.5 / 4
    assert probability_less(values(2, 3), values(1, 2))[0] == 0.5 / 4


@pytest.mark.parametrize(("n", "m"), [(10, 10), (30, 17), (200, 500)])
@pytest.mark.parametrize("ties", [False, True])
def test_it_is_scipys_statistic(n: int, m: int, *, ties: bool) -> None:
    """U of the greater side over n·m, ties counted half."""
    random = np.random.default_rng(n)
    one, other = random.normal(0.3, 1, n), random.normal(0, 1, m)
    if ties:
        one, other = one.round(), other.round()
    expected = mannwhitneyu(other, one).statistic / (n * m)
    found, _ = probability_less(torch.tensor(one), torch.tensor(other))
    assert found == pytest.approx(expected, rel=1e-12)


def test_the_error_is_delongs() -> None:
    """The variance of placements, item by item: S₁₀/n + S₀₁/m (DeLong et al., 1988, equation 5)."""
    random = np.random.default_rng(0)
    one, other = random.integers(0, 6, 23), random.integers(1, 8, 31)
    wins = (one[:, None] < other) + 0.5 * (one[:, None] == other)
    variance = wins.mean(1).var(ddof=1) / 23 + wins.mean(0).var(ddof=1) / 31
    _, error = probability_less(torch.tensor(one).double(), torch.tensor(other).double())
    assert error == pytest.approx(np.sqrt(variance), rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_standard_errors_are_the_spread_over_fresh_draws(shift: float) -> None:
    """Over 300 pairs of samples; the deviation of 300 is itself known to 4 %, of which three are allowed."""
    random = np.random.default_rng(1)
    found = [
        probability_less(
            torch.tensor(random.normal(shift, 2, 80)), torch.tensor(random.normal(0, 1, 80))
        )
        for _ in range(300)
    ]
    spread = np.std([value for value, _ in found], ddof=1)
    assert np.mean([error for _, error in found]) == pytest.approx(spread, rel=0.13)


def test_what_a_copy_is() -> None:
    """Distance 0, or below a third of that to the second nearest; a repeated item is copied too."""
    distances = torch.tensor([[0, 0], [0, 1], [0.3, 1], [0.34, 1], [1, 1], [1, 3.1]])
    assert are_copies(distances).tolist() == [1, 1, 1, 0, 0, 1]
