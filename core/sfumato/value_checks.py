"""Checks of the values of ``x``: finite, and such as the contract says."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import constraints

from sfumato.arrays import LARGEST, check_finite, runs
from sfumato.data import REMOVE, Contract, Split, model_space, visible
from sfumato.errors import DataError
from sfumato.stored import Stored

_ROUNDING = 1e-6
_HINTS = {
    "unit": 'scale them into [0, 1], or let the contract say "real"',
    "binary": 'binarize them, or let the contract say "unit" or "real"',
    "count": 'counts are whole numbers from 0 on: round them, or let the contract say "real"',
    "token": "symbols are numbered from 0 on: see Contract(vocabulary=...)",
    "real": 'scale the data, as "scaling": "standard" of data from files does',
}


def check_values(name: str, split: Split, contract: Contract) -> None:
    """Raise a :class:`DataError`, with item and index, unless every value is what the contract says.

    Values that the mask hides may be anything. Half a rounding step beyond [0, 1] is within it.
    """
    x = split.x
    if contract.support == "token" and (x.is_floating_point() or x.dtype is torch.bool):
        kind = str(x.dtype).removeprefix("torch.")
        msg = f"x of {name} is {kind}, and the contract says tokens"
        raise DataError(msg, hint="symbols are integers from 0 on: give x.long()")
    support, bounds = _support(contract), _bounds(contract)
    if _certain(x.dtype, contract, bounds):
        return
    for at in runs(x):
        rows = x[at]
        if not _within(rows, contract, bounds):
            mask = None if split.mask is None else split.mask[at]
            _look_at(Split(rows, mask=mask), at.start, name, split, contract, support)


def _look_at(
    part: Split,
    first: int,
    name: str,
    split: Split,
    contract: Contract,
    support: constraints.Constraint,
) -> None:
    """Look at every value of some items, the first of which has number ``first``."""
    finite = torch.isfinite(part.x)
    if part.mask is not None:
        finite |= part.mask == 0
    if not bool(finite.all()):
        # All of the split, to count them.
        called = _item_of(name, split)
        check_finite(split.x, lambda n: f"{called(n)} has x", split.mask, hint=REMOVE)
    x = model_space(part.x, contract, torch.float64)
    if part.mask is not None:
        x = visible(x, part.mask)
    outside = ~support.check(x) | ~(x.abs() <= LARGEST)
    if bool(outside.any()):
        item, *index = outside.nonzero()[0].tolist()
        value = x[(item, *index)].item()
        msg = f"{_item_of(name, split)(first + item)} has x{index} = {value:.6g}"
        what = f"the contract says {contract.support} values"
        if contract.support == "token":
            what = f"the contract says {contract.vocabulary} symbols"
        elif not abs(value) <= LARGEST:
            what = "its square is no finite float32"
        raise DataError(f"{msg}; {what}", hint=_HINTS[contract.support])


def _certain(dtype: torch.dtype, contract: Contract, bounds: tuple[float, float] | None) -> bool:
    """Whether the type of stored values says that they keep to the contract."""
    if dtype.is_floating_point or bounds is None:
        return False
    least, most = (
        (0, 1) if dtype is torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    )
    return _within(torch.tensor([least, most]), contract, bounds)


def _within(rows: Tensor, contract: Contract, bounds: tuple[float, float] | None) -> bool:
    """Whether stored values are seen to be what the contract says without a look at each as it is seen.

    By their ends, wherever these lie in a datum. NaN is an end of what holds it, and within nothing.
    """
    if bounds is None:
        plain = (contract.scale, contract.shift) == (1.0, 0.0)
        if not plain or contract.support != "binary":
            return False
        return bool(((rows == 0) | (rows == 1)).all())
    low, high = (float(end) for end in rows.aminmax())
    scales, shifts = (
        (c,) if isinstance(c, float) else c for c in (contract.scale, contract.shift)
    )
    products = [end * scale for end in (low, high) for scale in (min(scales), max(scales))]
    # Each by itself: Python's min and max may pass over NaN.
    return all(
        bounds[0] <= product + shift <= bounds[1]
        for product in products
        for shift in (min(shifts), max(shifts))
    )


def _bounds(contract: Contract) -> tuple[float, float] | None:
    """The ends of the values that a contract allows, where all between them are allowed."""
    if contract.support == "unit" or contract.binarize == "dynamic":
        return -_ROUNDING, 1 + _ROUNDING
    return (-LARGEST, LARGEST) if contract.support == "real" else None


def _item_of(name: str, split: Split) -> Callable[[int], str]:
    """What a message calls an item: of one that lies in a file, with the place."""
    source = split.x.source if isinstance(split.x, Stored) else None

    def called(item: int) -> str:
        return f"{name} item {item}" + (f" ({source.where(item)})" if source else "")

    return called


def _support(contract: Contract) -> constraints.Constraint:
    if contract.support == "token":
        return constraints.integer_interval(0, (contract.vocabulary or 1) - 1)
    bounds = _bounds(contract)
    if bounds is not None:
        return constraints.interval(*bounds)
    return constraints.boolean if contract.support == "binary" else constraints.nonnegative_integer
