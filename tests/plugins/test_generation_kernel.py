"""The kernel distance against brute force, torchmetrics and its expectation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from sfumato_generation import kernel
from sfumato_generation.jackknife import groups, standard_error
from sfumato_generation.kernel import Blocks, across, within


def rows(n: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    """Normal rows."""
    return torch.tensor(np.random.default_rng(seed).standard_normal((n, width)) + shift)


def blocks(x: Tensor, y: Tensor) -> Blocks:
    """The sums of two sides."""
    return Blocks(within(x), within(y), across(x, y))


def found(x: Tensor, y: Tensor) -> float:
    """The distance of two sides."""
    return blocks(x, y).distance(len(x))


def by_hand(x: Tensor, y: Tensor) -> float:
    """The definition, pair by pair."""
    n, width = x.shape

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / width + 1) ** 3

    pairs = [(i, j) for i in range(n) for j in range(n)]
    same = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs if i != j) / (n * (n - 1))
    return same - 2 * sum(k(x[i], y[j]) for i, j in pairs) / n**2


@pytest.mark.parametrize(("n", "width"), [(2, 3), (3, 1), (7, 4), (45, 5)])
def test_it_is_the_sum_over_pairs(n: int, width: int) -> None:
    """Blocks of groups add up to the definition, for few rows and for many."""
    x, y = rows(n, width, 1, 0.5), rows(n, width, 2)
    assert found(x, y) == pytest.approx(by_hand(x, y), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("n", "width"), [(41, 2), (300, 64), (1300, 7)])
def test_it_is_torchmetrics(n: int, width: int) -> None:
    """One subset of all items is what KID of torchmetrics computes on given features."""
    x, y = rows(n, width, 1, 0.2), rows(n, width, 2)
    assert found(x, y) == pytest.approx(float(poly_mmd(y, x)), rel=1e-9)


def test_tiles_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups larger than a tile are summed in parts."""
    x, y = rows(200, 4, 1, 0.2), rows(200, 4, 2)
    whole = found(x, y)
    monkeypatch.setattr(kernel, "_TILE", 3)
    assert found(x, y) == pytest.approx(whole, rel=1e-10)


def test_it_is_symmetric() -> None:
    """Which side is the generated one makes no difference."""
    x, y = rows(50, 3, 1, 0.4), rows(50, 3, 2)
    assert found(x, y) == pytest.approx(found(y, x), rel=1e-10)


def test_its_expectation_is_that_of_the_distributions() -> None:
    """Where x = 1 and y = ±1 are fair coins, MMD² = 8 + 4 − 2·4 = 4, and 0 between equal coins.

    With F = 1, k = (xy + 1)³ is 8 or 0, so E k(x, x') = 8, E k(y, y') = 4 and E k(x, y) = 4. The
    estimate is unbiased: over all samples of size 2 its average is exact.
    """
    ones = torch.ones(2, 1, dtype=torch.float64)
    coins = [torch.tensor([[a], [b]], dtype=torch.float64) for a in (-1, 1) for b in (-1, 1)]
    assert np.mean([found(ones, y) for y in coins]) == pytest.approx(4)
    assert np.mean([found(x, y) for x in coins for y in coins]) == pytest.approx(0, abs=1e-12)
    assert min(found(x, y) for x in coins for y in coins) < 0


def test_leaving_out_is_computing_anew() -> None:
    """Each replicate is the distance of the rows that are left, on both sides."""
    for n, count in ((90, 20), (5, 5)):
        x, y = rows(n, 3, 1, 0.5), rows(n, 3, 2)
        replicates = list(blocks(x, y).left_out(n))
        assert len(replicates) == count
        for value, run in zip(replicates, groups(n), strict=True):
            kept = torch.ones(n, dtype=torch.bool)
            kept[run] = False
            assert value == pytest.approx(float(poly_mmd(y[kept], x[kept])), rel=1e-9)
    assert list(blocks(rows(2, 3, 1), rows(2, 3, 2)).left_out(2)) == []


@pytest.mark.parametrize(
    ("shift", "low", "high"),
    # As for the Fréchet distance: consistent apart, √2 too large at equality.
    [(0.5, 0.8, 1.25), (0.0, 1.1, 1.8)],
    ids=["apart", "equal"],
)
def test_standard_errors_are_the_spread_over_fresh_draws(
    shift: float, low: float, high: float
) -> None:
    """Over 100 pairs of fresh samples they are its deviation, within that deviation's own error."""
    values, errors = [], []
    for seed in range(100):
        made = blocks(rows(200, 6, 2 * seed, shift), rows(200, 6, 2 * seed + 1))
        values.append(made.distance(200))
        errors.append(standard_error(list(made.left_out(200))))
    ratio = float(np.mean(np.array(errors, dtype=float)) / np.std(values, ddof=1))
    assert low < ratio < high
