"""KL(q(z|x) ‖ p(z)): in closed form, and sampled where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, StudentT, kl_divergence

import sfumato
from sfumato import Context, Density, Model, Posterior, Scope
from sfumato.randomness import BatchNoise
from sfumato.registry import Registry


class StudentPosterior(Posterior):
    """Creates Student's t codes, whose divergence to a normal has no closed form."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.head = nn.Linear(math.prod(context.feature_shape), context.latent_dim)

    def forward(self, features: Tensor, scope: Scope) -> Density:
        """Make the code of ``(B, F)`` features."""
        t = StudentT(5.0, self.head(features), 0.6, validate_args=False)
        return Density(Independent(t, 1, validate_args=False), scope)


@pytest.fixture
def model(linear: Callable[..., dict[str, Any]]) -> Model:
    """A linear VAE with random weights."""
    return sfumato.build(linear(3, 0.5), (5,), "cpu")


@pytest.fixture
def x() -> Tensor:
    """Six data."""
    return torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_divergence_has_its_closed_form(model: Model, x: Tensor) -> None:
    """KL = ½ Σ (σ² + μ² − 1 − 2 log σ), with the head computed by hand."""
    weight, bias = (t.detach().numpy() for t in model.posterior.parameters())
    mean, log_sigma = np.split(x.numpy() @ weight.T + bias, 2, axis=1)
    expected = 0.5 * (np.exp(2 * log_sigma) + mean**2 - 1 - 2 * log_sigma).sum(1)
    found = model.terms(x, seed=0)["kl"]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-12)
    assert torch.equal(found, model.terms(x, seed=1)["kl"]), "no noise enters it"


def test_divergence_agrees_with_torchs_full_covariance_form(model: Model, x: Tensor) -> None:
    """The same divergence as of two multivariate normals, which torch computes in another way."""
    q_z = model.encode(x).dist
    assert isinstance(q_z, Independent)
    full = MultivariateNormal(q_z.mean, torch.diag_embed(q_z.variance))
    eye = torch.eye(3, dtype=torch.float64)
    expected = kl_divergence(full, MultivariateNormal(torch.zeros_like(eye[0]), eye))
    found = model.terms(x, seed=0)["kl"]
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)


def test_divergence_is_the_mean_of_the_sampled_one(model: Model, x: Tensor) -> None:
    """E[log q(z|x) − log p(z)] over samples of q is the closed form, for every item."""
    noise = BatchNoise(model.device, model.dtype, 0, "test", 0)
    with torch.no_grad():
        pass_ = model.run(Scope(x, source=noise), 20_000)
        sampled = pass_.log_q - pass_.log_p
        standard_error = sampled.std(0) / math.sqrt(len(sampled))
        assert ((sampled.mean(0) - pass_.kl()).abs() < 5 * standard_error).all()


def test_divergence_without_a_closed_form_is_sampled(
    linear: Callable[..., dict[str, Any]], parts: Registry, x: Tensor
) -> None:
    """For Student's t codes ``Pass.kl`` estimates what numerical integration finds."""
    parts.register("posterior", "student", StudentPosterior)
    spec = linear(3, 0.5)
    spec["model"]["posterior"] = "student"
    model = sfumato.build(spec, (5,), "cpu", parts=parts)

    def integrand(z: float, loc: float) -> float:
        log_q = stats.t.logpdf(z, 5, loc, 0.6)
        return float(np.exp(log_q) * (log_q - stats.norm.logpdf(z)))

    expected = [
        sum(quad(integrand, -60, 60, args=(loc,), points=[loc], limit=200)[0] for loc in code)
        for code in model.encode(x).mode.tolist()
    ]
    samples = 20_000
    torch.manual_seed(0)
    with torch.no_grad():
        pass_ = model.run(Scope(x), samples)
        standard_error = (pass_.log_q - pass_.log_p).std(0) / math.sqrt(samples)
        # The variance of this ratio is heavy-tailed, so the usual 5 become 6 standard errors.
        assert ((pass_.kl() - torch.tensor(expected)).abs() < 6 * standard_error).all()
    drawn = model.terms(x, seed=0)
    torch.testing.assert_close(drawn["elbo"], -drawn["reconstruction"] - drawn["kl"])
