"""The classifier two-sample test against scikit-learn called directly, and in known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from sfumato import MissingExtraError, key
from sfumato_generation import two_sample
from sfumato_generation.two_sample import accuracy, c2st


def rows(n: int, seed: int, shift: float = 0.0) -> Tensor:
    """Normal rows of very different scales."""
    scales = np.array([1e-3, 1, 1e3])
    return torch.tensor((np.random.default_rng(seed).standard_normal((n, 3)) + shift) * scales)


def test_it_is_scikit_learn_fold_by_fold() -> None:
    """Fits to four folds, standardised by those four alone, classify the fifth."""
    one, other, seed = rows(60, 1, 0.4), rows(60, 2), 5
    x, side = np.concatenate([one.numpy(), other.numpy()]), np.repeat([0, 1], 60)
    folds = StratifiedKFold(5, shuffle=True, random_state=key(seed, "c2st") % 2**32)
    right = 0
    for fit, rest in folds.split(x, side):
        mean, deviation = x[fit].mean(0), x[fit].std(0)
        model = LogisticRegression(max_iter=1000).fit((x[fit] - mean) / deviation, side[fit])
        right += int((model.predict((x[rest] - mean) / deviation) == side[rest]).sum())
    assert accuracy(one, other, seed) == right / 120


def test_equal_distributions_cannot_be_told_apart() -> None:
    """Over 40 pairs the mean accuracy is 0.5 to four standard errors, and its spread binomial.

    A deviation of 40 values is itself known to 11 %, of which three are allowed.
    """
    n = 100
    found = np.array([accuracy(rows(n, 2 * s), rows(n, 2 * s + 1), s) for s in range(40)])
    binomial = math.sqrt(0.25 / (2 * n))
    assert abs(found.mean() - 0.5) < 4 * binomial / math.sqrt(40)
    assert found.std(ddof=1) == pytest.approx(binomial, rel=0.4)


@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_shifted_normals_reach_the_best_accuracy(shift: float) -> None:
    """Of N(0, I) and N(s, I) in three dimensions the best is Φ(√3 s/2), and a plane attains it."""
    n = 2000
    best = 0.5 * (1 + math.erf(math.sqrt(3) * shift / 2 / math.sqrt(2)))
    error = math.sqrt(best * (1 - best) / (2 * n))
    assert accuracy(rows(n, 1, shift), rows(n, 2), 0) == pytest.approx(best, abs=4 * error)


def test_far_distributions_are_always_told_apart() -> None:
    """Accuracy 1."""
    assert accuracy(rows(50, 1, 100), rows(50, 2), 0) == 1


def test_constant_features_are_no_fault() -> None:
    """Items that are all the same on both sides are told apart half of the time, by chance."""
    same = torch.ones(25, 4, dtype=torch.float64)
    assert accuracy(same, same, 0) == 0.5


def test_a_missing_package_is_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Making the metric names the extra that brings scikit-learn."""

    def refuse(module: str, extra: str, what: str) -> None:
        raise MissingExtraError(f"{module} {extra} {what}")

    monkeypatch.setattr(two_sample, "import_extra", refuse)
    with pytest.raises(MissingExtraError, match=r"sklearn\.linear_model metrics metric c2st"):
        c2st()
