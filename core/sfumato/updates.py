"""Updates of weights from an objective."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sfumato.direct import DirectAdam
from sfumato.errors import Problem, SpecError
from sfumato.model import Model
from sfumato.options import arguments
from sfumato.spec import TrainingSpec
from sfumato.training_parts import OPTIMIZERS, SCHEDULES


def optimiser(spec: TrainingSpec, parameters: Iterable[Any]) -> Optimizer:
    """The optimiser that a spec names, of parameters or of groups of them.

    Raises:
        SpecError: torch refuses its options.
    """
    make, options = OPTIMIZERS[spec.optimizer.type].load(), arguments(spec.optimizer)
    try:
        made: Optimizer = make(parameters, **options)
    except (ValueError, TypeError) as error:
        problem = Problem("K206", "/training/optimizer", f"torch refuses it: {error}")
        raise SpecError([problem]) from error
    return made


def schedules(
    spec: TrainingSpec, optimisers: Iterable[Optimizer], steps: int
) -> list[LRScheduler]:
    """The schedule of the rate that a spec names, for each optimiser."""
    if spec.schedule is None:
        return []
    make, options = SCHEDULES[spec.schedule.type].load(), arguments(spec.schedule)
    return [make(made, steps, **options) for made in optimisers]


def capturable(spec: TrainingSpec) -> bool:
    """Whether a graph may hold the updates: a schedule that changes more than the rate would be frozen."""
    return spec.schedule is None or spec.schedule.type != "one_cycle"


def make_capturable(made: Optimizer, device: torch.device) -> None:
    """Prepare an optimiser for a CUDA graph, which would freeze a rate that is a Python number."""
    for group in made.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=device, dtype=torch.float32)
        if "capturable" in group:
            group["capturable"] = True


class Updates:
    """The optimiser of the model, and a second one for the critic that a loss may own.

    Gradients are added up, for one part of a batch after another, until they are applied.

    Args:
        model: The model.
        steps: How many updates there will be.
        captured: Whether they will be captured in a CUDA graph.
        late: Whether an objective that is not finite is found when somebody asks, and until then
            switches updates off on the device; on CUDA by default, where to look at each one would
            wait for the device.
    """

    def __init__(
        self, model: Model, steps: int, *, captured: bool = False, late: bool | None = None
    ) -> None:
        self._spec = spec = model.spec.training
        critic = getattr(model.loss, "critic", None)
        own = list(critic.parameters()) if isinstance(critic, nn.Module) else []
        theirs = {id(p) for p in own}
        self._groups = [
            [p for p in model.parameters() if p.requires_grad and id(p) not in theirs],
            [p for p in own if p.requires_grad],
        ]
        self._optimisers = [optimiser(spec, group) for group in self._groups if group]
        if captured:
            for made in self._optimisers:
                make_capturable(made, model.device)
        self._late = model.device.type == "cuda" if late is None else late
        self._failed = torch.tensor(-1, device=model.device)
        # Of the type that kernels look for, whatever the default is.
        self._off = torch.zeros((), device=model.device, dtype=torch.float32)
        if self._late:
            for made in self._optimisers:  # fused ones look at it on the device
                made.found_inf = self._off  # type: ignore[attr-defined]
        self._direct: list[DirectAdam | None] = [None] * len(self._optimisers)
        self._schedules = schedules(spec, self._optimisers, steps)

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(self._optimisers[0].param_groups[0]["lr"])

    def sound(self, objective: Tensor, number: int | Tensor) -> bool:
        """Whether an objective is finite; where that is found late, updates are off from here on if not."""
        if not self._late:
            return math.isfinite(objective.item())
        bad = ~torch.isfinite(objective.detach())
        self._failed.copy_(torch.where(bad & (self._failed < 0), number, self._failed))
        self._off.copy_(torch.where(bad, 1.0, self._off))
        return True

    def failed(self) -> int | None:
        """The first step whose objective was found not to be finite. Waits for the device."""
        number = int(self._failed)
        return None if number < 0 else number

    def add(self, objective: Tensor, critic: Tensor | None) -> None:
        """Add the gradients of each group's own objective."""
        main, own = self._groups
        if own:
            # Both from one graph, each with respect to its own parameters: nothing leaks.
            objective.backward(inputs=main, retain_graph=critic is not None)
            if critic is not None:
                critic.backward(inputs=own)
        else:
            objective.backward()

    def apply(self) -> None:
        """Update the weights by the gradients, and forget these."""
        if self._spec.clip_norm is not None:
            for group in filter(None, self._groups):
                nn.utils.clip_grad_norm_(group, self._spec.clip_norm)
        for number, made in enumerate(self._optimisers):
            direct = self._direct[number]
            if direct is not None and direct.step():
                continue
            made.step()
            made.zero_grad()
            # It has a state now.
            self._direct[number] = DirectAdam.of(made, self._off if self._late else None)

    def drop(self) -> None:
        """Forget the gradients."""
        for made in self._optimisers:
            made.zero_grad()

    def advance(self) -> None:
        """Go on in the schedules of the rate."""
        for schedule in self._schedules:
            schedule.step()
