"""The choices that every network here offers, and what they share about conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from sfumato import Incompatible, Scope

Width = Annotated[int, Field(ge=1, le=1 << 20)]
MOST_LAYERS = 64
"""More would be built for seconds, and deeper ones than these do not learn without shortcuts."""
Activation = Annotated[
    Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"],
    Field(description="What follows every hidden layer."),
]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}

_MOST_GROUPS = 8
_FEWEST_CHANNELS = 4


def activation_layer(name: Activation) -> nn.Module:
    """Create the activation of that name."""
    return _ACTIVATIONS[name]()


def groups(channels: int) -> int:
    """How many groups ``channels`` are normalised in.

    The largest divisor up to 8 that leaves at least 4 channels in a group: a group of one channel
    whose map has shrunk to one value would be normalised to a constant.
    """
    fitting = range(_MOST_GROUPS, 0, -1)
    return next(
        g for g in fitting if g == 1 or (channels % g == 0 and channels // g >= _FEWEST_CHANNELS)
    )


def check_enough_values(choice: str, values: int) -> None:
    """Refuse a normalisation over a single value: its result is 0 whatever the input."""
    if values == 1:
        msg = f'normalization "{choice}" has only one value per item to work on, and makes it 0'
        raise Incompatible(msg, hint='widen the layer, or use normalization "none" or "batch"')


def condition_of(scope: Scope) -> Tensor:
    """``(N, C)``, the condition of a model that was built for one."""
    if scope.condition is None:
        msg = "the model was built for conditional data, and no condition is given"
        raise Incompatible(msg, hint="pass the condition (N, C) of every row")
    return scope.condition
