"""Checks of what users hand to a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from sfumato.arrays import check_kind, from_numpy
from sfumato.data import Contract, class_condition, visible
from sfumato.errors import DataError, SupportError
from sfumato.interfaces import Scope, Shape

Array = Tensor | np.ndarray[Any, Any]
Condition = Array | int | str
"""Conditions ``(B, C)``, or the name or number of a class."""
_BINARIZE = (
    'values between 0 and 1 have no such density: binarize the data ("binarize": "dynamic" or '
    '"threshold"), or use another likelihood, such as "gaussian"'
)


def as_tensor(value: Array, name: str) -> Tensor:
    """A tensor of real numbers, or a :class:`DataError`."""
    if isinstance(value, np.ndarray):
        return from_numpy(value, name)
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        msg = f"{name} is {type(value).__name__}, not an array of numbers"
        raise DataError(msg, hint="give a NumPy array or a tensor") from error
    check_kind(tensor, name)
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
        raise DataError(msg, hint="give at least one")
    return tensor


def as_condition(
    condition: Condition | None, contract: Contract, rows: int | None
) -> Tensor | None:
    """Conditions ``(B, C)``: as given, or those of one class for every row.

    Args:
        condition: ``(B, C)``, or the name or number of a class, or None.
        contract: What the model's data keep to.
        rows: How many rows there are; None if the condition itself says so.

    Raises:
        DataError: It is missing, not wanted, of another shape or number, or no such class.
    """
    width = contract.condition_dim
    if condition is None:
        if not width:
            return None
        classes = ", or the name of a class" if contract.condition == "label" else ""
        msg = f"the model is conditional and needs a condition of shape (B, {width})"
        hint = f"pass condition=, such an array{classes}; on the command line, --condition"
        raise DataError(msg, hint=hint)
    if not width:
        msg = "the model takes no condition: its data have none"
        raise DataError(msg, hint="leave the condition out")
    if isinstance(condition, np.integer | Tensor | np.ndarray) and condition.ndim == 0:
        number: Any = condition.item()  # of a class, of whatever type
        condition = number if isinstance(number, int) else condition
    if isinstance(condition, int | str):
        given = class_condition(condition, contract).expand(1 if rows is None else rows, width)
    else:
        given = as_rows(condition, (width,), "condition")
    if not bool(given.isfinite().all()):
        item, index = (~given.isfinite()).nonzero()[0].tolist()
        msg = f"item {item} has condition[{index}] = {given[item, index].item()}: not finite"
        raise DataError(msg, hint="give numbers alone, or leave the item out")
    if rows is not None and len(given) != rows:
        msg = f"condition has {len(given)} rows, and there are {rows} items"
        raise DataError(msg, hint="give one row an item in each")
    return given


def check_values(x: Tensor, mask: Tensor | None, *, tokens: bool) -> None:
    """Refuse values that are not finite, and integers that were not scaled to the model's space.

    Whether a likelihood can score them is checked where a density is asked for.

    Raises:
        DataError: With the first such value.
    """
    if not x.is_floating_point() and (tokens or _are_bits(x)):
        return
    seen = x.cpu() if x.is_floating_point() or tokens else x.cpu().double()
    if mask is not None:
        seen = visible(seen, mask)
    bad = ~torch.isfinite(seen)
    if not tokens and not x.is_floating_point():
        bad |= (seen != 0) & (seen != 1)
    if bool(bad.any()):
        item, *index = bad.nonzero()[0].tolist()
        value = seen[(item, *index)].item()
        stored = "" if x.is_floating_point() else ", an integer that was not scaled"
        msg = f"item {item} has x{index} = {value:.6g}{stored}"
        hint = "stored values become the model's by x * contract.scale + contract.shift; see Splits.seen"
        raise DataError(msg, hint=hint if stored else "remove the item, or mask the value")


def _are_bits(x: Tensor) -> bool:
    """Whether integers are 0 and 1 alone."""
    if x.dtype is torch.bool or not x.numel():
        return True
    least, greatest = x.aminmax()
    return int(least) >= 0 and int(greatest) <= 1


def check_mask(mask: Tensor) -> None:
    """Raise a :class:`DataError` unless every entry is 0 or 1."""
    bad = (mask != 0) & (mask != 1)
    if bool(bad.any()):
        item, *index = bad.nonzero()[0].tolist()
        value = mask[(item, *index)].item()
        msg = f"the mask holds other values than 0 and 1: item {item} has mask{index} = {value}"
        raise DataError(msg, hint="a mask says 1 where a value counts and 0 where it is missing")


def check_lengths(**columns: Tensor | None) -> None:
    """Raise a :class:`DataError` unless all columns that are given have as many rows."""
    lengths = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(lengths.values())) > 1:
        msg = ", ".join(f"{name} has {n} rows" for name, n in lengths.items())
        raise DataError(msg, hint="give one row an item in each")


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
            raise DataError(msg, hint=f"give {name}=1 or more")


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
