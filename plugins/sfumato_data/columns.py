"""From arrays of a file to the columns of a split, each checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sfumato import Contract, DataError, Split, Splits, conditioned_on_labels
from sfumato_data.binarization import Binarize, binarized
from sfumato_data.blocks import blocks
from sfumato_data.npy_format import Array
from sfumato_data.scaling import Scaling, Values, scaled

_MOST_CLASSES = 1000
_ROWS_AXES = 2
_LARGEST = float(np.finfo(np.float32).max)
# torch computes little or nothing with some of NumPy's types.
_COMPUTABLE = {np.float16: np.float32, np.longdouble: np.float64, np.uint64: np.float64}
_STORABLE = {np.uint16: np.int32, np.uint32: np.int64}


@dataclass(frozen=True)
class Column:
    """An array of a file.

    Args:
        values: ``(n, ...)``.
        where: What errors call it.
    """

    values: Array
    where: str

    def take(self, rows: Array) -> Column:
        """The items at ``rows``, in that order."""
        return Column(self.values[rows], self.where)


Columns = Mapping[str, Column]
Condition = Annotated[
    Literal["none", "label"],
    Field(description='Condition models on the class: "label" gives them a one-hot vector.'),
]


def check_lengths(columns: Columns) -> int:
    """Count the items; refuse columns of other lengths than ``x``, and items without values."""
    x = columns["x"]
    if x.values.ndim == 0 or 0 in x.values.shape:
        msg = f"{x.where} has shape {x.values.shape}, which holds no values"
        raise DataError(msg, hint="the first axis counts items, and every item needs a value")
    n = len(x.values)
    for column in columns.values():
        if column.values.ndim == 0 or len(column.values) != n:
            msg = f"{column.where} has shape {column.values.shape}, and {x.where} {n} items"
            raise DataError(msg, hint="every item needs its row, in the same order")
    return n


def assembled(
    raw: Mapping[str, Columns],
    *,
    scaling: Scaling,
    binarize: Binarize,
    channel_axis: Literal["none", "add"],
    condition: Condition = "none",
) -> Splits:
    """Check the columns of every split, and make splits and contract of them.

    Args:
        raw: Columns by split: ``x``, and perhaps ``label``, ``condition``, ``mask`` and
            ``factors``.
        scaling: How values are scaled.
        binarize: How values are made 0 or 1.
        channel_axis: Whether an axis of length 1 is put before those of the datum.
        condition: Whether the class is the condition.
    """
    values = {}
    for name, columns in raw.items():
        check_lengths(columns)
        values[name] = _values(columns, add_axis=channel_axis == "add")
    _check_alike(values)
    stored = scaled(values, scaling)
    splits = {name: _split(raw[name], values[name], stored.x[name]) for name in raw}
    train = splits["train"]
    widths = {name: s.condition.shape[1] for name, s in splits.items() if s.condition is not None}
    if len(set(widths.values())) > 1:
        msg = f"conditions differ in width from split to split: {widths}"
        raise DataError(msg, hint="give every split (n, C), with one C")
    labels = [split.label for split in splits.values() if split.label is not None]
    contract = Contract(
        shape=tuple(train.x.shape[1:]),
        support=stored.support,
        scale=stored.scale,
        shift=stored.shift,
        raw_scale=stored.raw_scale,
        raw_shift=stored.raw_shift,
        condition_dim=widths.get("train", 0),
        classes=class_names(torch.cat(labels)) if labels else (),
    )
    made = Splits(train, contract, splits.get("valid"), splits.get("test"))
    made = binarized(made, binarize)
    return conditioned_on_labels(made) if condition == "label" else made


def class_names(labels: Tensor) -> tuple[str, ...]:
    """Name the classes 0 to the largest label; no names where they are too many to be classes."""
    count = int(labels.max()) + 1
    return tuple(str(i) for i in range(count)) if count <= _MOST_CLASSES else ()


def check_items(columns: Columns) -> None:
    """Raise a :class:`DataError` that counts items as the files do: before they are divided."""
    _values(columns, add_axis=columns["x"].values.ndim == 1)
    for column in ("condition", "factors"):
        _rows(columns.get(column))
    if "label" in columns:
        labels_of(columns["label"])


def _values(columns: Columns, *, add_axis: bool) -> Values:
    x, mask = columns["x"], columns.get("mask")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused below
        array = x.values.astype(_COMPUTABLE.get(x.values.dtype.type, x.values.dtype), copy=False)
    if mask is not None and mask.values.shape != array.shape:
        msg = f"{mask.where} has shape {mask.values.shape}, and {x.where} {array.shape}"
        raise DataError(msg, hint="a mask has one entry for every value: 1 counts, 0 is missing")
    counts = None if mask is None else _booleans(mask)
    if add_axis:
        array = array[:, None]
        counts = None if counts is None else counts[:, None]
    if array.ndim == 1:
        msg = f"{x.where} has one axis: one number per item"
        raise DataError(msg, hint='set channel_axis to "add" for items of shape (1,)')
    made = Values(array, counts, x.where)
    _check_finite(made)
    return made


def _booleans(mask: Column) -> Array:
    if mask.values.dtype != np.bool_ and not ((mask.values == 0) | (mask.values == 1)).all():
        msg = f"{mask.where} holds other values than 0 and 1"
        raise DataError(msg, hint="a mask says 1 where a value counts and 0 where it is missing")
    return mask.values.astype(np.bool_)


def _check_finite(values: Values) -> None:
    if values.x.dtype.kind != "f":
        return
    for rows in blocks(values.x.shape):
        block = values.x[rows]
        good = np.abs(block) <= _LARGEST  # False for NaN too
        if values.counts is not None:
            good |= ~values.counts[rows]
        if not good.all():
            item, *index = (int(i) for i in np.argwhere(~good)[0])
            value = block[(item, *index)]
            msg = f"{values.where} item {rows.start + item} has {value} at {index}: not a finite float32"
            hidden = "remove such items, or name a mask that hides the values"
            raise DataError(msg, hint=_remedy(float(value), hidden))


def _remedy(value: float, otherwise: str) -> str:
    """What to do about a value that is too large for float32, or else none."""
    return "scale the values before they are written" if math.isfinite(value) else otherwise


def _check_alike(values: Mapping[str, Values]) -> None:
    train = values["train"]
    shape = train.x.shape[1:]
    for other in values.values():
        if other.x.shape[1:] != shape:
            found = f"items of {other.where} have shape {other.x.shape[1:]}"
            msg = f"{found}, and those of {train.where} {shape}"
            raise DataError(msg, hint="give all splits items of one shape")
        if other.x.dtype != train.x.dtype:
            msg = f"{other.where} holds {other.x.dtype}, and {train.where} {train.x.dtype}"
            raise DataError(msg, hint="one scaling must fit all splits: save them in one type")


def _split(columns: Columns, values: Values, x: Array) -> Split:
    label = columns.get("label")
    return Split(
        x=_tensor(x),
        label=None if label is None else labels_of(label),
        condition=_rows(columns.get("condition")),
        mask=None if values.counts is None else _tensor(values.counts),
        factors=_rows(columns.get("factors")),
    )


def labels_of(label: Column) -> Tensor:
    """Class numbers ``(n,)``, or a :class:`DataError` that says why they are none."""
    values = label.values
    if values.ndim != 1 or values.dtype.kind not in "biu":
        msg = (
            f"{label.where} holds {values.dtype} of shape {values.shape}, not one integer per item"
        )
        raise DataError(msg, hint="a label is the number of a class, from 0 on")
    if values.min() < 0 or values.max() > np.iinfo(np.int64).max:
        item = int(np.argmax((values < 0) | (values > np.iinfo(np.int64).max)))
        msg = f"{label.where} item {item} has {values[item]}: labels go from {values.min()} to {values.max()}"
        raise DataError(msg, hint="number the classes from 0 on")
    return torch.from_numpy(values.astype(np.int64))


def _rows(column: Column | None) -> Tensor | None:
    if column is None:
        return None
    values = column.values
    if values.ndim != _ROWS_AXES or 0 in values.shape:
        msg = f"{column.where} has shape {values.shape}, not (n, width)"
        raise DataError(msg, hint="give one row per item; classes as one-hot vectors")
    with np.errstate(over="ignore"):
        rows = torch.from_numpy(values.astype(np.float32))
    if not bool(torch.isfinite(rows).all()):
        item, at = torch.nonzero(~torch.isfinite(rows))[0].tolist()
        msg = f"{column.where} item {item} has {values[item, at]} at [{at}]: not a finite float32"
        raise DataError(msg, hint=_remedy(float(values[item, at]), "remove such items"))
    return rows


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(
        np.ascontiguousarray(array, _STORABLE.get(array.dtype.type, array.dtype))
    )
