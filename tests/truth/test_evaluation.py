"""Figures: the same for any batch size, and what their definitions say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import sfumato
from sfumato import Model, Split, Splits
from sfumato.data import Contract
from sfumato.figures import Figure

SHAPE = (2, 3)
MEANS = ("reconstruction", "elbo", "nll")
ITEMS = 1100  # more than are evaluated at once


@pytest.fixture
def model(linear: Callable[..., dict[str, Any]]) -> Model:
    """A linear VAE over 2 x 3 real values."""
    return sfumato.build(linear(2, 0.5), SHAPE, "cpu")


@pytest.fixture
def x() -> Tensor:
    """Data of more items than are evaluated at once."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(ITEMS, *SHAPE, dtype=torch.float64, generator=random)


@pytest.fixture
def splits(x: Tensor) -> Splits:
    """The data as train and test."""
    return Splits(Split(x[:50]), Contract(shape=SHAPE), test=Split(x))


def equal(found: Tensor, expected: Tensor) -> None:
    """Check equality but for rounding: a matrix product rounds by how many rows it has."""
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("samples", [1, 7, 50, 120])
def test_log_prob_does_not_depend_on_the_batch_size(model: Model, x: Tensor, samples: int) -> None:
    """Any number of rows decoded at once gives the same estimate of every item."""
    rows = x[:40]
    whole = model.log_prob(rows, samples=samples, seed=0)
    for batch_size in (1, 50, 333, 100_000):
        equal(model.log_prob(rows, samples=samples, seed=0, batch_size=batch_size), whole)
    different = model.log_prob(rows, samples=samples, seed=1)
    assert not torch.isclose(different, whole, rtol=1e-9).any(), "the seed does matter"


@pytest.mark.parametrize("samples", [1, 9])
@pytest.mark.parametrize("ask", ["elbo", "log_prob"])
def test_a_prefix_is_scored_as_in_the_whole(
    model: Model, x: Tensor, ask: str, samples: int
) -> None:
    """An item's figure depends on its index and the seed, not on the items after it."""
    score = getattr(model, ask)
    whole = score(x, seed=0, samples=samples)
    assert whole.shape == (ITEMS,)
    for count in (1, 30, 1030):
        equal(score(x[:count], seed=0, samples=samples), whole[:count])


def test_equal_items_get_noise_of_their_own(model: Model, x: Tensor) -> None:
    """The same datum at two indices is estimated by two draws, within one chunk and across two."""
    values = model.elbo(x[:1].expand(ITEMS, *SHAPE), seed=0)
    assert len(values.unique()) == ITEMS


def test_terms_make_the_bound(model: Model, x: Tensor) -> None:
    """The ELBO is −reconstruction − kl, and ``Model.elbo`` is that term."""
    terms = model.terms(x, seed=4, samples=3)
    equal(terms["elbo"], -terms["reconstruction"] - terms["kl"])
    assert torch.equal(model.elbo(x, seed=4, samples=3), terms["elbo"])


def test_evaluating_leaves_the_model_as_it_was(model: Model, x: Tensor) -> None:
    """A model in training mode is evaluated out of it, put back, and no weight changes."""
    before = {name: t.clone() for name, t in model.state_dict().items()}
    model.train()
    model.elbo(x[:3])
    model.log_prob(x[:3], samples=2)
    model.sample(2)
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_figures_are_means_with_their_standard_errors(
    model: Model, x: Tensor, splits: Splits
) -> None:
    """Every figure is the mean over items, with standard error s/√n, s with n − 1 (SciPy's sem)."""
    figures = sfumato.evaluate(model, splits, metrics=MEANS, seed=3).figures
    terms = model.terms(x, seed=3)
    per_item = {
        "reconstruction": terms["reconstruction"],
        "kl": terms["kl"],
        "elbo": terms["elbo"],
        "nll": -model.log_prob(x, samples=100, seed=3),
        "mse": (model.reconstruct(x) - x).square().mean((1, 2)),
    }
    assert set(figures) == {*per_item, "ess"}
    for name, values in per_item.items():
        found = figures[name]
        assert found.undefined is None
        assert found.value == pytest.approx(float(np.mean(values.numpy())), rel=1e-12)
        assert found.standard_error == pytest.approx(float(stats.sem(values.numpy())), rel=1e-12)


def test_directions_and_units_are_stated(model: Model, splits: Splits) -> None:
    """A density is better when higher, a loss when lower, and a rate is neither."""
    figures = sfumato.evaluate(model, splits, metrics=MEANS).figures
    better = {name: figure.better for name, figure in figures.items()}
    assert better == {
        "reconstruction": "lower",
        "mse": "lower",
        "elbo": "higher",
        "kl": None,
        "nll": "lower",
        "ess": None,
    }
    nats = {f.unit for n, f in figures.items() if n not in ("mse", "ess")}
    assert nats == {"nats per item"}
    assert all(figure.definition and figure.source for figure in figures.values())


def test_mse_counts_visible_values_alone(model: Model, x: Tensor) -> None:
    """With a mask, an item's error is averaged over the values that it has."""
    rows, mask = x[:30], (x[30:60] > 0).double()
    mask[:, 0, 0] = 1
    contract = Contract(shape=SHAPE)
    splits = Splits(Split(rows), contract, test=Split(rows.masked_fill(mask == 0, 9), mask=mask))
    seen = rows * mask
    squared = (model.reconstruct(seen) - seen).square().numpy()
    expected = [s[m > 0].mean() for s, m in zip(squared, mask.numpy(), strict=True)]
    figures = sfumato.evaluate(model, splits, metrics=["reconstruction"]).figures
    assert figures["mse"].value == pytest.approx(np.mean(expected), rel=1e-12)


def test_an_autoencoder_has_no_density(
    linear: Callable[..., dict[str, Any]], splits: Splits
) -> None:
    """ELBO, KL and NLL of a model whose code is a point are not defined, and never 0."""
    model = sfumato.build(linear(2, 0.5, "ae"), SHAPE, "cpu")
    figures = sfumato.evaluate(model, splits).figures
    for name in ("elbo", "kl", "nll"):
        assert figures[name].value is None
        assert figures[name].standard_error is None
        assert figures[name].undefined
    for name in ("reconstruction", "mse"):
        assert figures[name].value is not None


def test_a_mean_over_something_infinite_is_undefined() -> None:
    """One item without a finite value leaves the figure undefined, and says how many."""
    values = torch.tensor([1.0, math.inf, math.nan])
    figure = Figure.of_items(values, "nats per item", "lower", "")
    assert (figure.value, figure.standard_error) == (None, None)
    assert figure.undefined == "not finite for 2 of 3 items"


def test_one_item_has_no_standard_error() -> None:
    """The spread of one value is not known, so it is not reported as 0."""
    figure = Figure.of_items(torch.tensor([2.5]), "nats per item", "lower", "")
    assert (figure.value, figure.standard_error) == (2.5, None)
