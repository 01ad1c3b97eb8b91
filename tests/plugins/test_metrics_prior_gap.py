from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

import sfumato
from sfumato import Figure, Model, Prior, Scope, Split, Subject
from sfumato.registry import Registry
from sfumato.testing.partners import PARTNERS
from sfumato_metrics import discrepancy, prior_gap
from sfumato_metrics.discrepancy import covariance_gap, groups_of, mean_gap, mmd
from sfumato_metrics.draws import prior_codes
from sfumato_metrics.latent import aggregate_posterior

LINEAR = {"type": "mlp", "hidden": []}
Array = np.ndarray[Any, np.dtype[np.float64]]
MEAN, SIGMA = (1.0, -2.0, 0.5), (2.0, 0.5, 1.0)
COVARIANCE = ((4.0, 1.0, 0.0), (1.0, 1.0, -0.3), (0.0, -0.3, 0.5))


class Elsewhere(Prior):
    """Independent normals with means and scales of their own."""

    def forward(self, scope: Scope) -> Distribution:
        """Batch (), event (3,)."""
        del scope
        mean, sigma = (torch.tensor(v, dtype=torch.float64) for v in (MEAN, SIGMA))
        return Independent(Normal(mean, sigma), 1)


class Correlated(Prior):
    """A normal whose dimensions depend on each other."""

    def forward(self, scope: Scope) -> Distribution:
        """Batch (), event (3,)."""
        del scope
        mean = torch.tensor(MEAN, dtype=torch.float64)
        return MultivariateNormal(mean, torch.tensor(COVARIANCE, dtype=torch.float64))


class ByCondition(Prior):
    """N(c, 1), so that every item has a prior of its own."""

    def forward(self, scope: Scope) -> Distribution:
        """Batch (N,), event (3,)."""
        assert scope.condition is not None
        return Independent(Normal(scope.condition, torch.ones_like(scope.condition)), 1)


class Still(Prior):
    """All but a point, in one dimension."""

    def forward(self, scope: Scope) -> Distribution:
        """Batch (), event (3,)."""
        del scope
        sigma = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
        return Independent(Normal(torch.zeros_like(sigma), sigma, validate_args=False), 1)


PARTS: dict[tuple[str, str], Any] = {
    **PARTNERS,
    ("prior", "elsewhere"): lambda _: Elsewhere(),
    ("prior", "correlated"): lambda _: Correlated(),
    ("prior", "by_condition"): lambda _: ByCondition(),
    ("prior", "still"): lambda _: Still(),
}


def copying(prior: str = "standard_normal", condition_dim: int = 0) -> Model:
    """An autoencoder of 3 values whose code is the datum."""
    model: dict[str, Any] = {"family": "ae", "latent_dim": 3, "encoder": LINEAR, "decoder": LINEAR}
    training = {"precision": "float64", "device": "cpu"}
    spec = {"model": {**model, "prior": prior}, "training": training}
    parts = Registry("none").extended(PARTS)
    built = sfumato.build(spec, (3,), "cpu", condition_dim=condition_dim, parts=parts)
    with torch.no_grad():
        for name, weight in built.named_parameters():
            if name.startswith("posterior"):
                weight.copy_(torch.eye(*weight.shape) if weight.dim() > 1 else torch.zeros(3))
    return built


def normal(n: int, d: int = 3, seed: int = 0) -> Tensor:
    """Standard normal rows."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, dtype=torch.float64, generator=random)


def value(figure: Figure) -> float:
    """Its value, which is defined."""
    assert figure.value is not None, figure.undefined
    return figure.value


def by_loops(a: Array, b: Array, scale: float) -> float:
    """The unbiased estimate from pairs taken one by one."""

    def kernel(u: Array, v: Array) -> float:
        return scale / (scale + float(((u - v) ** 2).sum()))

    same = [np.mean([kernel(u, v) for u, v in combinations(cloud, 2)]) for cloud in (a, b)]
    return float(sum(same) - 2 * np.mean([kernel(u, v) for u in a for v in b]))


def left_out(a: Array, b: Array, estimate: Any) -> float:
    """The standard error by leaving out each group of both clouds, from scratch."""
    groups = groups_of(len(a))
    rows = np.arange(len(a))
    kept = [(rows < g.start) | (rows >= g.stop) for g in groups]
    found = [estimate(a[k], b[k]) for k in kept]
    return float(np.sqrt((len(found) - 1) * np.var(found)))


@pytest.mark.parametrize("n", [2, 4, 7, 47])
def test_discrepancy_agrees_with_single_pairs(n: int) -> None:
    """The estimate, and that without each group, are those of a double loop."""
    a, b, scale = 1.5 * normal(n) + 1, normal(n, seed=1), 6.0
    found, error = mmd(a, b, scale)
    assert found == pytest.approx(by_loops(a.numpy(), b.numpy(), scale), rel=1e-10)
    if n < 4:
        assert error is None, "with one group left out, nothing is left"
    else:
        expected = left_out(a.numpy(), b.numpy(), lambda u, v: by_loops(u, v, scale))
        assert error == pytest.approx(expected, rel=1e-8)


def test_discrepancy_does_not_depend_on_how_pairs_are_grouped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any number of pairs at once gives the same figure."""
    a, b = normal(100), normal(100, seed=1)
    whole = mmd(a, b, 6.0)
    monkeypatch.setattr(discrepancy, "_AT_ONCE", 250)
    assert mmd(a, b, 6.0) == pytest.approx(whole, rel=1e-10)


def test_discrepancy_of_one_distribution_has_mean_zero() -> None:
    """Over 200 pairs of clouds from one normal it averages to 0: it has no bias."""
    found = [mmd(normal(40, seed=2 * i), normal(40, seed=2 * i + 1), 6.0)[0] for i in range(200)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(200)
    assert min(found) < 0


def test_discrepancy_is_its_integral() -> None:
    """In one dimension it estimates ∫∫ k (p − q)(p − q) of two normals, by the trapezoidal rule."""
    grid = np.linspace(-12, 12, 1201)
    step = grid[1] - grid[0]

    def density(mean: float, sigma: float) -> Array:
        return np.asarray(
            np.exp(-(((grid - mean) / sigma) ** 2) / 2) / sigma / math.sqrt(2 * math.pi)
        )

    gap = density(1, 1.5) - density(0, 1)
    kernel = 2 / (2 + (grid[:, None] - grid) ** 2)
    expected = float(gap @ kernel @ gap * step**2)
    found, error = mmd(1.5 * normal(3000, 1) + 1, normal(3000, 1, seed=1), 2.0)
    assert error is not None
    assert abs(found - expected) < 4 * error
    assert error < 0.1 * expected


def test_errors_are_those_over_clouds() -> None:
    """Standard errors are about the spread of the figures over clouds drawn anew."""
    spread = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)
    found: dict[str, list[tuple[float, float | None]]] = {"mmd": [], "mean": [], "covariance": []}
    for i in range(150):
        a, b = normal(200, seed=2 * i) * spread + 0.7, normal(200, seed=2 * i + 1)
        found["mmd"].append(mmd(a, b, 6.0))
        found["mean"].append(mean_gap(a))
        found["covariance"].append(covariance_gap(a))
    for name, pairs in found.items():
        deviation = np.std([v for v, _ in pairs], ddof=1)
        errors = np.array([e for _, e in pairs if e is not None])
        # A deviation from 150 values is good to 6 %, the average of 150 errors to 1/√(150 · 38) = 1 %;
        # a jackknife is too large by its second order.
        assert np.sqrt((errors**2).mean()) == pytest.approx(deviation, rel=0.25), name


def squares(u: Array, prior: Array | None) -> tuple[float, float]:
    """Squared gaps of mean and covariance, over d, less the squared errors that sampling makes expected.

    A mean's is the variance of what is averaged over n; of a covariance that is the outer product.
    """

    def moments(rows: Array) -> tuple[Array, float, Array, float]:
        n, centred = len(rows), rows - rows.mean(0)
        outer = np.einsum("ni,nj->nij", centred, centred)
        noise = float(outer.reshape(n, -1).var(0, ddof=1).sum()) / n
        return rows.mean(0), float(rows.var(0, ddof=1).sum()) / n, np.cov(rows.T), noise

    d = u.shape[1]
    mean, noise_of_mean, covariance, noise = moments(u)
    aim = (np.zeros(d), 0.0, np.eye(d), 0.0) if prior is None else moments(prior)
    first = float(((mean - aim[0]) ** 2).sum()) - noise_of_mean - aim[1]
    second = float(((covariance - aim[2]) ** 2).sum()) - noise - aim[3]
    return first / d, second / d


@pytest.mark.parametrize("n", [5, 64])
@pytest.mark.parametrize("drawn", [False, True])
def test_moments_agree_with_numpy(n: int, *, drawn: bool) -> None:
    """Both gaps, less what sampling of either cloud adds, and their jackknifed errors, from scratch."""
    codes = 2 * normal(n) @ normal(3, seed=5) + 2.5
    prior = normal(n, seed=7) + 0.1 if drawn else None

    def by_numpy(u: Array, p: Array, number: int) -> float:
        return squares(u, p if drawn else None)[number]

    both = codes.numpy(), (codes if prior is None else prior).numpy()
    for number, found in enumerate((mean_gap(codes, prior), covariance_gap(codes, prior))):
        square = by_numpy(*both, number)
        error = left_out(*both, lambda u, p, i=number: by_numpy(u, p, i))
        assert square > 0, "what the test supposes"
        assert found[0] == pytest.approx(math.sqrt(square), rel=1e-9)
        assert found[1] == pytest.approx(math.sqrt(square + error) - math.sqrt(square), rel=1e-7)


@pytest.mark.parametrize(("n", "d"), [(100, 3), (300, 16)])
def test_draws_of_the_prior_show_no_gap(monkeypatch: pytest.MonkeyPatch, n: int, d: int) -> None:
    """Over 150 clouds of the prior itself the squares average to 0, and not to (d + 1)/n and 1/n."""
    monkeypatch.setattr(discrepancy, "rooted", lambda square, error: (square, error))
    clouds = [normal(n, d, seed=i) for i in range(150)]
    for gap, added in ((mean_gap, 1 / n), (covariance_gap, (d + 1) / n)):
        found = [gap(cloud)[0] for cloud in clouds]
        assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(150)
        assert abs(np.mean(found)) < 0.2 * added
        assert min(found) < 0


def test_a_square_below_nothing_is_no_gap() -> None:
    """It is shown as 0 with an error, and far above its error a square has the error of its root."""
    assert discrepancy.rooted(-0.01, 0.04) == pytest.approx((0, 0.2))
    assert discrepancy.rooted(4.0, 0.01) == pytest.approx((2, 0.01 / 4), rel=1e-2)
    assert discrepancy.rooted(4.0, None) == (2, None)


@pytest.mark.parametrize("prior", ["standard_normal", "elsewhere"])
def test_figures_are_in_units_of_the_prior(prior: str) -> None:
    """Codes are compared with the known moments of the prior, and C is twice its total variance."""
    mean, sigma = (np.array(MEAN), np.array(SIGMA)) if prior == "elsewhere" else (0, np.ones(3))
    x = 1.3 * normal(60) @ normal(3, seed=5) + 0.4
    subject = Subject(copying(prior), Split(x))
    found = aggregate_posterior()(subject)
    rows = subject.rows("split", 60)
    codes, draws = x[rows].numpy(), prior_codes(subject, rows).numpy()
    expected = by_loops(codes, draws, 2 * float((sigma**2).sum()))
    assert value(found["prior_mmd"]) == pytest.approx(expected, rel=1e-9)
    u = (codes - mean) / sigma
    norm, gap = squares(u, None)
    assert value(found["posterior_mean_norm"]) == pytest.approx(math.sqrt(norm), rel=1e-9)
    assert value(found["posterior_covariance_gap"]) == pytest.approx(math.sqrt(gap), rel=1e-9)
    assert all(figure.standard_error for figure in found.values())


def test_a_prior_that_is_matched_leaves_no_gap() -> None:
    """Codes that are draws of a correlated prior have gaps within their errors, from drawn moments too."""
    lower = torch.linalg.cholesky(torch.tensor(COVARIANCE, dtype=torch.float64))
    x = normal(4000) @ lower.T + torch.tensor(MEAN, dtype=torch.float64)
    found = aggregate_posterior()(Subject(copying("correlated"), Split(x)))
    mmd_found = found["prior_mmd"]
    assert mmd_found.standard_error is not None
    assert abs(value(mmd_found)) < 5 * mmd_found.standard_error
    for name in ("posterior_mean_norm", "posterior_covariance_gap"):
        error = found[name].standard_error
        assert error is not None
        assert value(found[name]) <= 3 * error < 0.2
    moved = aggregate_posterior()(Subject(copying("correlated"), Split(normal(4000))))
    assert value(moved["posterior_covariance_gap"]) > 0.5
    assert value(moved["posterior_mean_norm"]) > 1


def test_items_are_compared_with_priors_of_their_own_condition() -> None:
    """Draws are from p(z|c) of the very items, so codes that follow it have no gap."""
    condition = 4 * normal(2000)
    x = condition + normal(2000, seed=1)
    model = copying("by_condition", condition_dim=3)
    found = aggregate_posterior()(Subject(model, Split(x, condition=condition)))
    assert abs(value(found["prior_mmd"])) < 0.01
    assert value(found["posterior_mean_norm"]) < 0.1
    assert value(found["posterior_covariance_gap"]) < 0.2
    subject = Subject(model, Split(x, condition=condition))
    rows = subject.rows("split", 500)
    draws = prior_codes(subject, rows)
    assert float((draws - condition[rows]).std()) == pytest.approx(1, abs=0.05)


def test_codes_away_from_the_prior_warn() -> None:
    """An autoencoder whose codes lie elsewhere is told to generate from a fitted sampler; another is not."""
    far = aggregate_posterior()(Subject(copying(), Split(normal(200) + 2)))["prior_mmd"]
    assert "sfumato list sampler" in str(far.warning)
    near = aggregate_posterior()(Subject(copying(), Split(normal(200))))["prior_mmd"]
    assert near.warning is None
    for stretch, warns in ((1.5, False), (2.5, True)):
        x = stretch * normal(2000)
        wide = aggregate_posterior()(Subject(copying(), Split(x)))["prior_mmd"]
        assert (wide.warning is not None) == warns


def test_an_option_limits_the_codes() -> None:
    """With fewer samples than items, some items stand for all."""
    x = normal(100) + 1
    subject = Subject(copying(), Split(x))
    found = aggregate_posterior(samples=10)(subject)
    u = x[subject.rows("split", 10)].numpy()
    expected = math.sqrt(squares(u, None)[0])
    assert value(found["posterior_mean_norm"]) == pytest.approx(expected, rel=1e-9)


def test_gaps_that_are_not_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    """One item, codes that are not finite, and a prior that does not vary have none, and say why."""
    x = normal(6)
    for model, split, why in (
        (copying(), Split(x[:1]), "one item"),
        (copying("still"), Split(x), "does not vary"),
    ):
        for figure in aggregate_posterior()(Subject(model, split)).values():
            assert figure.value is None
            assert why in str(figure.undefined)
    broken = copying()
    with torch.no_grad():
        dict(broken.named_parameters())["posterior.head.bias"].fill_(math.inf)
    found = aggregate_posterior()(Subject(broken, Split(x)))
    assert {f.undefined for f in found.values()} == {"codes are not finite"}
    monkeypatch.setattr(prior_gap, "WIDEST", 2)
    found = aggregate_posterior()(Subject(copying(), Split(x)))
    assert found["posterior_mean_norm"].value is not None
    assert "3 dimensions" in str(found["posterior_covariance_gap"].undefined)


def test_codes_of_symbols_are_compared_with_embedded_ones() -> None:
    """A prior over symbols is compared in the space that the decoder sees, by the moments of its draws."""
    model: dict[str, Any] = {"family": "ae", "encoder": LINEAR, "decoder": LINEAR}
    parts = {"posterior": "host_symbols", "prior": "host_symbols", "likelihood": "gaussian"}
    spec = {"model": {**model, **parts}, "training": {"precision": "float64", "device": "cpu"}}
    built = sfumato.build(spec, (3,), "cpu", parts=Registry("none").extended(PARTS))
    found = aggregate_posterior()(Subject(built, Split(normal(50))))
    assert all(figure.value is not None for figure in found.values())


def test_figures_say_what_they_are() -> None:
    """Each has a unit, a definition and a source, and is better when lower."""
    found = aggregate_posterior()(Subject(copying(), Split(normal(30))))
    assert list(found) == ["prior_mmd", "posterior_mean_norm", "posterior_covariance_gap"]
    for figure in found.values():
        assert figure.better == "lower"
        assert figure.unit
        assert figure.source
        assert "standard error by leaving out" in figure.definition
