"""Checks of the columns of a split: their types, their shapes, and the values of all but ``x``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from torch import Tensor

from sfumato.arrays import check_column, runs
from sfumato.data import Contract, Split
from sfumato.errors import DataError
from sfumato.labels import check_label

_ROWS = "give one row an item in each column, in the same order"


def check_columns(name: str, split: Split, contract: Contract) -> None:
    """Raise a :class:`DataError`, with split, item and field, unless the columns keep to the contract.

    The values of ``x`` are not looked at.
    """
    columns = {f.name: getattr(split, f.name) for f in fields(split)}
    given = {field: c for field, c in columns.items() if field == "x" or c is not None}
    for field, column in given.items():
        if not isinstance(column, Tensor):
            msg = f"{field} of {name} is {type(column).__name__}, not a tensor"
            raise DataError(msg, hint="convert it with torch.as_tensor")
        if column.dim() == 0:
            msg = f"{field} of {name} is a single number"
            raise DataError(msg, hint="its first axis counts the items")
        check_column(column, f"{field} of {name}")
    _check_shapes(name, given, contract)
    if split.label is not None:
        check_label(name, split.label, len(contract.classes) or None)
    if split.mask is not None:
        _check_mask(name, split.mask)
    if split.condition is not None:
        _check_condition(name, split.condition, contract)
    if split.factors is not None:
        hint = "leave the item out, or the factor"
        _refuse_first(name, "factors", hint, split.factors, _not_float32)


def _check_shapes(name: str, given: dict[str, Tensor], contract: Contract) -> None:
    x = given["x"]
    if not len(x):
        msg = f"the {name} split is empty"
        hint = "give it items" if name == "train" else f"give it items, or leave {name} out"
        raise DataError(msg, hint=hint)
    _same(name, "x", x, contract.shape)
    for field, column in given.items():
        if len(column) != len(x):
            msg = f"{name} has {len(x)} items and {len(column)} rows of {field}"
            raise DataError(msg, hint=_ROWS)
    if "mask" in given:
        _same(name, "mask", given["mask"], contract.shape)
    if "factors" in given:
        columns = tuple(given["factors"].shape[1:])
        wanted = (len(contract.factors),) if contract.factors else columns[:1]
        _same(name, "factors", given["factors"], wanted or (1,))
    if "condition" in given or contract.condition_dim:
        width = (contract.condition_dim,) if contract.condition_dim else ()
        _same(name, "condition", given.get("condition"), width)


def _same(name: str, field: str, column: Tensor | None, wanted: tuple[int, ...]) -> None:
    found = () if column is None else tuple(column.shape[1:])
    if found != wanted:
        msg = f"items of {name} have {field} of shape {found}; the contract says {wanted}"
        raise DataError(msg, hint=_HINTS[field])


_HINTS = {
    "x": "give every split items of one shape, and the contract theirs: Contract(shape=...)",
    "mask": "a mask has one entry for every value of x: 1 counts, 0 is missing",
    "factors": "give (n, factors), a column for each of Contract(factors=...)",
    "condition": "give every split (n, C), and the contract its width: Contract(condition_dim=C)",
}


def _check_mask(name: str, mask: Tensor) -> None:
    """It says 0 or 1 of every value, and 1 of some."""
    called = "mask", "a mask says 1 where a value counts and 0 where it is missing"
    _refuse_first(name, *called, mask, lambda rows: (rows != 0) & (rows != 1))
    if not any(bool(mask[at].any()) for at in runs(mask)):
        msg = f"the mask of {name} hides every value"
        raise DataError(
            msg, hint="1 is where a value counts: give 1 - mask, or leave the split out"
        )


def _check_condition(name: str, condition: Tensor, contract: Contract) -> None:
    hint = "remove the items, or scale the conditions"
    _refuse_first(name, "condition", hint, condition, _not_float32)
    if contract.condition != "label":
        return
    for at in runs(condition):
        rows = condition[at]
        wrong = ((rows != 0) & (rows != 1)).any(1) | (rows.sum(1) != 1)
        if bool(wrong.any()):
            item = int(wrong.nonzero()[0])
            msg = f"{name} item {at.start + item} has the condition {rows[item].tolist()[:8]}, not one class"
            hint = 'give 1 at the class and 0 elsewhere, or Contract(condition="vector")'
            raise DataError(msg, hint=hint)


def _not_float32(rows: Tensor) -> Tensor:
    """Which values a model cannot be given: NaN, infinite, or too large."""
    return ~rows.float().isfinite()


def _refuse_first(
    name: str, field: str, hint: str, column: Tensor, wrong: Callable[[Tensor], Tensor]
) -> None:
    """Raise a :class:`DataError` that names the first wrong value of a column, read a part at a time."""
    for at in runs(column):
        rows = column[at]
        bad = wrong(rows)
        if bool(bad.any()):
            item, *index = bad.nonzero()[0].tolist()
            value = rows[(item, *index)].item()
            msg = f"{name} item {at.start + item} has {field}{index} = {value}"
            raise DataError(msg, hint=hint)
