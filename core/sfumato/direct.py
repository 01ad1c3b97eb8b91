"""Steps of a fused Adam without what :class:`torch.optim.Optimizer` does around its one kernel.

Each step of a torch optimiser sorts its tensors anew, runs hooks and marks itself for profilers. For a
small model that takes as long as a layer. The state stays in the optimiser, and so does its say:
whatever is not plain goes its way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

_OTHER_WAYS = ("amsgrad", "differentiable", "maximize")


class DirectAdam:
    """Steps of an Adam or AdamW that has taken a step already.

    Args:
        optimiser: Whose state and options they use.
        off: 1 where updates are switched off, on the device, or None.
    """

    def __init__(self, optimiser: Optimizer, off: Tensor | None) -> None:
        decoupled = isinstance(optimiser, AdamW)
        self._kernel: Callable[..., None] = (
            torch._fused_adamw_ if decoupled else torch._fused_adam_
        )
        self._off = off
        # Of the rest no step has seen a gradient: one that gets one has to get its state first.
        self._idle = [
            p for g in optimiser.param_groups for p in g["params"] if not optimiser.state[p]
        ]
        self._groups: list[tuple[dict[str, Any], list[Tensor], list[list[Tensor]]]] = []
        for group in optimiser.param_groups:
            parameters = [p for p in group["params"] if optimiser.state[p]]
            states = [optimiser.state[p] for p in parameters]
            kept = [
                [state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")
            ]
            self._groups.append((group, parameters, kept))

    @classmethod
    def of(cls, optimiser: Optimizer, off: Tensor | None) -> DirectAdam | None:
        """Its steps, if it is plain enough and this torch has the kernel."""
        if type(optimiser) not in (Adam, AdamW) or not hasattr(torch, "_fused_adamw_"):
            return None
        groups = optimiser.param_groups
        if not all(group["fused"] for group in groups):
            return None
        if any(group[name] for group in groups for name in _OTHER_WAYS):
            return None
        devices = {p.device for group in groups for p in group["params"]}
        kinds = {p.dtype for group in groups for p in group["params"]}
        return cls(optimiser, off) if len(devices) == len(kinds) == 1 else None

    def step(self) -> bool:
        """Take a step, and forget the gradients; False, and nothing done, if other parameters have some."""
        found = [[p.grad for p in parameters] for _, parameters, _ in self._groups]
        if any(gradient is None for gradients in found for gradient in gradients):
            return False
        if any(parameter.grad is not None for parameter in self._idle):
            return False
        for (group, parameters, (means, squares, steps)), gradients in zip(
            self._groups, found, strict=True
        ):
            torch._foreach_add_(steps, 1)
            beta1, beta2 = group["betas"]
            self._kernel(
                parameters, gradients, means, squares, [], steps, amsgrad=False, lr=group["lr"],
                beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
                maximize=False, grad_scale=None, found_inf=self._off,
            )  # fmt: skip
            if self._off is not None:
                torch._foreach_sub_(steps, [self._off] * len(steps))
            for parameter in parameters:
                parameter.grad = None
        return True
