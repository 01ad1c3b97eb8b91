"""A missing value contributes nothing, whatever the likelihood: core applies the mask, not the parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfumato import Context, Likelihood, Model, Scope
from sfumato.assembly import assemble
from sfumato.data import Contract
from sfumato.randomness import ItemNoise
from sfumato.registry import Registry, registry
from sfumato.resolve import load_spec

SHAPE = (2, 3)
OURS = [e.name for e in registry.of_kind("likelihood") if e.distribution == "sfumato"]


class Poisson(Likelihood):
    """Counts, whose support leaves out the 0.5 and the −1 that may stand under a mask."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        assert context.support == "count"

    def forward(self, parameters: Tensor, scope: Scope) -> torch.distributions.Distribution:
        """Make the distribution of log-rates ``(N, *X)``."""
        del scope
        return torch.distributions.Poisson(parameters.exp(), validate_args=False)


class Categorical(Likelihood):
    """Symbols; a number that is none would index out of the table."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.symbols = context.vocabulary or 0

    def param_shape(self, context: Context) -> tuple[int, ...]:
        """One logit a symbol."""
        return (*context.data_shape, self.symbols)

    def forward(self, parameters: Tensor, scope: Scope) -> torch.distributions.Distribution:
        """Make the distribution of logits ``(N, *X, vocabulary)``."""
        del scope
        return torch.distributions.Categorical(logits=parameters, validate_args=False)


def model_of(likelihood: Any, support: str) -> Model:
    """A VAE in double precision whose data have masks."""
    parts = Registry("none").extended(
        {("likelihood", "poisson"): Poisson, ("likelihood", "categorical"): Categorical}
    )
    spec = {
        "model": {"family": "vae", "latent_dim": 2, "likelihood": likelihood},
        "training": {"precision": "float64", "device": "cpu"},
    }
    vocabulary = 5 if support == "token" else None
    contract = Contract.model_validate(
        {"shape": SHAPE, "support": support, "vocabulary": vocabulary, "masked": True}
    )
    return assemble(load_spec(spec, parts=parts), contract, "cpu", parts=parts)


SUPPORTS = {"bernoulli": "binary", "gaussian": "real", "poisson": "count", "categorical": "token"}
MODELS = {name: model_of(name, SUPPORTS[name]) for name in SUPPORTS}
MODELS["gaussian per dimension"] = model_of(
    {"type": "gaussian", "sigma": "learned_per_dimension"}, "real"
)


def test_every_likelihood_of_ours_is_tried() -> None:
    """A new one must be added above."""
    assert set(OURS) <= set(MODELS)


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, Tensor, float]:
    """A seed for the data, a mask of three items, and what stands where a value is missing."""
    entries = st.lists(st.booleans(), min_size=18, max_size=18)
    mask = torch.tensor(draw(entries)).view(3, *SHAPE)
    garbage = st.sampled_from([float("nan"), float("inf"), -1.0, 0.5, 1e30, 4.0])
    return draw(st.integers(0, 2**31)), mask, draw(garbage)


def items(model: Model, seed: int) -> Tensor:
    """Three items in the support."""
    random = torch.Generator().manual_seed(seed)
    if model.contract.support == "real":
        return torch.randn(3, *SHAPE, generator=random, dtype=torch.float64)
    top = {"binary": 2, "count": 9, "token": 5}[model.contract.support]
    return torch.randint(top, (3, *SHAPE), generator=random).double()


@pytest.mark.parametrize("name", MODELS)
@given(case=cases())
@settings(max_examples=25, deadline=None)
def test_missing_values_contribute_nothing(name: str, case: tuple[int, Tensor, float]) -> None:
    """The log-likelihood sums what counts alone, and neither it nor any gradient knows what is hidden."""
    model, (seed, mask, garbage) = MODELS[name], case
    x = items(model, seed)
    tokens = model.contract.support == "token"
    if tokens and not 0 <= garbage < 5:
        garbage = 4.0
    hidden = torch.where(mask, x, garbage)
    shown = [hidden.long(), x.long()] if tokens else [hidden, x]
    found = []
    for rows in shown:
        noise = ItemNoise(model.device, model.dtype, 0, "masks", 0)
        scope = replace(model.scope(rows, mask=mask), source=noise)
        pass_ = model.run(scope, 2)
        model.zero_grad()
        (pass_.log_px.sum() - pass_.kl().sum()).backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        each = pass_.p_x.log_prob(shown[1].repeat(2, 1, 1)).view(2, 3, *SHAPE)
        expected = torch.stack(
            [torch.stack([v[m].sum() for v, m in zip(k, mask, strict=True)]) for k in each]
        )
        torch.testing.assert_close(pass_.log_px, expected)
        found.append((pass_.log_px.detach(), gradients))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0)
    for first, second in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_an_item_of_nothing_but_missing_values_has_likelihood_one(name: str) -> None:
    """Its ELBO is minus its divergence."""
    model = MODELS[name]
    x = items(model, 0)
    rows = x.long() if model.contract.support == "token" else x
    mask = torch.ones(3, *SHAPE)
    mask[1] = 0
    terms = model.terms(rows, mask=mask, seed=0)
    assert terms["reconstruction"][1] == 0
    torch.testing.assert_close(terms["elbo"][1], -terms["kl"][1])
    assert terms["reconstruction"][0] != 0
