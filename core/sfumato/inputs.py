"""Checks of what users hand to a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from sfumato.errors import DataError, SupportError
from sfumato.interfaces import Scope, Shape

Array = Tensor | np.ndarray[Any, Any]
_BINARIZE = (
    'values between 0 and 1 have no such density: binarize the data ("binarize": "dynamic" or '
    '"threshold"), or use another likelihood, such as "gaussian"'
)


def as_rows(rows: Array, shape: Shape, name: str) -> Tensor:
    """Items ``(B, *shape)`` as a tensor.

    Raises:
        DataError: Another shape, or no items.
    """
    tensor = torch.as_tensor(rows)
    check_rows(tensor, shape, name)
    if not len(tensor):
        msg = f"{name} has no items"
        raise DataError(msg)
    return tensor


def check_rows(rows: Tensor, shape: Shape, name: str) -> None:
    """Raise a :class:`DataError` unless ``rows`` is ``(B, *shape)``."""
    if tuple(rows.shape[1:]) != shape or rows.dim() != len(shape) + 1:
        wanted = ", ".join(map(str, shape))
        msg = f"{name} has shape {tuple(rows.shape)}; the model takes (B, {wanted})"
        raise DataError(msg, hint=f"one item needs a batch axis too: {name}[None]")


def check_positive(**counts: int) -> None:
    """Raise a :class:`DataError` that names the first count below 1."""
    for name, count in counts.items():
        if count < 1:
            msg = f"{name} = {count}: it should be at least 1"
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
