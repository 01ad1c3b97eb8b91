"""Which epoch of a training is the best so far, and its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sfumato.model import Model
from sfumato.spec import TrainingSpec

OBJECTIVE = "valid.objective"


class Best:
    """The best epoch by one number of its line of metrics.

    Without a validation split and without a number that the spec names, the last epoch counts as the best.

    Args:
        spec: Which number, and whether a small or a large one is good.
        validated: Whether there is a validation split.

    Attributes:
        epoch: The best one, counted from 1; 0 before the first.
        weights: Those after it; None where they are the model's own.
    """

    def __init__(self, spec: TrainingSpec, *, validated: bool) -> None:
        self._name = spec.monitor or (OBJECTIVE if validated else None)
        self._sign = -1.0 if spec.monitor_mode == "max" else 1.0
        self._value, self.epoch = math.inf, 0
        self.weights: dict[str, Tensor] | None = None

    def look(self, line: Mapping[str, Any], model: Model) -> None:
        """Look at the line of an epoch that has just ended."""
        if self._name is None:
            self.epoch = line["epoch"]
            return
        value = self._sign * read(line, self._name)
        if value < self._value:
            self._value, self.epoch = value, line["epoch"]
            state = model.state_dict()
            self.weights = {name: t.detach().clone() for name, t in state.items()}

    def begin(self, epoch: int) -> None:
        """Count from an epoch on: what the number says of those before is said of something else."""
        self._value, self.epoch, self.weights = math.inf, epoch, None

    def state(self) -> dict[str, Any]:
        """What to go on from, but for the weights."""
        return {"value": self._value, "epoch": self.epoch}

    def restore(
        self, state: Mapping[str, Any], weights: Mapping[str, Tensor] | None, model: Model
    ) -> None:
        """Go on from a state, of the same model, data and number."""
        self._value, self.epoch = float(state["value"]), int(state["epoch"])
        self.weights = None
        if weights is not None:
            self.weights = {n: t.detach().clone().to(model.device) for n, t in weights.items()}


def read(line: Mapping[str, Any], name: str) -> float:
    """A number of a line of metrics, such as ``valid.elbo`` or ``parts.likelihood.sigma``."""
    section, _, term = name.partition(".")
    return float(line[section][term])
