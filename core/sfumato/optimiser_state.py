"""Checks of an optimiser's state that was read from a file, before a kernel that trusts it runs on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_STEP = "step"
_SCHEDULED = (
    "lr",
    "initial_lr",
    "max_lr",
    "min_lr",
    "betas",
    "momentum",
    "base_momentum",
    "max_momentum",
)
"""Options that a schedule changes; all others are those of the spec."""


def checked(
    made: Optimizer, then: Mapping[str, Any], kept: set[str], *, same: bool
) -> dict[str, Any]:
    """A state as :meth:`torch.optim.Optimizer.load_state_dict` takes it.

    Args:
        made: What takes it.
        then: What was read.
        kept: What such an optimiser keeps of each parameter.
        same: Whether its options are those that it had; otherwise its own stay.

    Raises:
        ValueError: It is not of such an optimiser of these parameters.
    """
    now = made.state_dict()
    parameters = [p for group in made.param_groups for p in group["params"]]
    for number, state in then["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters):
            msg = f"there is no parameter {number} to optimise"
            raise ValueError(msg)
        if (
            state and set(state) != kept
        ):  # of a parameter that has had no gradient yet there is nothing
            msg = f"of parameter {number} it keeps {sorted(state)}, not {sorted(kept)}"
            raise ValueError(msg)
        for name, value in state.items():
            _check(f"{name} of parameter {number}", value, parameters[number], step=name == _STEP)
    groups = now["param_groups"]
    if same:
        read = alike(groups, then["param_groups"])
        groups = [{**group, **_scheduled(more)} for group, more in zip(groups, read, strict=True)]
    return {"state": dict(then["state"]), "param_groups": groups}


def _check(what: str, value: Any, like: Tensor, *, step: bool) -> None:
    if value is None:
        return
    shape, kind = ((), torch.float32) if step else (tuple(like.shape), like.dtype)
    if not isinstance(value, Tensor) or tuple(value.shape) != shape or value.dtype is not kind:
        msg = f"{what} should be {kind} {list(shape)}"
        raise ValueError(msg)


def alike(now: Any, then: Any, what: str = "its options") -> Any:
    """What was read, if it has the form of what there is: the same keys, lengths and types.

    Raises:
        ValueError: It has another.
    """
    if isinstance(now, Mapping):
        if isinstance(then, Mapping) and set(then) <= set(now):
            return {name: alike(now[name], value, str(name)) for name, value in then.items()}
    elif isinstance(now, list | tuple):
        if type(then) is type(now) and len(then) == len(now):
            return type(now)(alike(a, b, what) for a, b in zip(now, then, strict=True))
    elif isinstance(now, Tensor):
        if isinstance(then, Tensor) and then.shape == now.shape and then.dtype is now.dtype:
            return then
    elif _is_like(now, then):
        return then
    msg = f"{what} is {str(then)[:40]}, which is not of the form of {str(now)[:40]}"
    raise ValueError(msg)


def _scheduled(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: group[name] for name in _SCHEDULED if name in group}


def _is_like(now: Any, then: Any) -> bool:
    finite = not isinstance(then, float) or math.isfinite(then)
    return finite and (type(then) is type(now) or {type(now), type(then)} == {int, float})
