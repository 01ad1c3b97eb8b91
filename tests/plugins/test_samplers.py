"""Samplers: the prior, a mixture fitted to codes, and the codes of the training items."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.distributions import MultivariateNormal

import sfumato
from sfumato import DataError, MissingExtraError, Model, Split


class Codes(Model):
    """A model whose codes are given."""

    def give(self, z: Tensor, sigma: Tensor | None = None) -> Codes:
        """Codes of the items: points, or normals."""
        self.z, self.sigma = z, sigma
        return self

    def infer(self, scope: sfumato.Scope) -> sfumato.Code:
        """The codes of the rows that ``x`` numbers."""
        assert scope.x is not None
        rows = scope.x[:, 0].long()
        if self.sigma is None:
            return sfumato.Point(self.z[rows])
        base = torch.distributions.Normal(self.z[rows], self.sigma[rows])
        return sfumato.Density(torch.distributions.Independent(base, 1), scope)


@pytest.fixture
def given() -> Callable[..., tuple[Codes, Split]]:
    """Makes a model with given codes, and the items that have them."""

    def make(
        z: Tensor, sigma: Tensor | None = None, condition: Tensor | None = None
    ) -> tuple[Codes, Split]:
        family = "ae" if sigma is None else "vae"
        spec = {"model": {"family": family, "latent_dim": z.shape[1]},
                "training": {"precision": "float64"}}  # fmt: skip
        width = 0 if condition is None else condition.shape[1]
        model = sfumato.build(spec, data_shape=(2,), device="cpu", condition_dim=width)
        model.__class__ = Codes
        assert isinstance(model, Codes)
        x = torch.stack([torch.arange(len(z)), torch.zeros(len(z))], 1).double()
        return model.give(z, sigma), Split(x, condition=condition)

    return make


def three(n: int = 3000, seed: int = 0) -> Tensor:
    """Points of three normals with full covariances, in the plane."""
    random = np.random.default_rng(seed)
    parts = []
    normals: tuple[tuple[list[float], list[list[float]]], ...] = (
        ([0, 0], [[1, 0.8], [0.8, 1]]),
        ([6, 0], [[0.2, 0], [0, 2]]),
        ([0, 6], [[1, -0.5], [-0.5, 0.5]]),
    )
    for mean, covariance in normals:
        parts.append(random.multivariate_normal(mean, covariance, n // 3))
    return torch.tensor(np.concatenate(parts))


def log_density(sampler: Any, z: Tensor) -> Tensor:
    """The log-density of a fitted mixture."""
    normals = MultivariateNormal(sampler.means, scale_tril=sampler.factors)
    joint: Tensor = normals.log_prob(z[:, None]) + sampler.weights.log()
    return joint.logsumexp(1)


def test_mixture_is_that_of_expectation_maximisation(given: Callable[..., Any]) -> None:
    """Its likelihood of fresh codes is scikit-learn's own best, within the difference's standard error."""
    model, split = given(three())
    sampler: Any = sfumato.fit_sampler(model, split, {"type": "gmm", "components": 3})
    fresh = three(seed=1)
    theirs = GaussianMixture(3, n_init=5, random_state=0).fit(three().numpy())
    gap = log_density(sampler, fresh).numpy() - theirs.score_samples(fresh.numpy())
    assert abs(gap.mean()) < 5 * gap.std() / math.sqrt(len(gap)) + 1e-6
    assert sampler.weights.sum() == pytest.approx(1)


def test_mixture_draws_what_it_was_fitted_to(given: Callable[..., Any]) -> None:
    """Mean, covariance and the share near each centre of 30,000 draws are those of the codes."""
    z = three()
    model, split = given(z)
    sampler = sfumato.fit_sampler(model, split, {"type": "gmm", "components": 3})
    torch.manual_seed(0)
    drawn = sampler(30_000, sfumato.Scope())
    error = z.std(0) / math.sqrt(len(z))
    assert ((drawn.mean(0) - z.mean(0)).abs() < 5 * error).all()
    torch.testing.assert_close(drawn.T.cov(), z.T.cov(), rtol=0.08, atol=0.08)
    for centre in ([0, 0], [6, 0], [0, 6]):
        near = ((drawn - torch.tensor(centre)).norm(dim=1) < 2).double().mean()
        wanted = ((z - torch.tensor(centre)).norm(dim=1) < 2).double().mean()
        assert float(near) == pytest.approx(float(wanted), abs=0.02)


def test_mixture_is_fitted_to_draws_of_densities(given: Callable[..., Any]) -> None:
    """Where codes are densities their width counts: a single normal has the variance of mean plus width."""
    z = torch.randn(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([[2.0, 0.5]], dtype=torch.float64).expand(4000, 2)
    model, split = given(z, sigma)
    sampler: Any = sfumato.fit_sampler(model, split, {"type": "gmm", "components": 1})
    covariance = sampler.factors[0] @ sampler.factors[0].T
    assert covariance.diagonal().tolist() == pytest.approx([1 + 4, 1 + 0.25], rel=0.1)


def test_mixture_of_few_or_equal_codes(given: Callable[..., Any]) -> None:
    """Equal codes give narrow normals; more normals than codes, and flat ones, are refused with a remedy."""
    model, split = given(torch.zeros(5, 2, dtype=torch.float64))
    sampler: Any = sfumato.fit_sampler(model, split, {"type": "gmm", "components": 5})
    assert sampler(3, sfumato.Scope()).abs().max() < 0.1
    with pytest.raises(DataError, match="10 normals cannot be fitted to 5 codes"):
        sfumato.fit_sampler(model, split, "gmm")
    flat = {"type": "gmm", "components": 2, "regularization": 0.0}
    with pytest.raises(DataError, match="no mixture of 2 normals fits 5 codes"):
        sfumato.fit_sampler(model, split, flat)


def test_mixture_does_not_depend_on_the_scale_of_codes(given: Callable[..., Any]) -> None:
    """Codes a thousand times smaller, and moved, have the same mixture on their scale."""
    z = three(300)
    asked = {"type": "gmm", "components": 3}
    model, split = given(z)
    one: Any = sfumato.fit_sampler(model, split, asked)
    small, split = given(1e-3 * z + 7)
    other: Any = sfumato.fit_sampler(small, split, asked)
    torch.testing.assert_close(other.means, 1e-3 * one.means + 7)
    torch.testing.assert_close(other.factors, 1e-3 * one.factors)
    torch.testing.assert_close(other.weights, one.weights)


def test_mixture_without_its_package_says_what_to_install(
    given: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the command, and no traceback of an import."""
    model, split = given(three(30))
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(MissingExtraError, match="sampler gmm needs sklearn") as caught:
        sfumato.fit_sampler(model, split, "gmm")
    assert caught.value.hint == "pip install 'sfumato[metrics]'"
    assert caught.value.exit_code == 3


def test_aggregate_posterior_replays_points(given: Callable[..., Any]) -> None:
    """Of points it draws the very codes of items, each about as often as the others."""
    z = torch.arange(10, dtype=torch.float64)[:, None].repeat(1, 2)
    model, split = given(z)
    sampler = sfumato.fit_sampler(model, split, "aggregate_posterior")
    torch.manual_seed(0)
    drawn = sampler(5000, sfumato.Scope())
    counts = torch.bincount(drawn[:, 0].long(), minlength=10)
    assert drawn.equal(drawn.round())
    assert ((counts - 500).abs() < 5 * math.sqrt(5000 * 0.1 * 0.9)).all()


def test_aggregate_posterior_is_the_mixture_of_posteriors(given: Callable[..., Any]) -> None:
    """Its variance is that of the means plus the mean of the variances, dimension by dimension."""
    z = torch.tensor([[0.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    sigma = torch.tensor([[1.0, 2.0], [3.0, 2.0]], dtype=torch.float64)
    model, split = given(z, sigma)
    sampler = sfumato.fit_sampler(model, split, "aggregate_posterior")
    torch.manual_seed(0)
    drawn = sampler(40_000, sfumato.Scope())
    assert drawn.var(0).tolist() == pytest.approx([4 + 5, 4], rel=0.04)
    assert drawn.mean(0).tolist() == pytest.approx([2, 0], abs=0.08)


def test_aggregate_posterior_keeps_to_the_condition(given: Callable[..., Any]) -> None:
    """Codes are of items with the condition asked for, or else with the nearest one."""
    z = torch.arange(6, dtype=torch.float64)[:, None]
    condition = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1, 2]]
    model, split = given(z, condition=condition)
    sampler = sfumato.fit_sampler(model, split, "aggregate_posterior")
    asked = torch.eye(3, dtype=torch.float64)[[0, 2, 1, 0]].repeat(50, 1)
    drawn = sampler(200, sfumato.Scope(condition=asked))[:, 0]
    assert torch.equal(drawn % 3, asked.argmax(1).double())
    assert set(drawn.tolist()) == set(range(6))
    near = torch.tensor([[0.1, 0.8, 0.0]], dtype=torch.float64)
    assert float(sampler(1, sfumato.Scope(condition=near))) in (1.0, 4.0)


def test_prior_sampler_draws_as_no_sampler_does() -> None:
    """Naming the prior changes nothing."""
    model = sfumato.build({"model": {"family": "vae"}}, data_shape=(3,), device="cpu")
    split = Split(torch.randn(8, 3))
    sampler = sfumato.fit_sampler(model, split, "prior")
    assert model.sample(5, seed=1).equal(model.sample(5, seed=1, sampler=sampler))
    assert sampler.state_dict() == {}
