"""Trained linear VAEs against probabilistic PCA, whose likelihood they cannot exceed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

import sfumato
from sfumato import Scope


class Ppca(NamedTuple):
    """The maximum of the likelihood of probabilistic PCA."""

    sigma2: float
    log_px: float
    weight: np.ndarray[Any, np.dtype[np.float64]]


def ppca(x: Tensor, latent_dim: int) -> Ppca:
    """σ² = mean of the discarded eigenvalues; W = U (Λ − σ²I)^½ (Tipping & Bishop, 1999)."""
    values = x.flatten(1).numpy()
    spectrum, basis = np.linalg.eigh(np.cov(values.T, bias=True))
    spectrum, basis = spectrum[::-1], basis[:, ::-1]
    size, kept = len(spectrum), spectrum[:latent_dim]
    sigma2 = spectrum[latent_dim:].mean()
    log_det = np.log(kept).sum() + (size - latent_dim) * math.log(sigma2)
    log_px = -0.5 * (size * math.log(2 * math.pi) + log_det + size)
    return Ppca(sigma2, log_px, basis[:, :latent_dim] * np.sqrt(kept - sigma2))


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """The first 1,500 digits in [0, 1], (1500, 1, 8, 8)."""
    images = load_digits().images[:1500] / 16
    return torch.tensor(images, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("latent_dim", [2, 8, 16])
def test_closed_form_is_the_recorded_anchor(digits: Tensor, shared: Path, latent_dim: int) -> None:
    """The closed form here gives the numbers that were computed elsewhere."""
    anchors = json.loads((shared / "anchors" / "anchors.json").read_text(encoding="utf-8"))
    anchor = anchors["digits_div16_ppca_first1500_last297"][str(latent_dim)]
    found = ppca(digits, latent_dim)
    assert found.log_px == pytest.approx(anchor["loglik_train"], abs=1e-9)
    assert found.sigma2 == pytest.approx(anchor["sigma2"], rel=1e-10)


@pytest.mark.parametrize(("latent_dim", "epochs"), [(2, 60), (8, 300)])
def test_linear_vae_learns_probabilistic_pca(
    linear: Callable[..., dict[str, Any]],
    cubature: Callable[..., Any],
    digits: Tensor,
    latent_dim: int,
    epochs: int,
) -> None:
    """Training ends within 0.05 nat of pPCA's likelihood, at its σ², with its axes (Lucas et al., 2019).

    The ELBO of a linear model is a quadratic in the noise, so its expectation is exact.
    """
    spec = linear(latent_dim, "learned")
    spec["training"] |= {
        "epochs": epochs,
        "batch_size": 100,
        "optimizer": {"type": "adam", "lr": 0.03},
        "schedule": "cosine",
        "precision": "float32",
    }
    model = sfumato.train(spec, {"train": digits.float()}).model.double()
    best = ppca(digits, latent_dim)
    model.loss.samples = 2 * latent_dim
    with torch.no_grad():
        found = model(Scope(digits, source=cubature(latent_dim))).terms["elbo"].mean().item()
    assert best.log_px - 0.05 < found < best.log_px, f"{best.log_px - found:.4f} nats below"
    sigma = model.decode(torch.zeros(1, latent_dim)).stddev.mean().item()
    assert sigma**2 == pytest.approx(best.sigma2, rel=0.01)
    # Up to order and sign the optimum is unique: other rotations of W pay for a diagonal q.
    weight = model.decoder.get_parameter("out.weight").detach().numpy()
    columns = weight / np.linalg.norm(weight, axis=0)
    assert np.abs(columns.T @ columns - np.eye(latent_dim)).max() <= 0.1
    bases = np.linalg.qr(weight)[0].T @ np.linalg.qr(best.weight)[0]
    cosines = np.linalg.svd(bases, compute_uv=False)
    assert cosines.min() > 0.999, "they span the principal subspace"
