"""Models of known weights, and points that integrate exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sfumato
from sfumato import Model
from sfumato.registry import Registry


def linear_spec(latent_dim: int, sigma: object, family: object = "vae") -> dict[str, Any]:
    """A spec in which encoder and decoder are linear."""
    return {
        "model": {
            "family": family,
            "latent_dim": latent_dim,
            "encoder": {"type": "mlp", "hidden": []},
            "decoder": {"type": "mlp", "hidden": []},
            "likelihood": {"type": "gaussian", "sigma": sigma},
        },
        "training": {"precision": "float64", "device": "cpu"},
    }


class LinearGaussian:
    """p(z) = N(0, I), p(x|z) = N(Wz + m, σ²I), with all that follows from it in closed form.

    The columns of W are orthogonal, as in probabilistic PCA (Tipping & Bishop, 1999), so that the
    exact posterior N(M⁻¹Wᵀ(x − m), σ²M⁻¹), M = WᵀW + σ²I, has a diagonal covariance.
    """

    def __init__(self, data_shape: tuple[int, ...], latent_dim: int, sigma: float) -> None:
        random = np.random.default_rng(0)
        size = math.prod(data_shape)
        basis = np.linalg.qr(random.standard_normal((size, latent_dim)))[0]
        lengths = np.linspace(1.5, 0.5, latent_dim)
        self.data_shape, self.latent_dim, self.sigma = data_shape, latent_dim, sigma
        self.weight = basis * lengths
        self.mean = random.standard_normal(size)
        self.covariance = self.weight @ self.weight.T + sigma**2 * np.eye(size)
        precision = self.weight.T @ self.weight + sigma**2 * np.eye(latent_dim)
        self.gain = np.linalg.solve(precision, self.weight.T)
        self.posterior_sigma = sigma / np.sqrt(np.diag(precision))

    def draw(self, count: int, seed: int = 1) -> Tensor:
        """Items of the model itself."""
        random = np.random.default_rng(seed)
        z = random.standard_normal((count, self.latent_dim))
        noise = self.sigma * random.standard_normal((count, len(self.mean)))
        return torch.tensor((z @ self.weight.T + self.mean + noise).reshape(-1, *self.data_shape))

    def posterior_mean(self, x: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Means of the exact posterior, (n, latent_dim)."""
        centred = x.flatten(1).numpy() - self.mean
        return np.asarray(centred @ self.gain.T, dtype=np.float64)

    def build(self, *, shift: float = 0.0, stretch: float = 1.0, family: object = "vae") -> Model:
        """Its model; the posterior is moved by ``shift`` in every dimension and widened by ``stretch``."""
        spec = linear_spec(self.latent_dim, self.sigma, family)
        model = sfumato.build(spec, self.data_shape, "cpu")
        parameters = dict(model.named_parameters())
        head = np.concatenate([self.gain, np.zeros_like(self.gain)])
        log_sigma = np.log(self.posterior_sigma * stretch)
        bias = np.concatenate([-self.gain @ self.mean + shift, log_sigma])
        with torch.no_grad():
            parameters.pop("posterior.head.weight").copy_(torch.tensor(head))
            parameters.pop("posterior.head.bias").copy_(torch.tensor(bias))
            parameters.pop("decoder.out.weight").copy_(torch.tensor(self.weight))
            parameters.pop("decoder.out.bias").copy_(torch.tensor(self.mean))
        assert not parameters, "the oracle must know every weight"
        return model


@pytest.fixture
def linear_gaussian() -> Callable[..., Any]:
    """The maker of linear-Gaussian models: data shape, latent dimensions, σ."""
    return LinearGaussian


@pytest.fixture
def linear() -> Callable[..., dict[str, Any]]:
    """The maker of linear specs: latent dimensions, σ, family."""
    return linear_spec


@pytest.fixture
def cubature() -> Callable[[int], Callable[..., Tensor]]:
    """A source of noise of 2d points whose average is exact for every quadratic under N(0, I).

    The points ±√d eᵢ, equally weighted, have the mean 0 and the covariance I, so the average of
    a quadratic over them is its expectation, without sampling.
    """

    def make(dim: int) -> Callable[..., Tensor]:
        units = torch.eye(dim, dtype=torch.float64)
        points = math.sqrt(dim) * torch.cat([units, -units])

        def source(shape: Any) -> Tensor:
            assert tuple(shape)[::2] == (2 * dim, dim), "one sample a point"
            return points[:, None].expand(*shape)

        return source

    return make


@pytest.fixture
def parts() -> Registry:
    """A registry of its own, of first-party parts only."""
    return Registry("none")
