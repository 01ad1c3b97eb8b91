"""A nonlinear decoder over binary pixels, small enough to integrate."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, roots_hermitenorm

import sfumato
from sfumato import Model

PIXELS = 10
Array = np.ndarray[Any, np.dtype[np.float64]]


@pytest.fixture(scope="module")
def model() -> Model:
    """A VAE with a tanh decoder, 2 latent dimensions, 10 binary pixels, and known weights."""
    spec = {
        "model": {
            "family": "vae",
            "latent_dim": 2,
            "encoder": {"type": "mlp", "hidden": [8], "activation": "tanh"},
            "decoder": {"type": "mlp", "hidden": [8], "activation": "tanh"},
            "likelihood": "bernoulli",
        },
        "training": {"precision": "float64", "device": "cpu"},
    }
    made = sfumato.build(spec, (PIXELS,), "cpu", support="binary")
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.decoder.parameters():
            drawn = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            parameter.copy_(0.4 * drawn)
    return made


@cache
def patterns() -> Array:
    """All 2¹⁰ data."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=PIXELS)))


def log_evidence(model: Model, nodes: int) -> Array:
    """The log of ∫ p(x|z) N(z; 0, I) dz of all patterns by a Gauss-Hermite product rule, in NumPy."""
    points, weights = roots_hermitenorm(nodes)
    z = np.array(list(itertools.product(points, points)))
    log_weight = np.log(np.outer(weights, weights)).ravel() - math.log(2 * math.pi)
    state = {name: t.numpy() for name, t in model.decoder.state_dict().items()}
    h = np.tanh(z @ state["layers.0.weight"].T + state["layers.0.bias"])
    logits = h @ state["out.weight"].T + state["out.bias"]
    total = np.full(len(patterns()), -np.inf)
    # log p(x|z) = Σ xᵢ aᵢ − log(1 + exp aᵢ)
    normaliser = np.logaddexp(0, logits).sum(1)
    for rows in np.array_split(np.arange(len(z)), max(1, len(z) // 2048)):
        part = patterns() @ logits[rows].T - normaliser[rows] + log_weight[rows]
        total = np.logaddexp(total, logsumexp(part, axis=1))
    return total


@pytest.fixture(scope="module")
def exact(model: Model) -> Array:
    """The exact log p(x) of all patterns."""
    return log_evidence(model, 64)


def test_quadrature_is_an_oracle(model: Model, exact: Array) -> None:
    """64 and 128 nodes agree, and the evidence of all patterns sums to one."""
    assert np.abs(log_evidence(model, 128) - exact).max() < 1e-8
    assert abs(np.exp(exact).sum() - 1) < 1e-6


def test_importance_weights_find_the_evidence(model: Model, exact: Array) -> None:
    """ELBO ≤ IW₁₀ ≤ log p(x), and IW₁₀₀₀ = log p(x), within standard errors."""
    some = np.arange(0, len(exact), 97)
    repeats = 40
    x = torch.tensor(patterns()[some]).repeat_interleave(repeats, 0)

    def estimate(samples: int) -> tuple[Array, Array]:
        drawn = model.log_prob(x, samples=samples, seed=samples).view(len(some), repeats)
        error = drawn.std(1) / math.sqrt(repeats)
        return drawn.mean(1).numpy(), error.numpy()

    bound = model.elbo(x, seed=1).view(len(some), repeats)
    elbo, elbo_error = bound.mean(1).numpy(), bound.std(1).numpy() / math.sqrt(repeats)
    few, few_error = estimate(10)
    many, many_error = estimate(1000)
    # Eleven items: 4.5 standard errors of a t distribution with 39 degrees of freedom, p < 1e-3.
    assert (elbo < few + 4.5 * np.hypot(elbo_error, few_error)).all()
    assert (few < exact[some] + 4.5 * few_error).all()
    # The bias that is left is Var(w)/2K, and the standard error √(Var(w)/(K·repeats)).
    bias = repeats * many_error**2 / 2
    assert (np.abs(many + bias - exact[some]) < 4.5 * many_error).all()
    assert elbo.mean() < exact[some].mean() - 0.01, "the bound of an untrained encoder is loose"


def test_samples_follow_the_evidence(model: Model, exact: Array) -> None:
    """Samples have the frequencies p(x) of the patterns (χ², α = 1e-4)."""
    n = 20_000
    drawn = model.sample(n, seed=2, mode="draw").numpy()
    index = (drawn @ 2.0 ** np.arange(PIXELS)[::-1]).astype(int)
    counts = np.bincount(index, minlength=len(exact))
    expected = n * np.exp(exact)
    rare = expected < 5
    kept = np.append(counts[~rare], counts[rare].sum())
    theory = np.append(expected[~rare], expected[rare].sum())
    statistic = ((kept - theory) ** 2 / theory).sum()
    # Wilson and Hilferty's approximation of the quantile of χ²; 3.72 is the normal quantile.
    freedom = len(kept) - 1
    limit = freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < limit
