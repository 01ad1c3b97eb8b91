"""The Fréchet distance against closed forms, scipy's matrix root and torchmetrics."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from sfumato_generation.frechet import Sums, _left_out, distance
from sfumato_generation.jackknife import groups, standard_error


def normal(n: int, width: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    """Correlated normal rows."""
    random = np.random.default_rng(seed)
    mixing = np.eye(width) + 0.3 * random.standard_normal((width, width))
    return torch.tensor(random.standard_normal((n, width)) @ mixing + shift)


def covariance(x: Any) -> Any:
    """numpy's, as a matrix for one feature too."""
    return np.atleast_2d(np.cov(x.T))


def exact(n: int, mean: Any, root: Any, seed: int = 0) -> Tensor:
    """Rows whose sample mean and sample covariance are exactly ``mean`` and ``root rootᵀ``."""
    width = len(mean)
    x = np.random.default_rng(seed).standard_normal((n, width))
    x -= x.mean(0)
    white = x @ np.linalg.inv(np.linalg.cholesky(covariance(x))).T
    return torch.tensor(white @ np.asarray(root, dtype=float).T + np.asarray(mean, dtype=float))


def by_scipy(x: Tensor, y: Tensor) -> float:
    """The textbook formula, with scipy's matrix root."""
    a, b = x.numpy(), y.numpy()
    first, second = covariance(a), covariance(b)
    root = linalg.sqrtm(first @ second)
    apart = a.mean(0) - b.mean(0)
    return float(apart @ apart + np.trace(first + second - 2 * np.real(root)))


class Given(nn.Module):
    """Features that are given: torchmetrics' own extractor is another one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        """Return what is given."""
        return x


def by_torchmetrics(x: Tensor, y: Tensor) -> float:
    """FID of torchmetrics on given features."""
    metric = FrechetInceptionDistance(feature=Given(x.shape[1])).set_dtype(torch.float64)
    metric.update(x, real=False)
    metric.update(y, real=True)
    return float(metric.compute())


@pytest.mark.parametrize(("n", "width"), [(50, 1), (40, 3), (300, 16), (500, 64)])
@pytest.mark.parametrize("oracle", [by_scipy, by_torchmetrics])
def test_it_is_what_others_compute(n: int, width: int, oracle: Any) -> None:
    """The matrix root of scipy and torchmetrics give the same, with different numbers of rows too."""
    x, y = normal(n, width, 1, shift=0.5), normal(n + 7, width, 2)
    # Rounding of sums over some hundred rows and of matrix roots; nothing else differs.
    assert distance(x, y) == pytest.approx(oracle(x, y), rel=1e-11)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_closed_form_of_known_normals(width: int) -> None:
    """For N(m, diag(s²)) and N(0, diag(t²)) it is |m|² + Σ(s − t)²."""
    mean, s, t = np.arange(width) - 0.5, np.linspace(0.5, 2, width), np.linspace(3, 1, width)
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((width, width)))[0]
    x = exact(30, turn @ mean, turn * s, 1)
    y = exact(40, np.zeros(width), turn * t, 2)
    expected = float((mean**2).sum() + ((s - t) ** 2).sum())
    assert distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_closed_form_where_covariances_do_not_commute() -> None:
    """In two dimensions tr (S₁S₂)^½ = √(tr S₁S₂ + 2 √det S₁S₂)."""
    one, two = np.array([[2.0, 0], [1, 0.5]]), np.array([[0.3, 0], [-1, 1.5]])
    first, second = one @ one.T, two @ two.T
    product = first @ second
    assert not np.allclose(product, product.T)
    shared = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    expected = np.trace(first + second) - 2 * shared
    found = distance(exact(30, [1, 2], one, 1), exact(30, [1, 2], two, 2))
    assert found == pytest.approx(expected, rel=1e-10)


def test_it_is_symmetric_and_zero_at_equality() -> None:
    """As a squared metric between normals is."""
    x, y = normal(80, 6, 1), normal(80, 6, 2)
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-12)
    assert distance(x, x.clone()) == pytest.approx(0, abs=1e-12)
    assert distance(x + 2, x) == pytest.approx(4 * 6, rel=1e-12)


def test_fewer_rows_than_features_are_exact_too() -> None:
    """With singular covariances the closed forms hold to rounding, not to its root.

    Between rows on a line u, of variance a², and any others of covariance S, the trace of the root
    is a √(uᵀ S u).
    """
    line = torch.nn.functional.normalize(normal(1, 40, 0))
    x, y = normal(10, 1, 1), normal(10, 1, 2, shift=1.0)
    expected = float((x.mean() - y.mean()).square() + (x.std() - y.std()).square())
    assert distance(x * line, y * line) == pytest.approx(expected, rel=1e-12)

    others = normal(200, 40, 4)
    apart = float((x.mean() * line[0] - others.mean(0)).square().sum())
    spread = torch.tensor(covariance(others.numpy()))
    shared = float(x.std()) * math.sqrt(float(line[0] @ spread @ line[0]))
    expected = apart + float(x.var()) + float(spread.trace()) - 2 * shared
    assert distance(x * line, others) == pytest.approx(expected, rel=1e-12)
    few = normal(20, 40, 3)
    assert distance(few, few.flip(0)) == pytest.approx(0, abs=1e-11)


def test_a_common_offset_loses_no_digits() -> None:
    """A mean of a million beside a deviation of one leaves the distance as it was."""
    x, y = normal(100, 5, 1), normal(100, 5, 2)
    assert distance(x + 1e6, y + 1e6) == pytest.approx(distance(x, y), rel=1e-8)


def test_it_grows_with_units_squared() -> None:
    """Features in other units have another distance: its unit is theirs, squared."""
    x, y = normal(100, 5, 1), normal(100, 5, 2)
    assert distance(3 * x, 3 * y) == pytest.approx(9 * distance(x, y), rel=1e-12)


# ---- the jackknife ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "count"), [(2, 0), (3, 3), (24, 24), (39, 39), (40, 20), (297, 20), (10_000, 20)]
)
def test_groups_part_the_rows(n: int, count: int) -> None:
    """Every row is in one group, sizes differ by one at most, and few rows are deleted singly."""
    runs = groups(n)
    assert len(runs) == count
    if runs:
        rows = [list(range(n))[run] for run in runs]
        assert list(chain(*rows)) == list(range(n))
        assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    """Deleting single rows gives s/√n exactly (Tukey, 1958)."""
    x = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left_out = [float((x.sum() - value) / 29) for value in x]
    assert standard_error(left_out) == pytest.approx(float(x.std()) / math.sqrt(30), rel=1e-10)
    assert standard_error([]) is None


def test_leaving_out_is_computing_anew() -> None:
    """Each replicate is the distance of the rows that are left, on both sides."""
    x, y = normal(90, 4, 1), normal(90, 4, 2)
    found = list(_left_out(x, y))
    assert len(found) == 20
    for value, run in zip(found, groups(90), strict=True):
        kept = torch.ones(90, dtype=torch.bool)
        kept[run] = False
        assert value == pytest.approx(by_scipy(x[kept], y[kept]), rel=1e-9)


def test_moments_are_those_of_numpy() -> None:
    """Sums about any origin give the mean less that origin, and the unbiased covariance."""
    x = normal(20, 3, 1)
    sums = Sums.of(x, torch.tensor([1.0, -2, 3], dtype=torch.float64))
    assert np.allclose(sums.mean().numpy(), x.numpy().mean(0) - [1, -2, 3])
    assert np.allclose(sums.covariance().numpy(), np.cov(x.numpy().T))


@pytest.mark.parametrize(
    ("shift", "low", "high"),
    # Apart, the statistic is nearly linear in the data and the jackknife consistent. At equality it
    # is quadratic, and the jackknife of a degenerate quadratic is √2 too large (Efron & Stein, 1981).
    [(0.5, 0.8, 1.25), (0.0, 1.1, 1.8)],
    ids=["apart", "equal"],
)
def test_standard_errors_are_the_spread_over_fresh_draws(
    shift: float, low: float, high: float
) -> None:
    """Over 100 pairs of fresh samples they are its deviation, within that deviation's own error."""
    values, errors = [], []
    for seed in range(100):
        random = np.random.default_rng(seed)
        x = torch.tensor(random.standard_normal((300, 6)) + shift)
        y = torch.tensor(random.standard_normal((300, 6)))
        values.append(distance(x, y))
        errors.append(standard_error(list(_left_out(x, y))))
    ratio = float(np.mean(np.array(errors, dtype=float)) / np.std(values, ddof=1))
    assert low < ratio < high
