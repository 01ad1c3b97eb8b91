"""log p(x|z) with its constants, against SciPy; and what a mask leaves out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit
from torch import Tensor
from torch.distributions import LogNormal, Normal

import sfumato
from sfumato import Context, Likelihood, Model, Split, Splits, SupportError
from sfumato.data import Contract
from sfumato.passes import reduce_log_prob
from sfumato.randomness import BatchNoise
from sfumato.registry import Registry

MEANS = ("reconstruction", "elbo", "nll")
SHAPE = (2, 3)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def decoded(model: Model, z: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What a linear decoder makes of codes, in NumPy."""
    weight, bias = (t.detach().numpy() for t in model.decoder.parameters())
    made = z.numpy() @ weight.T + bias
    return np.asarray(made.reshape(len(z), *SHAPE), dtype=np.float64)


@pytest.fixture
def bernoulli(linear: Callable[..., dict[str, Any]]) -> Model:
    """A linear VAE over 2 x 3 binary values."""
    spec = linear(3, 1.0)
    spec["model"]["likelihood"] = "bernoulli"
    return sfumato.build(spec, SHAPE, "cpu", support="binary")


@pytest.fixture
def gaussian(linear: Callable[..., dict[str, Any]]) -> Model:
    """A linear VAE over 2 x 3 real values with σ = 0.3."""
    return sfumato.build(linear(3, 0.3), SHAPE, "cpu")


def test_bernoulli_density_is_scipys(bernoulli: Model) -> None:
    """A binary datum has log p(x|z) = Σ log Bernoulli(xᵢ; s(θᵢ))."""
    z, x = 2 * draw(50, 3), (draw(50, *SHAPE, seed=1) > 0).double()
    expected = np.sum(stats.bernoulli.logpmf(x.numpy(), expit(decoded(bernoulli, z))), (1, 2))
    found = bernoulli.decode(z).log_prob(x)
    torch.testing.assert_close(found.detach(), torch.tensor(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("logit", [-800.0, -40.0, 0.0, 40.0, 800.0])
def test_bernoulli_density_is_finite_at_any_logit(bernoulli: Model, logit: float) -> None:
    """Logits cross the boundary, so log p = −log(1 + e^∓θ) loses nothing far out."""
    with torch.no_grad():
        for parameter in bernoulli.decoder.parameters():
            parameter.zero_()
        bernoulli.decoder.get_parameter("out.bias").fill_(logit)
    p_x = bernoulli.decode(draw(1, 3))
    ones = torch.ones(1, *SHAPE, dtype=torch.float64)
    zeros = torch.zeros_like(ones)
    assert p_x.log_prob(ones).item() == pytest.approx(-6 * np.logaddexp(0, -logit), rel=1e-12)
    assert p_x.log_prob(zeros).item() == pytest.approx(-6 * np.logaddexp(0, logit), rel=1e-12)


def test_gaussian_density_is_scipys(gaussian: Model) -> None:
    """A real datum has log p(x|z) = Σ log N(xᵢ; θᵢ, 0.3²), with −½ log 2πσ² for every value."""
    z, x = draw(50, 3), draw(50, *SHAPE, seed=1)
    expected = np.sum(stats.norm.logpdf(x.numpy(), decoded(gaussian, z), 0.3), (1, 2))
    found = gaussian.decode(z).log_prob(x)
    torch.testing.assert_close(found.detach(), torch.tensor(expected), rtol=1e-13, atol=0)


def test_gaussian_density_takes_each_values_own_scale(
    linear: Callable[..., dict[str, Any]],
) -> None:
    """With a scale a value, the scale belongs to the value's own place in the datum."""
    model = sfumato.build(linear(3, "learned_per_dimension"), SHAPE, "cpu")
    raw = model.likelihood.get_parameter("raw")
    with torch.no_grad():
        raw.copy_(torch.linspace(0.1, 0.5, 6).view(SHAPE))
    sigma = model.decode(draw(1, 3)).stddev[0].detach().numpy()
    assert (np.diff(sigma.ravel()) > 0).all(), "the parameter has the datum's shape"
    z, x = draw(50, 3), draw(50, *SHAPE, seed=1)
    expected = np.sum(stats.norm.logpdf(x.numpy(), decoded(model, z), sigma), (1, 2))
    found = model.decode(z).log_prob(x)
    torch.testing.assert_close(found.detach(), torch.tensor(expected), rtol=1e-13, atol=0)


@pytest.mark.parametrize("missing", [math.nan, math.inf, 1e30, 0.5])
def test_masked_values_add_nothing(gaussian: Model, missing: float) -> None:
    """For each of K samples log p(x|z) is that of the visible values, whatever stands elsewhere."""
    x, mask = draw(20, *SHAPE), draw(20, *SHAPE, seed=1) > -0.3
    mask[0] = False
    shown = torch.where(mask, x, missing)
    noise = BatchNoise(gaussian.device, gaussian.dtype, 0, "test", 0)
    scope = replace(gaussian.scope(shown, mask=mask.double()), source=noise)
    with torch.no_grad():
        pass_ = gaussian.run(scope, 4)
        for k in range(4):
            values = np.asarray(stats.norm.logpdf(x.numpy(), decoded(gaussian, pass_.z[k]), 0.3))
            expected = np.array([v[m].sum() for v, m in zip(values, mask.numpy(), strict=True)])
            torch.testing.assert_close(
                pass_.log_px[k], torch.tensor(expected), rtol=1e-12, atol=1e-12
            )
        assert (pass_.log_px[:, 0] == 0).all(), "nothing is visible of the first"


@pytest.mark.parametrize("ask", ["elbo", "log_prob", "terms"])
def test_what_is_missing_is_not_looked_at(gaussian: Model, ask: str) -> None:
    """No figure changes by a bit with what stands at missing values: NaN, or anything."""
    x, mask = draw(20, *SHAPE), (draw(20, *SHAPE, seed=1) > 0).double()
    found = []
    for missing in (0.0, 5.0, math.nan, -math.inf):
        shown = torch.where(mask.bool(), x, missing)
        made = getattr(gaussian, ask)(shown, mask=mask, seed=0, samples=3)
        found.append(made["elbo"] if ask == "terms" else made)
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert found[0].isfinite().all()


def test_missing_values_send_no_gradient(gaussian: Model) -> None:
    """Gradients are finite with NaN under the mask, and those of any other number there."""
    x, mask = draw(20, *SHAPE), (draw(20, *SHAPE, seed=1) > 0).double()
    gradients = []
    for missing in (math.nan, 3.0):
        gaussian.zero_grad()
        shown = torch.where(mask.bool(), x, missing)
        noise = BatchNoise(gaussian.device, gaussian.dtype, 0, "test", 0)
        scope = replace(gaussian.scope(shown, mask=mask), source=noise)
        gaussian(scope).objective.mean().backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in gaussian.parameters() if p.grad is not None])
        )
    assert gradients[0].isfinite().all()
    assert torch.equal(*gradients)


def test_a_masked_sum_is_safe_by_itself() -> None:
    """The sum over visible values has their gradient even where NaN and ∞ reach it."""
    mean = draw(4, *SHAPE).requires_grad_()
    x, mask = draw(4, *SHAPE, seed=1), (draw(4, *SHAPE, seed=2) > 0).double()
    shown = torch.where(mask.bool(), x, math.nan)
    shown[0, 0] = torch.where(mask[0, 0].bool(), x[0, 0], math.inf)
    reduce_log_prob(Normal(mean, 0.5, validate_args=False), shown, mask).sum().backward()
    torch.testing.assert_close(mean.grad, mask * (x - mean.detach()) / 0.25)


def test_training_and_evaluation_never_see_missing_values(
    linear: Callable[..., dict[str, Any]],
) -> None:
    """Two data sets that differ under the mask alone give one training, and one evaluation."""
    spec = linear(2, "learned")
    spec["training"] |= {"epochs": 2, "batch_size": 16}
    x, mask = draw(40, *SHAPE), (draw(40, *SHAPE, seed=1) > 0).double()
    figures, weights = [], []
    for missing in (math.nan, 3.0):
        split = Split(torch.where(mask.bool(), x, missing), mask=mask)
        splits = Splits(split, Contract(shape=SHAPE), test=split)
        model = sfumato.train(spec, splits).model
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
        figures.append(sfumato.evaluate(model, splits, metrics=MEANS).to_json())
    assert torch.equal(*weights)
    assert figures[0] == figures[1]
    assert all(figure["value"] is not None for figure in figures[0]["figures"].values())


def test_only_visible_values_must_lie_in_the_support(bernoulli: Model) -> None:
    """A grey value is refused by the Bernoulli likelihood, but not where it is missing."""
    x = torch.ones(2, *SHAPE)
    x[1, 0, 1] = 0.5
    with pytest.raises(SupportError, match=r"item 1 has x\[0, 1\] = 0.5"):
        bernoulli.elbo(x)
    mask = torch.ones(2, *SHAPE)
    mask[1, 0, 1] = 0
    assert bernoulli.elbo(x, mask=mask).isfinite().all()


class LogNormalLikelihood(Likelihood):
    """Creates log-normal values, whose support is without 0."""

    def __init__(self, context: Context) -> None:  # noqa: ARG002 - every part is offered it
        super().__init__()

    def forward(self, parameters: Tensor) -> LogNormal:
        """Make the distribution of log-medians ``(N, *X)``."""
        return LogNormal(parameters, 0.5, validate_args=False)


def test_missing_values_need_no_place_in_the_support(
    linear: Callable[..., dict[str, Any]], parts: Registry
) -> None:
    """Where 0 is outside the support, what is missing still scores nothing and sends no gradient."""
    parts.register("likelihood", "log_normal", LogNormalLikelihood)
    spec = linear(3, 1.0)
    spec["model"]["likelihood"] = "log_normal"
    model = sfumato.build(spec, SHAPE, "cpu", parts=parts)
    x, mask = draw(20, *SHAPE).exp(), draw(20, *SHAPE, seed=1) > 0
    mask[0] = False
    shown = torch.where(mask, x, math.nan)
    assert model.elbo(shown, mask=mask).isfinite().all()
    with pytest.raises(SupportError, match="outside the support"):
        model.elbo(torch.where(mask, x, 0))

    noise = BatchNoise(model.device, model.dtype, 0, "test", 0)
    pass_ = model.run(replace(model.scope(shown, mask=mask), source=noise), 1)
    z = pass_.z[0].detach()
    values = np.asarray(stats.lognorm.logpdf(x.numpy(), 0.5, 0, np.exp(decoded(model, z))))
    expected = torch.tensor(np.where(mask.numpy(), values, 0).sum((1, 2)))
    torch.testing.assert_close(pass_.log_px[0].detach(), expected, rtol=1e-12, atol=1e-12)
    pass_.log_px.sum().backward()
    weight = model.decoder.get_parameter("out.bias").grad
    residual = (x.log() - torch.tensor(decoded(model, z))) / 0.25
    torch.testing.assert_close(weight, torch.where(mask, residual, 0).sum(0).flatten())
