"""Distributions of tensors of one shape are torch's own, in every answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    Laplace,
    Normal,
    kl_divergence,
)

import sfumato
from sfumato import ShapedBernoulli, ShapedNormal

SHAPE = (3, 4)
ANSWERS = ("mean", "mode", "variance", "stddev", "support", "batch_shape", "event_shape")


def drawn(seed: int) -> Tensor:
    """Numbers of some shape, in double precision."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=random, dtype=torch.float64)


PAIRS = [
    (ShapedNormal(drawn(0), drawn(1).exp()), Normal(drawn(0), drawn(1).exp())),
    (ShapedBernoulli(drawn(2)), Bernoulli(logits=drawn(2))),
]


@pytest.mark.parametrize(("ours", "torchs"), PAIRS)
def test_answers_are_torchs(ours: Distribution, torchs: Distribution) -> None:
    """Moments, support, shapes, entropy, densities of values of equal and of broadcast shape."""
    for name in ANSWERS:
        found, wanted = getattr(ours, name), getattr(torchs, name)
        assert torch.equal(found, wanted) if isinstance(wanted, Tensor) else found == wanted
    value = (drawn(3) > 0).double()
    for given in (value, value[0], value.expand(2, *SHAPE)):
        assert torch.equal(ours.log_prob(given), torchs.log_prob(given))
    assert torch.equal(ours.entropy(), torchs.entropy())
    assert torch.equal(ours.expand((2, *SHAPE)).mean, torchs.expand((2, *SHAPE)).mean)
    assert torch.equal(kl_divergence(ours, torchs), torch.zeros(SHAPE, dtype=torch.float64))
    drawings = []
    for distribution in (ours, torchs):
        torch.manual_seed(0)
        drawings.append(distribution.sample((5,)))
    assert torch.equal(*drawings)


def test_probabilities_follow_from_logits() -> None:
    """What torch makes of logits when asked is there too."""
    ours, torchs = PAIRS[1]
    assert torch.equal(ours.probs, torchs.probs)  # type: ignore[attr-defined]
    assert torch.equal(ours.logits, torchs.logits)  # type: ignore[attr-defined]


def standard(shape: tuple[int, ...]) -> Distribution:
    """The prior of a model with codes of that many values."""
    model = sfumato.build({"model": {"family": "vae", "latent_dim": shape[0]}}, (5,), "cpu")
    prior: Any = model.prior
    made: Distribution = prior.to(torch.float64)(model.scope(torch.rand(1, 5)))
    return made


@pytest.mark.parametrize("kind", [Normal, ShapedNormal, Laplace])
def test_divergences_to_the_prior_are_torchs(kind: Any) -> None:
    """The shorter formula for normals gives torch's numbers and gradients; others keep torch's own."""
    p, plain = standard((4,)), Independent(Normal(torch.zeros(4, dtype=torch.float64), 1.0), 1)
    found = []
    for prior in (p, plain):
        mean, log_sigma = drawn(5).requires_grad_(), drawn(6).requires_grad_()
        kl = kl_divergence(Independent(kind(mean, log_sigma.exp()), 1), prior)
        found.append((kl, *torch.autograd.grad(kl.sum(), (mean, log_sigma))))
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
    assert found[0][0].shape == (3,)
