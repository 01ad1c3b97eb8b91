"""Parts of a model go on where another process left them."""

from __future__ import annotations

from typing import Any

import torch

from sfumato.model import Model
from sfumato.registry import PARTS
from sfumato.testing.bench import Bench, Rows, Trial, scope_of, still_world
from sfumato.testing.observing import equal
from sfumato.testing.rules import Fault, rule, said
from sfumato.testing.steps import fit_likelihood, gradients

_ROWS, _STEPS = 6, 4
_RATE = 1e-2


@rule(*PARTS, title="resume")
def resumes(bench: Bench) -> None:
    """Taken up by another process in the middle of a training, it ends in the same state, bit for bit."""

    def try_it(trial: Trial) -> None:
        rows = trial.rows(_ROWS)
        straight = trial.model()
        fit_likelihood(straight, rows, 0)
        _train(straight, rows, 0, _STEPS // 2, world=1)
        weights = {name: tensor.clone() for name, tensor in straight.state_dict().items()}
        buffers = {name: buffer.clone() for name, buffer in straight.named_buffers()}
        _train(straight, rows, _STEPS // 2, _STEPS, world=1)
        resumed = trial.model()
        try:
            resumed.load_state_dict(weights)
            for name, buffer in buffers.items():
                resumed.get_buffer(name).copy_(buffer)
        except (RuntimeError, AttributeError) as error:
            msg = f"what it has learned cannot be taken up: {said(error, bench.file)}"
            raise Fault(msg, "state is made in __init__, and is parameters and buffers") from error
        _train(resumed, rows, _STEPS // 2, _STEPS, world=2)
        different = equal(_state(straight), _state(resumed))
        if different:
            half = f"stopped after {_STEPS // 2} of {_STEPS} steps and taken up again"
            msg = f"{half}, it ends with another {different}"
            hint = "keep what changes while it trains in parameters and buffers; draw from scope.noise"
            raise Fault(msg, hint)

    bench.each(try_it)


def _train(model: Model, rows: Rows, first: int, last: int, world: int) -> None:
    """Plain steps, with torch's generator keyed by the step; Python's and NumPy's are those of a process."""
    for step in range(first, last):
        model.train()
        with still_world(world), torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)
            _, found = gradients(model, scope_of(model, rows, step))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if (gradient := found.get(name)) is not None:
                    parameter.sub_(gradient, alpha=_RATE)
    model.eval()


def _state(model: Model) -> dict[str, Any]:
    return {**dict(model.named_buffers()), **model.state_dict()}


RULES = (resumes,)
