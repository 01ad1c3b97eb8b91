"""The scale of the normal likelihood: learned, optimal, and bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import sfumato
from sfumato import Context, Scope
from sfumato.interfaces import report
from sfumato_likelihoods.gaussian import GaussianLikelihood

SHAPE = (2, 3)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def likelihood(**options: Any) -> GaussianLikelihood:
    """A likelihood of 2 x 3 values in float64."""
    return GaussianLikelihood(Context(data_shape=SHAPE, latent_dim=2), **options).double()


def residuals() -> tuple[Tensor, Tensor, Tensor]:
    """Means, data whose residuals differ between values, and a mask."""
    means = draw(60, *SHAPE)
    spread = torch.linspace(0.1, 0.6, 6, dtype=torch.float64).view(SHAPE)
    return means, means + spread * draw(60, *SHAPE, seed=1), draw(60, *SHAPE, seed=2) > -0.5


def settle(part: GaussianLikelihood, means: Tensor, x: Tensor) -> None:
    """Maximise the likelihood over the scale alone, by a method that follows curvature."""
    optimiser = torch.optim.LBFGS(
        part.parameters(), lr=0.2, max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        nll: Tensor = -part(means, Scope()).log_prob(x).mean()
        nll.backward()
        return nll

    optimiser.step(closure)


@pytest.mark.parametrize("masked", [False, True])
def test_optimal_scale_is_where_the_gradient_vanishes(*, masked: bool) -> None:
    """The fitted σ is the RMS residual of what is visible, over batches of any size."""
    means, x, mask = residuals()
    part = likelihood(sigma="optimal")
    rows = [slice(0, 7), slice(7, 50), slice(50, 60)]
    part.fit(((means[r], x[r], mask[r] if masked else None) for r in rows), 3)
    visible = mask if masked else torch.ones_like(mask)
    expected = (x - means)[visible].square().mean().sqrt()
    torch.testing.assert_close(part.sigma, expected, rtol=1e-12, atol=0)

    log_sigma = part.sigma.log().requires_grad_()
    log_px = Normal(means[visible], log_sigma.exp()).log_prob(x[visible]).mean()
    (gradient,) = torch.autograd.grad(log_px, log_sigma)
    assert abs(gradient.item()) < 1e-12


def test_optimal_scale_is_fitted_on_the_training_set() -> None:
    """After training an autoencoder σ² is the mean squared error of its reconstructions."""
    x = draw(50, *SHAPE)
    spec = {
        "model": {
            "family": "ae",
            "latent_dim": 2,
            "likelihood": {"type": "gaussian", "sigma": "optimal"},
        },
        "training": {"epochs": 3, "batch_size": 16, "precision": "float64", "device": "cpu"},
    }
    run = sfumato.train(spec, {"train": x})
    error = (run.model.reconstruct(x) - x).square().mean().sqrt()
    sigma = run.model.decode(torch.zeros(1, 2)).stddev.unique()
    torch.testing.assert_close(sigma.squeeze(), error, rtol=1e-9, atol=0)
    assert run.metrics[-1]["parts"]["likelihood.sigma"] == pytest.approx(error.item(), rel=1e-9)


@pytest.mark.parametrize("sigma", ["learned", "learned_per_dimension"])
def test_learned_scale_starts_at_the_residuals(sigma: str) -> None:
    """Before the first epoch a learned σ is set to the RMS residual, and not again after it."""
    means, x, _ = residuals()
    part = likelihood(sigma=sigma)
    part.fit([(means, x, None)], 0)
    rms = (x - means).square().mean().sqrt()
    torch.testing.assert_close(part.sigma.detach(), rms.expand_as(part.sigma))
    part.fit([(means, 9 * x, None)], 1)
    torch.testing.assert_close(part.sigma.detach(), rms.expand_as(part.sigma))


@pytest.mark.parametrize(("sigma", "taken"), [("learned", 2), ("optimal", 5)])
def test_a_learned_scale_starts_from_the_first_items(
    monkeypatch: pytest.MonkeyPatch, sigma: str, taken: int
) -> None:
    """It need not wait for a pass over all of large data; an optimal scale is that of all."""
    monkeypatch.setattr("sfumato_likelihoods.gaussian._ENOUGH", 15)
    means, x, _ = residuals()
    part = likelihood(sigma=sigma)
    read: list[int] = []

    def runs() -> Iterator[tuple[Tensor, Tensor, None]]:
        for number in range(5):
            read.append(number)
            yield means[:10], (1 + number) * x[:10], None

    part.fit(runs(), 0)
    assert len(read) == taken
    squares = [((1 + n) * x[:10] - means[:10]).square().mean() for n in range(taken)]
    rms = torch.stack(squares).mean().sqrt()
    torch.testing.assert_close(part.sigma.detach(), rms.expand_as(part.sigma))


def test_learned_scale_settles_at_the_rms_residual() -> None:
    """Gradient descent on one σ ends where the optimal σ is."""
    means, x, _ = residuals()
    part = likelihood(sigma="learned")
    settle(part, means, x)
    torch.testing.assert_close(part.sigma.detach(), (x - means).square().mean().sqrt())


def test_learned_scales_settle_each_at_its_own_residual() -> None:
    """With one σ a value, each ends at the RMS residual of its own value."""
    means, x, _ = residuals()
    part = likelihood(sigma="learned_per_dimension")
    settle(part, means, x)
    expected = (x - means).square().mean(0).sqrt()
    assert part.sigma.shape == SHAPE
    torch.testing.assert_close(part.sigma.detach(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("sigma", ["learned", "learned_per_dimension", "optimal"])
def test_scale_never_falls_below_its_minimum(sigma: str) -> None:
    """Perfect reconstruction leaves σ at σ_min, finite, and that is reported."""
    means = draw(60, *SHAPE)
    part = likelihood(sigma=sigma, sigma_min=0.02)
    part.fit([(means, means, None)], 0)
    if sigma != "optimal":
        settle(part, means, means)
    assert (part.sigma >= 0.02).all()
    assert (part.sigma < 0.02 * 1.05).all()
    assert len(part.warnings()) == 1
    count = 6 if sigma == "learned_per_dimension" else 1
    assert f"minimum 0.02 in {count} of {count} scales" in part.warnings()[0]


def test_scale_above_its_minimum_is_not_reported() -> None:
    """No sentence is said of a scale that its bound does not hold."""
    means, x, _ = residuals()
    for sigma in ("learned", "learned_per_dimension", "optimal"):
        part = likelihood(sigma=sigma)
        part.fit([(means, x, None)], 0)
        assert part.warnings() == []
    assert likelihood(sigma=1e-4).warnings() == [], "a fixed scale is the user's own"


def test_a_run_reports_a_minimum_that_binds(linear: Callable[..., dict[str, Any]]) -> None:
    """Constant data drive σ to its bound, and the run says so."""
    spec = linear(1, "optimal")
    spec["model"]["likelihood"]["sigma_min"] = 0.5
    spec["training"]["epochs"] = 1
    run = sfumato.train(spec, {"train": 0.1 * draw(64, *SHAPE)})
    assert run.metrics[-1]["parts"]["likelihood.sigma"] > 0.5, "an untrained model misses"
    spec["training"] |= {"epochs": 150, "optimizer": {"type": "adam", "lr": 0.05}}
    run = sfumato.train(spec, {"train": 0.1 * draw(64, *SHAPE)})
    assert run.metrics[-1]["parts"]["likelihood.sigma"] == 0.5
    assert [w.split(":")[0] for w in run.warnings] == [
        "sigma is at its minimum 0.5 in 1 of 1 scales"
    ]


@pytest.mark.parametrize("value", [0.3, 1e-3, 7.0])
def test_a_fixed_scale_is_the_one_asked_for(
    linear: Callable[..., dict[str, Any]], value: float
) -> None:
    """A fixed σ is exact in the model's precision, and no parameter."""
    model = sfumato.build(linear(2, value), SHAPE, "cpu")
    assert (model.decode(torch.zeros(1, 2)).stddev == value).all()
    assert not list(model.likelihood.parameters())
    assert report(model.likelihood)["sigma"].item() == value
