"""Which units are walked through: those that tell items apart, not those that vary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sfumato
from sfumato import Model, Split, Subject
from sfumato.registry import Registry

REACH = (8.0, 1.0, 3.0, 0.2)
"""Standard deviations of the modes over items."""
NOISE = (40.0, 0.1, 3.0, 0.4)
"""Standard deviations of q(z|x)."""
TOLD = (1, 2, 3, 0)
"""The units by share of the variance of draws that the modes explain: 0.99, 0.5, 0.2 and 0.04."""


@pytest.fixture
def model(parts: Registry) -> Model:
    """A linear VAE of four numbers, unit i of which is number i, with noise of the sizes above."""
    linear = {"type": "mlp", "hidden": []}
    spec = {"model": {"family": "vae", "latent_dim": 4, "encoder": linear, "decoder": linear}}
    made = sfumato.build(spec, (4,), "cpu", support="real", parts=parts)
    with torch.no_grad():
        for weights in made.parameters():
            weights.zero_()
        head = made.posterior.head
        assert isinstance(head, torch.nn.Linear)
        head.weight[:4] = torch.diag(torch.tensor(REACH))
        head.bias[4:] = torch.tensor(NOISE).log()
        out = made.decoder.out
        assert isinstance(out, torch.nn.Linear)
        out.weight.copy_(torch.eye(4))
    return made.eval()


def items(n: int = 400) -> Split:
    """Standard normal numbers."""
    return Split(torch.randn(n, 4, generator=torch.Generator().manual_seed(5)))


def test_units_that_tell_items_apart_come_first(model: Model) -> None:
    """What orders units is the variance of modes over that of draws, not how far a unit reaches."""
    view = sfumato.view(Subject(model, items()), items(), seed=0)
    modes, draws = view.codes.modes.numpy(), view.codes.draws.numpy()
    wide = np.argsort(-modes.var(0)).tolist()
    assert wide == np.argsort(-draws.var(0)).tolist() == [0, 2, 1, 3]
    assert np.argsort(NOISE).tolist() == [1, 3, 2, 0]
    assert np.argsort(-modes.var(0) / draws.var(0)).tolist() == list(TOLD)
    assert view.pictures.traversed == TOLD


def test_draws_of_other_items_order_nothing(model: Model) -> None:
    """Further items, whose codes are drawn and not shown, may lie elsewhere: the items shown decide."""
    further = items(900).x
    further[500:, 1] *= 1000
    more = Split(further)
    view = sfumato.view(Subject(model, more), more, seed=0)
    assert len(view.codes.modes) == 500
    assert view.codes.draws[:, 1].var() > 1000 * view.codes.draws[:500, 1].var()
    assert view.pictures.traversed == TOLD


def test_a_walk_moves_the_unit_that_it_names(model: Model) -> None:
    """Decoded by the identity, a row differs from the first item's code in its own unit alone."""
    view = sfumato.view(Subject(model, items()), items(), seed=0)
    walks, start = view.pictures.traversals, view.codes.modes[0]
    assert walks is not None
    for unit, walk in zip(view.pictures.traversed, walks, strict=True):
        others = [i for i in range(4) if i != unit]
        assert torch.equal(walk[:, others], start[others].expand(len(walk), -1))
        ends = np.quantile(view.codes.draws[:, unit], [0.01, 0.99], method="nearest")
        np.testing.assert_allclose(walk[[0, -1], unit], ends, rtol=1e-5)
        assert (walk[1:, unit] > walk[:-1, unit]).all()
