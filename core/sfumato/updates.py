"""Updates of weights from an objective, and the state that they have."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sfumato.direct import DirectAdam
from sfumato.errors import Problem, SpecError
from sfumato.model import Model
from sfumato.optimiser_state import alike, checked
from sfumato.options import arguments
from sfumato.spec import TrainingSpec
from sfumato.training_parts import OPTIMIZERS, SCHEDULES

_PROGRESS = ("last_epoch", "_step_count", "_last_lr")
"""What changes in a schedule; the rest stands in the spec."""


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


def kept_by(spec: TrainingSpec) -> set[str]:
    """What the optimiser of a spec keeps of each parameter."""
    probe = nn.Parameter(torch.zeros(1))
    made = optimiser(spec, [probe])
    probe.grad = torch.zeros(1)
    made.step()
    return set(made.state[probe])


class Updates:
    """The optimiser of the model, and a second one for the critic that a loss may own.

    Gradients are added up, for one part of a batch after another, until they are applied.

    Args:
        model: The model.
        steps: How many updates there will be.
        captured: Whether they will be captured in a CUDA graph.
        late: Whether an objective or a gradient that is not finite is found when somebody asks, and
            until then switches updates off on the device; on CUDA by default, where to look at each
            one would wait for the device.

    Attributes:
        applying: Whether weights are being changed at this moment.
    """

    def __init__(
        self, model: Model, steps: int, *, captured: bool = False, late: bool | None = None
    ) -> None:
        self._spec = spec = model.spec.training
        self._model, self.applying = model, False
        critic = getattr(model.loss, "critic", None)
        own = list(critic.parameters()) if isinstance(critic, nn.Module) else []
        theirs = {id(p) for p in own}
        self._groups = [
            [p for p in model.parameters() if p.requires_grad and id(p) not in theirs],
            [p for p in own if p.requires_grad],
        ]
        every = [p for group in self._groups for p in group]
        self._kinds = [[p for p in every if p.dtype is kind] for kind in {p.dtype for p in every}]
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
        self._one = torch.ones((), device=model.device, dtype=torch.float32)
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
        """The first step of which something was found not to be finite. Waits for the device."""
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

    def apply(self, number: int | Tensor) -> bool:
        """Update the weights by the gradients, and forget these.

        Args:
            number: The step.

        Returns:
            False, and nothing done, if a gradient is not finite; that is found late where
            objectives are.
        """
        if not self._sound_gradients(number):
            return False
        if self._spec.clip_norm is not None:
            for group in filter(None, self._groups):
                nn.utils.clip_grad_norm_(group, self._spec.clip_norm)
        self.applying = True
        for at, made in enumerate(self._optimisers):
            direct = self._direct[at]
            if direct is not None and direct.step():
                continue
            made.step()
            made.zero_grad()
            # It has a state now.
            self._direct[at] = DirectAdam.of(made, self._off if self._late else None)
        self.applying = False
        return True

    def _sound_gradients(self, number: int | Tensor) -> bool:
        for kind in self._kinds:  # that takes one type at a time
            found = [p.grad for p in kind if p.grad is not None]
            if found:
                # One pass over all of them, which torch has for mixed precision: it multiplies them by 1.
                torch._amp_foreach_non_finite_check_and_unscale_(found, self._off, self._one)
        if not self._late:
            sound = not self._off.item()
            if not sound:
                self._off.zero_()
            return sound
        bad = (self._off > 0) & (self._failed < 0)
        self._failed.copy_(torch.where(bad, number, self._failed))
        return True

    def unsound(self) -> str | None:
        """The name of the first parameter whose gradient is not finite."""
        for name, parameter in self._model.named_parameters():
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
                return name
        return None

    def drop(self) -> None:
        """Forget the gradients."""
        for made in self._optimisers:
            made.zero_grad()

    def advance(self) -> None:
        """Go on in the schedules of the rate."""
        for schedule in self._schedules:
            schedule.step()

    # ---- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What torch's optimisers and schedules say of themselves: plain values and tensors."""
        return {
            "kind": self._spec.optimizer.type,
            "optimisers": [made.state_dict() for made in self._optimisers],
            "schedules": [
                {name: schedule.state_dict()[name] for name in _PROGRESS}
                for schedule in self._schedules
            ],
        }

    def restore(self, state: Mapping[str, Any], steps: int, *, same: bool = True) -> None:
        """Go on from a state, of the same model.

        Args:
            state: From :meth:`state`.
            steps: How many were taken.
            same: Whether optimiser and schedule have the options that they had. Otherwise the new
                ones count, the schedule as it stands after so many steps; and another kind of
                optimiser begins anew.

        Raises:
            ValueError: It is no such state, or of another model.
        """
        if state["kind"] == self._spec.optimizer.type:
            kept = kept_by(self._spec)
            for made, then in zip(self._optimisers, state["optimisers"], strict=True):
                made.load_state_dict(checked(made, then, kept, same=same))
        for number, schedule in enumerate(self._schedules):
            if same:
                schedule.load_state_dict(alike(schedule.state_dict(), state["schedules"][number]))
            else:
                _forward(schedule, steps)


def _forward(schedule: LRScheduler, steps: int) -> None:
    with warnings.catch_warnings():  # that no update came before
        warnings.simplefilter("ignore")
        for _ in range(steps):
            schedule.step()
