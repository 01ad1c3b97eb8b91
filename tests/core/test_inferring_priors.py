"""Priors that are made of posteriors, as VampPrior is (Tomczak and Welling, 2018)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from sfumato import (
    Context,
    Contract,
    Prior,
    Scope,
    Split,
    Splits,
    conditioned_on_labels,
    load,
    train,
)
from sfumato.registry import Registry

Tiny = Callable[..., dict[str, Any]]


class Vamp(Prior):
    """A mixture of the posteriors of pseudo-inputs, which are learned."""

    def __init__(self, context: Context, *, components: int = 3) -> None:
        super().__init__()
        self.inputs = nn.Parameter(torch.rand(components, *context.data_shape))
        width = context.condition_dim
        self.conditions = nn.Parameter(torch.rand(components, width)) if width else None

    def forward(self, scope: Scope) -> Distribution:
        """Make the mixture."""
        assert scope.infer is not None
        q_z = scope.infer(self.inputs, self.conditions).dist
        assert q_z is not None
        weights = Categorical(torch.ones(len(self.inputs), device=self.inputs.device))
        return MixtureSameFamily(weights, q_z, validate_args=False)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_prior_of_posteriors_works_everywhere(
    parts: Registry, tiny: Tiny, tmp_path: Path, *, conditional: bool
) -> None:
    """It is built, trained (its own parameters too), scored, sampled from and loaded again."""
    parts.register("prior", "vamp", Vamp)
    x = torch.rand(40, 1, 4, 4)
    splits = Splits(Split(x, torch.arange(40) % 3), Contract(shape=(1, 4, 4)))
    if conditional:
        splits = conditioned_on_labels(splits)
    spec = tiny(prior="vamp", training={"keep": "last"})
    model = train(spec, splits, tmp_path / "run", parts=parts).model
    given, one = (splits.train.condition, 1) if conditional else (None, None)
    again = load(tmp_path / "run", "cpu", parts=parts)
    assert model.log_prob(x, seed=0, samples=3, condition=given).isfinite().all()
    assert model.sample(3, seed=0, condition=one).equal(again.sample(3, seed=0, condition=one))
    fresh = train(
        {**spec, "training": {**spec["training"], "steps": 1, "epochs": None}}, splits, parts=parts
    )
    assert not dict(fresh.model.named_parameters())["prior.inputs"].equal(
        dict(model.named_parameters())["prior.inputs"]
    )


def test_its_density_is_that_of_the_mixture(parts: Registry, tiny: Tiny) -> None:
    """Log p(z) is the log-mean-exp of the posteriors' log-densities at the pseudo-inputs."""
    parts.register("prior", "vamp", Vamp)
    model = train(tiny(prior="vamp"), torch.rand(40, 1, 4, 4), parts=parts).model
    assert isinstance(model.prior, Vamp)
    codes = model.encode(model.prior.inputs.detach()).dist
    assert codes is not None
    z: Tensor = torch.randn(7, 1, 2)
    expected = codes.log_prob(z).logsumexp(1) - torch.log(torch.tensor(3.0))
    found = model.prior(Scope(infer=lambda x, condition: model.encode(x, condition=condition)))
    torch.testing.assert_close(found.log_prob(z[:, 0]), expected)
