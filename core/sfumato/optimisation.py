"""Optimisers and learning-rate schedules: torch.optim's own, with their options.

Optimisers are fused: one pass over all parameters instead of one operation each.
Every schedule advances once an optimiser step, and its lengths are in steps; a length that is not
given is the whole run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field
from torch import nn, optim
from torch.optim import lr_scheduler

Rate = Annotated[float, Field(gt=0, description="Learning rate.")]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Steps = Annotated[int, Field(ge=1, lt=2**53)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Parameters = Iterable[nn.Parameter]


def adam(
    parameters: Parameters,
    *,
    lr: Rate = 1e-3,
    betas: tuple[Beta, Beta] = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    amsgrad: bool = False,
) -> optim.Optimizer:
    """Adam (Kingma and Ba, 2015), :class:`torch.optim.Adam`.

    Args:
        parameters: What is to be learned.
        lr: Learning rate.
        betas: Decay of the running means of the gradient and of its square.
        eps: Added to the denominator.
        weight_decay: Weight of an L2 penalty in the gradient.
        amsgrad: Keep the greatest mean square so far.
    """
    return optim.Adam(parameters, lr, betas, eps, weight_decay, amsgrad, fused=True)


def adamw(
    parameters: Parameters,
    *,
    lr: Rate = 1e-3,
    betas: tuple[Beta, Beta] = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 1e-2,
    amsgrad: bool = False,
) -> optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), :class:`torch.optim.AdamW`.

    Args:
        parameters: What is to be learned.
        lr: Learning rate.
        betas: Decay of the running means of the gradient and of its square.
        eps: Added to the denominator.
        weight_decay: Decay of the weights, times the rate, a step.
        amsgrad: Keep the greatest mean square so far.
    """
    return optim.AdamW(parameters, lr, betas, eps, weight_decay, amsgrad, fused=True)


def sgd(
    parameters: Parameters,
    *,
    lr: Rate = 1e-3,
    momentum: NonNegative = 0.0,
    dampening: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    nesterov: bool = False,
) -> optim.Optimizer:
    """Stochastic gradient descent, :class:`torch.optim.SGD`.

    Args:
        parameters: What is to be learned.
        lr: Learning rate.
        momentum: Share of the last update that is kept.
        dampening: Share of the gradient that momentum leaves out.
        weight_decay: Weight of an L2 penalty in the gradient.
        nesterov: Look ahead along the momentum.
    """
    return optim.SGD(parameters, lr, momentum, dampening, weight_decay, nesterov, fused=True)


def cosine(
    optimizer: optim.Optimizer, run: int, *, steps: Steps | None = None, eta_min: NonNegative = 0.0
) -> lr_scheduler.LRScheduler:
    """Cosine decay to ``eta_min``, :class:`torch.optim.lr_scheduler.CosineAnnealingLR`.

    Args:
        optimizer: Its rate changes.
        run: Steps of the whole run.
        steps: Length; None: the whole run.
        eta_min: Rate at the end.
    """
    return lr_scheduler.CosineAnnealingLR(optimizer, steps or run, eta_min)


def linear(
    optimizer: optim.Optimizer,
    run: int,
    *,
    start_factor: Annotated[float, Field(gt=0, le=1)] = 1.0,
    end_factor: Annotated[float, Field(ge=0, le=1)] = 0.0,
    steps: Steps | None = None,
) -> lr_scheduler.LRScheduler:
    """A straight line between two multiples of the rate, :class:`torch.optim.lr_scheduler.LinearLR`.

    Args:
        optimizer: Its rate changes.
        run: Steps of the whole run.
        start_factor: Multiple of the rate at the start.
        end_factor: Multiple of the rate at the end.
        steps: Length; None: the whole run.
    """
    return lr_scheduler.LinearLR(optimizer, start_factor, end_factor, steps or run)


def polynomial(
    optimizer: optim.Optimizer, run: int, *, power: Positive = 1.0, steps: Steps | None = None
) -> lr_scheduler.LRScheduler:
    """Polynomial decay to 0, :class:`torch.optim.lr_scheduler.PolynomialLR`.

    Args:
        optimizer: Its rate changes.
        run: Steps of the whole run.
        power: Degree; 1 is a straight line.
        steps: Length; None: the whole run.
    """
    return lr_scheduler.PolynomialLR(optimizer, steps or run, power)


def exponential(
    optimizer: optim.Optimizer, run: int, *, gamma: Annotated[float, Field(gt=0, le=1)]
) -> lr_scheduler.LRScheduler:
    """The rate times ``gamma`` each step, :class:`torch.optim.lr_scheduler.ExponentialLR`.

    Args:
        optimizer: Its rate changes.
        run: Steps of the whole run.
        gamma: Factor.
    """
    del run
    return lr_scheduler.ExponentialLR(optimizer, gamma)


def step(
    optimizer: optim.Optimizer, run: int, *, step_size: Steps, gamma: Positive = 0.1
) -> lr_scheduler.LRScheduler:
    """The rate times ``gamma`` every ``step_size`` steps, :class:`torch.optim.lr_scheduler.StepLR`.

    Args:
        optimizer: Its rate changes.
        run: Steps of the whole run.
        step_size: Steps between two changes.
        gamma: Factor.
    """
    del run
    return lr_scheduler.StepLR(optimizer, step_size, gamma)


def multi_step(
    optimizer: optim.Optimizer, run: int, *, milestones: tuple[Steps, ...], gamma: Positive = 0.1
) -> lr_scheduler.LRScheduler:
    """The rate times ``gamma`` at each milestone, :class:`torch.optim.lr_scheduler.MultiStepLR`.

    Args:
        optimizer: Its rate changes.
        run: Steps of the whole run.
        milestones: Steps after which the rate changes.
        gamma: Factor.
    """
    del run
    return lr_scheduler.MultiStepLR(optimizer, milestones, gamma)


def one_cycle(
    optimizer: optim.Optimizer,
    run: int,
    *,
    max_lr: Rate,
    pct_start: Annotated[float, Field(ge=0, le=1)] = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> lr_scheduler.LRScheduler:
    """Up to ``max_lr`` and down (Smith and Topin, 2018), :class:`~torch.optim.lr_scheduler.OneCycleLR`.

    Args:
        optimizer: Its rate changes.
        run: Steps of the whole run.
        max_lr: Greatest rate.
        pct_start: Share of the run in which the rate rises.
        div_factor: How much smaller than the greatest rate the first one is.
        final_div_factor: How much smaller than the first rate the last one is.
    """
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr,
        total_steps=run + 1,  # torch asks for the rate after the last step, too
        pct_start=pct_start,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )
