"""Samplers: other sources of codes than the prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato import (
    Context,
    Incompatible,
    Model,
    PluginError,
    Sampler,
    SpecError,
    Split,
    fit_sampler,
    train,
)
from sfumato.registry import Registry

Tiny = Callable[..., dict[str, Any]]


class Moments(Sampler):
    """A normal with the moments of the codes, shrunk."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, context: Context, *, shrink: float = 1.0) -> None:
        super().__init__()
        self.shrink = shrink
        self.register_buffer("mean", torch.zeros(context.z_shape))
        self.register_buffer("deviation", torch.ones(context.z_shape))

    def fit(self, model: Model, split: Split, seed: int) -> None:
        """Learn the moments, in evaluation mode and without gradients."""
        assert not model.training
        assert not torch.is_grad_enabled()
        codes = model.encode(split.x, seed=seed).mode
        self.mean.copy_(codes.mean(0))
        self.deviation.copy_(codes.std(0) * self.shrink)

    def forward(self, n: int) -> Tensor:
        """Draw codes."""
        return self.mean + self.deviation * torch.randn(n, *self.mean.shape)


@pytest.fixture
def fitted(parts: Registry, tiny: Tiny, grey: Tensor) -> Callable[..., tuple[Model, Sampler]]:
    """Fits ``Moments`` to an autoencoder: ``fitted(**options)``."""
    parts.register("sampler", "moments", Moments)
    model = train(tiny("ae"), grey, parts=parts).model

    def fit(**options: Any) -> tuple[Model, Sampler]:
        sampler = fit_sampler(model, Split(grey), {"type": "moments", **options}, parts=parts)
        return model, sampler

    return fit


def test_an_autoencoder_generates_from_a_fitted_sampler(
    fitted: Callable[..., tuple[Model, Sampler]], grey: Tensor
) -> None:
    """With nothing to spare a sampler draws the mean code, whose decoding is the one to compare with."""
    model, sampler = fitted(shrink=0.0)
    made = model.sample(3, sampler=sampler, seed=0)
    centre = model.encode(grey).mode.mean(0)
    torch.testing.assert_close(made, model.decode(centre.expand(3, -1)).mean)
    assert not made.equal(model.sample(3, seed=0))


def test_a_seed_fixes_what_a_sampler_draws(fitted: Callable[..., tuple[Model, Sampler]]) -> None:
    """Draws come from the keyed global generator."""
    model, sampler = fitted()
    first = model.sample(3, sampler=sampler, seed=1)
    assert first.equal(model.sample(3, sampler=sampler, seed=1))
    assert not first.equal(model.sample(3, sampler=sampler, seed=2))


def test_a_fit_leaves_the_model_as_it_was(
    fitted: Callable[..., tuple[Model, Sampler]], parts: Registry, grey: Tensor
) -> None:
    """It runs in evaluation mode, and a model that was training trains on."""
    model, _ = fitted()
    model.train()
    before = torch.random.get_rng_state()
    fit_sampler(model, Split(grey), "moments", parts=parts)
    assert model.training
    assert before.equal(torch.random.get_rng_state())


def test_a_sampler_that_is_none_or_does_not_fit_is_refused(
    fitted: Callable[..., tuple[Model, Sampler]], parts: Registry, grey: Tensor
) -> None:
    """An unknown name, a wrong option, no fit, and codes of another shape."""
    model, _ = fitted()
    for raw in ("momenst", {"type": "moments", "shrnk": 1.0}):
        with pytest.raises(SpecError):
            fit_sampler(model, Split(grey), raw, parts=parts)
    parts.register("sampler", "none", torch.nn.Identity)
    with pytest.raises(PluginError, match="fit"):
        fit_sampler(model, Split(grey), "none", parts=parts)

    class Wide(Moments):
        def forward(self, n: int) -> Tensor:
            return torch.zeros(n, 7)

    parts.register("sampler", "wide", Wide)
    wide = fit_sampler(model, Split(grey), "wide", parts=parts)
    with pytest.raises(Incompatible, match=r"\(3, 7\)"):
        model.sample(3, sampler=wide)
