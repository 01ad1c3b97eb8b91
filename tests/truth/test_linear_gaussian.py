"""A linear-Gaussian model, in which everything is known (Tipping & Bishop, 1999)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from sfumato import Scope

SHAPES = [((5,), 2, 0.3), ((2, 3), 3, 0.7), ((1, 2, 2), 1, 0.05)]
shapes = pytest.mark.parametrize(("shape", "latent_dim", "sigma"), SHAPES)


def evidence(truth: Any, x: Tensor) -> Tensor:
    """The exact log p(x) = log N(x; m, WWᵀ + σ²I), from SciPy."""
    p_x = stats.multivariate_normal(truth.mean, truth.covariance)
    return torch.tensor(np.atleast_1d(p_x.logpdf(x.flatten(1).numpy())))


def gap(truth: Any, shift: float, stretch: float) -> float:
    """KL(q ‖ p(z|x)) of a posterior that is moved and widened, from full covariances."""
    exact = np.diag(truth.posterior_sigma**2)
    zero = torch.zeros(truth.latent_dim, dtype=torch.float64)
    q_z = MultivariateNormal(zero + shift, torch.tensor(exact * stretch**2))
    return float(kl_divergence(q_z, MultivariateNormal(zero, torch.tensor(exact))))


@shapes
@pytest.mark.parametrize("samples", [1, 3, 120])
def test_importance_weights_are_constant_at_the_exact_posterior(
    linear_gaussian: Callable[..., Any],
    shape: tuple[int, ...],
    latent_dim: int,
    sigma: float,
    samples: int,
) -> None:
    """Whatever z is, log p(x, z) − log q(z|x) = log p(x), so any number of samples gives it."""
    truth = linear_gaussian(shape, latent_dim, sigma)
    x = truth.draw(7)
    found = truth.build().log_prob(x, samples=samples, seed=0)
    # Sums of about 1e3 at most, in float64: rounding is near 1e-12.
    torch.testing.assert_close(found, evidence(truth, x), rtol=0, atol=1e-9)


@shapes
def test_bound_is_tight_at_the_exact_posterior(
    linear_gaussian: Callable[..., Any],
    cubature: Callable[..., Any],
    shape: tuple[int, ...],
    latent_dim: int,
    sigma: float,
) -> None:
    """E[ELBO] = log N(x; m, WWᵀ + σ²I), the expectation over z taken exactly."""
    truth = linear_gaussian(shape, latent_dim, sigma)
    model, x = truth.build(), truth.draw(7)
    model.loss.samples = 2 * latent_dim
    out = model(Scope(x, source=cubature(latent_dim)))
    torch.testing.assert_close(out.terms["elbo"], evidence(truth, x), rtol=0, atol=1e-9)
    torch.testing.assert_close(out.objective.detach(), -evidence(truth, x), rtol=0, atol=1e-9)


@shapes
def test_bound_misses_by_the_divergence_to_the_exact_posterior(
    linear_gaussian: Callable[..., Any],
    cubature: Callable[..., Any],
    shape: tuple[int, ...],
    latent_dim: int,
    sigma: float,
) -> None:
    """E[ELBO] = log p(x) − KL(q ‖ p(z|x)) for a posterior that is moved and widened."""
    truth = linear_gaussian(shape, latent_dim, sigma)
    model, x = truth.build(shift=0.4, stretch=1.7), truth.draw(7)
    model.loss.samples = 2 * latent_dim
    found = model(Scope(x, source=cubature(latent_dim))).terms["elbo"]
    expected = evidence(truth, x) - gap(truth, 0.4, 1.7)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("samples", [1, 8])
def test_elbo_estimates_its_expectation(linear_gaussian: Callable[..., Any], samples: int) -> None:
    """The mean of ``Model.elbo`` is log p(x) − KL(q ‖ p(z|x)), and more samples estimate it better."""
    truth = linear_gaussian((5,), 2, 0.3)
    model, x = truth.build(shift=0.05, stretch=1.3), truth.draw(1)
    drawn = model.elbo(x.expand(4000, -1), seed=3, samples=samples)
    expected = float(evidence(truth, x)) - gap(truth, 0.05, 1.3)
    standard_error = float(drawn.std()) / math.sqrt(len(drawn))
    assert abs(float(drawn.mean()) - expected) < 5 * standard_error
    one = model.elbo(x.expand(4000, -1), seed=4, samples=1)
    # A variance from n draws has the relative standard error √((kurtosis − 1)/n); the kurtosis is
    # at most χ²₁'s 15, which makes 6 % for each of the two and 8.4 % for their ratio.
    ratio = float(drawn.var() / one.var()) * samples
    assert abs(ratio - 1) < 4 * 0.084


def test_importance_weighted_bound_rises_to_the_evidence(
    linear_gaussian: Callable[..., Any],
) -> None:
    """With a wrong posterior E[log p̂_K] grows with K (Burda et al., 2016) up to log p(x)."""
    truth = linear_gaussian((5,), 2, 0.3)
    model, x = truth.build(shift=0.15, stretch=1.4), truth.draw(1)
    exact = float(evidence(truth, x))
    means, errors = [], []
    for samples, repeats in [(1, 4000), (4, 2000), (16, 1000), (64, 400), (3000, 60)]:
        rows = x.expand(repeats, -1)
        drawn = model.log_prob(rows, samples=samples, seed=samples)
        means.append(float(drawn.mean()))
        errors.append(float(drawn.std()) / math.sqrt(repeats))
    one_sample = exact - gap(truth, 0.15, 1.4)
    assert abs(means[0] - one_sample) < 5 * errors[0], "one sample: the ELBO in expectation"
    for lower, higher, *error in zip(means, means[1:], errors, errors[1:], strict=False):
        assert lower < higher + 3 * math.hypot(*error)
    assert all(m < exact + 3 * e for m, e in zip(means, errors, strict=True))
    assert means[1] - means[0] > 3 * math.hypot(errors[0], errors[1]), "it does rise"
    # The bias that is left, Var(w)/2K < 1/6000, is far below three standard errors.
    assert abs(means[-1] - exact) < 3 * errors[-1]


def test_every_sample_is_drawn_anew(linear_gaussian: Callable[..., Any]) -> None:
    """The variance of p̂(x)/p(x) falls as 1/K, however the samples are divided into blocks."""
    truth = linear_gaussian((5,), 2, 0.3)
    model, x = truth.build(shift=0.15, stretch=1.4), truth.draw(1)
    rows = x.expand(400, -1)

    def variance(samples: int) -> float:
        ratio = (model.log_prob(rows, samples=samples, seed=0) - evidence(truth, x)).exp()
        return float(ratio.var())

    # A variance of 400 means, which are near normal, has the relative standard error √(2/400),
    # 7 %, and the ratio of two of them 10 %.
    assert abs(variance(50) / variance(800) / 16 - 1) < 0.5


def test_estimators_report_one_sample_elbo_in_expectation(
    linear_gaussian: Callable[..., Any],
) -> None:
    """``log_prob`` with one sample and ``elbo`` estimate one number, for every item."""
    truth = linear_gaussian((5,), 2, 0.3)
    model, x = truth.build(shift=-0.1, stretch=0.8), truth.draw(4)
    repeats = 1500
    rows = x.repeat_interleave(repeats, 0)
    weighted = model.log_prob(rows, samples=1, seed=1).view(4, repeats)
    bound = model.elbo(rows, seed=2).view(4, repeats)
    standard_error = ((weighted.var(1) + bound.var(1)) / repeats).sqrt()
    assert ((weighted.mean(1) - bound.mean(1)).abs() < 5 * standard_error).all()


@pytest.mark.parametrize("mode", ["mean", "draw"])
def test_samples_have_the_moments_of_the_model(
    linear_gaussian: Callable[..., Any], mode: str
) -> None:
    """Samples have mean m and covariance WWᵀ + σ²I; their means p(x|z) lack the σ²I."""
    truth = linear_gaussian((2, 3), 3, 0.7)
    n = 40_000
    x = truth.build().sample(n, seed=5, mode=mode).flatten(1).numpy()
    covariance = truth.weight @ truth.weight.T
    if mode == "draw":
        covariance = truth.covariance
    variances = np.diag(covariance)
    assert (np.abs(x.mean(0) - truth.mean) < 5 * np.sqrt(variances / n)).all()
    # Wishart: Var(Sᵢⱼ) = (Σᵢⱼ² + Σᵢᵢ Σⱼⱼ) / (n − 1).
    errors = np.sqrt((covariance**2 + np.outer(variances, variances)) / (n - 1))
    assert (np.abs(np.cov(x.T) - covariance) < 5 * errors).all()


def test_reconstruction_is_the_posterior_mean_decoded(
    linear_gaussian: Callable[..., Any],
) -> None:
    """``reconstruct`` is m + W E[z|x], the shrunken projection of probabilistic PCA."""
    truth = linear_gaussian((2, 3), 3, 0.7)
    x = truth.draw(6)
    expected = (truth.posterior_mean(x) @ truth.weight.T + truth.mean).reshape(6, 2, 3)
    found = truth.build().reconstruct(x)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-12)
