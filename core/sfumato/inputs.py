"""Checks of what users hand to a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from sfumato.data import Contract, visible
from sfumato.errors import DataError, SupportError
from sfumato.interfaces import Scope, Shape

Array = Tensor | np.ndarray[Any, Any]
_BINARIZE = (
    'values between 0 and 1 have no such density: binarize the data ("binarize": "dynamic" or '
    '"threshold"), or use another likelihood, such as "gaussian"'
)


def as_tensor(value: Array, name: str) -> Tensor:
    """A tensor of real numbers, or a :class:`DataError`."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        msg = f"{name} is {type(value).__name__}, not an array of numbers"
        raise DataError(msg, hint="give a NumPy array or a tensor") from error
    if tensor.is_complex():
        msg = f"{name} holds complex numbers"
        raise DataError(msg, hint="give real and imaginary parts as two channels")
    return tensor


def as_rows(rows: Array, shape: Shape, name: str) -> Tensor:
    """Items ``(B, *shape)`` as a tensor.

    Raises:
        DataError: No numbers, another shape, or no items.
    """
    tensor = as_tensor(rows, name)
    check_rows(tensor, shape, name)
    if not len(tensor):
        msg = f"{name} has no items"
        raise DataError(msg)
    return tensor


def check_values(x: Tensor, contract: Contract, mask: Tensor | None) -> None:
    """Refuse data that are not in the model's space: stored integers, values far out, NaN.

    What a model made may leave [0, 1] a little and may be handed back, so values up to one range
    beyond it pass; the likelihood's own support is checked where a density is asked for.

    Raises:
        DataError: With the first such value.
    """
    seen = x if mask is None else visible(x, mask)
    low, high = -math.inf, math.inf
    if contract.support == "token":
        low, high = 0, (contract.vocabulary or 1) - 1
    elif contract.support in ("unit", "binary"):
        low, high = -1, 2
    whole = contract.support != "token" and not x.is_floating_point() and bool((seen > 1).any())
    bad = seen > 1 if whole else ~((seen >= low) & (seen <= high) & torch.isfinite(seen))
    if bool(bad.any()):
        item, *index = bad.nonzero()[0].tolist()
        msg = (
            f"item {item} has x{index} = {x[(item, *index)].item():.6g}, and the model takes "
            f"{contract.support} values"
        )
        hint = "stored values become the model's by x * contract.scale + contract.shift; see Splits.seen"
        raise DataError(msg, hint=hint)


def check_rows(rows: Tensor, shape: Shape, name: str) -> None:
    """Raise a :class:`DataError` unless ``rows`` is ``(B, *shape)``."""
    if tuple(rows.shape[1:]) != shape or rows.dim() != len(shape) + 1:
        wanted = ", ".join(map(str, shape))
        msg = f"{name} has shape {tuple(rows.shape)}; the model takes (B, {wanted})"
        raise DataError(msg, hint=f"one item needs a batch axis too: {name}[None]")


def check_positive(**counts: int) -> None:
    """Raise a :class:`DataError` that names the first count below 1."""
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            msg = f"{name} = {count!r}: it should be a whole number of at least 1"
            raise DataError(msg)


def check_support(scope: Scope, support: Constraint, likelihood: str, first: int) -> None:
    """Raise a :class:`SupportError` that names the first value that counts and lies outside.

    Args:
        scope: The data, whose items are numbered from ``first``.
        support: Where the likelihood has a density.
        likelihood: Its name.
        first: Number of the first item.
    """
    x = scope.x
    if x is None:
        return
    outside = ~support.check(x)
    if scope.mask is not None:
        outside &= scope.mask.bool()
    if bool(outside.any()):
        item, *index = outside.nonzero()[0].tolist()
        value = x[(item, *index)].item()
        msg = (
            f"item {first + item} has x{index} = {value:.6g}, outside the support of likelihood "
            f"{likelihood!r}"
        )
        binary = support is constraints.boolean
        raise SupportError(
            msg, hint=_BINARIZE if binary else f"see: sfumato describe {likelihood}"
        )
