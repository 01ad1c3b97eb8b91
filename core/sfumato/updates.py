"""Updates of weights from an objective."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sfumato.errors import Problem, SpecError
from sfumato.model import Model
from sfumato.options import arguments
from sfumato.passes import LossOut
from sfumato.training_parts import OPTIMIZERS, SCHEDULES


class Updates:
    """The optimiser of the model, and a second one for the critic that a loss may own."""

    def __init__(self, model: Model, steps: int) -> None:
        self._spec = spec = model.spec.training
        critic = getattr(model.loss, "critic", None)
        own = list(critic.parameters()) if isinstance(critic, nn.Module) else []
        theirs = {id(p) for p in own}
        self._groups = [
            [p for p in model.parameters() if p.requires_grad and id(p) not in theirs],
            [p for p in own if p.requires_grad],
        ]
        try:
            self._optimisers = self._made()
        except (ValueError, TypeError) as error:
            problem = Problem("K206", "/training/optimizer", f"torch refuses it: {error}")
            raise SpecError([problem]) from error
        self._schedules = []
        if spec.schedule is not None:
            schedule, options = SCHEDULES[spec.schedule.type].load(), arguments(spec.schedule)
            self._schedules = [schedule(o, steps, **options) for o in self._optimisers]

    def _made(self) -> list[Optimizer]:
        make, options = (
            OPTIMIZERS[self._spec.optimizer.type].load(),
            arguments(self._spec.optimizer),
        )
        return [make(group, **options) for group in self._groups if group]

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(self._optimisers[0].param_groups[0]["lr"])

    def step(self, objective: Tensor, out: LossOut) -> None:
        """One update of each group by its own objective."""
        main, critic = self._groups
        if critic:
            # Both from one graph, each with respect to its own parameters: nothing leaks.
            _assign(main, objective, retain=out.critic is not None)
            if out.critic is not None:
                _assign(critic, out.critic.mean(), retain=False)
        else:
            objective.backward()
        if self._spec.clip_norm is not None:
            for group in filter(None, self._groups):
                nn.utils.clip_grad_norm_(group, self._spec.clip_norm)
        for optimiser in self._optimisers:
            optimiser.step()
            optimiser.zero_grad()
        for schedule in self._schedules:
            schedule.step()


def _assign(parameters: list[nn.Parameter], objective: Tensor, *, retain: bool) -> None:
    gradients = torch.autograd.grad(objective, parameters, retain_graph=retain, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
