"""A few training steps in a host, with the gradients in sight."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sfumato.interfaces import Scope
from sfumato.model import Model
from sfumato.passes import LossOut
from sfumato.testing.bench import Rows, scope_of

Gradients = dict[str, Tensor | None]
_RATE = 1e-2


def gradients(model: Model, scope: Scope) -> tuple[LossOut, Gradients]:
    """One pass, and the gradient of each trained parameter with respect to its own objective."""
    out: LossOut = model(scope)
    critic = getattr(model.loss, "critic", None)
    theirs = {id(p) for p in critic.parameters()} if isinstance(critic, nn.Module) else set()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    main = [(n, p) for n, p in trained if id(p) not in theirs]
    own = [(n, p) for n, p in trained if id(p) in theirs]
    made = _gradients(main, out.objective.mean(), keep=out.critic is not None)
    if own and out.critic is not None:
        made |= _gradients(own, out.critic.mean(), keep=False)
    return out, made


def _gradients(
    parameters: list[tuple[str, nn.Parameter]], objective: Tensor, *, keep: bool
) -> Gradients:
    found = torch.autograd.grad(
        objective, [p for _, p in parameters], retain_graph=keep, allow_unused=True
    )
    return {name: g for (name, _), g in zip(parameters, found, strict=True)}


def training(model: Model, rows: Rows, steps: int, first: int = 0) -> Iterator[Gradients]:
    """Take optimiser steps in training mode, likelihoods fitted before and after as in a run."""
    fit_likelihood(model, rows, 0)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimiser = torch.optim.Adam(parameters.values(), lr=_RATE) if parameters else None
    for step in range(first, first + steps):
        model.train()
        _, found = gradients(model, scope_of(model, rows, step))
        for name, parameter in parameters.items():
            parameter.grad = found.get(name)
        yield found
        if optimiser is not None:
            optimiser.step()
    model.eval()
    fit_likelihood(model, rows, 1)


def trained(model: Model, rows: Rows, steps: int = 3) -> Model:
    """The model after a few steps, in evaluation mode."""
    for _ in training(model, rows, steps):
        pass
    return model.eval()


@torch.no_grad()
def fit_likelihood(model: Model, rows: Rows, epoch: int) -> None:
    """What a run does before the first epoch and after each one."""
    fit = getattr(model.likelihood, "fit", None)
    if fit is None:
        return
    model.eval()
    scope = scope_of(model, rows, epoch)
    z = model.infer(scope).rsample(1)[0][0]
    fit([(model.parameters_of(z, scope), scope.x, scope.mask)], epoch)
