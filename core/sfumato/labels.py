"""Class numbers, and checks of them."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.arrays import check_column
from sfumato.errors import DataError

MOST = 1 << 16
"""Classes that a one-hot condition may tell apart."""


def check_label(name: str, label: Tensor, classes: int | None) -> None:
    """Raise a :class:`DataError` unless ``label`` ``(n,)`` numbers classes from 0 on.

    Args:
        name: Name of the split.
        label: The column.
        classes: How many classes there are, if that is known.
    """
    if not isinstance(label, Tensor):
        msg = f"label of {name} is {type(label).__name__}, not a tensor"
        raise DataError(msg, hint="convert it with torch.as_tensor")
    check_column(label, f"label of {name}")
    if label.is_floating_point() and not bool(label.isfinite().all()):
        first, *_ = (~label.isfinite()).nonzero()[0].tolist()
        msg = f"{name} item {first} has a label {label[first].tolist()}"
        raise DataError(msg, hint="remove the items without a class, or leave the labels out")
    if label.dim() != 1 or label.dtype is not torch.int64:
        kind = str(label.dtype).removeprefix("torch.")
        msg = f"label of {name} is {kind} of shape {tuple(label.shape)}, not one int64 an item"
        one_hots = label.dim() == 2 and label.shape[1] > 1  # noqa: PLR2004 - rows of some width
        hint = "label.argmax(1) of one-hot rows" if one_hots else "label.flatten().long()"
        raise DataError(msg, hint=f"a label is the number of a class, from 0 on: {hint}")
    if not label.numel():
        return
    least, most = label.aminmax()
    if int(least) < 0:
        first = int((label < 0).nonzero()[0])
        msg = f"{name} item {first} has a label {int(label[first])}"
        raise DataError(msg, hint="number the classes from 0 on, or leave the labels out")
    if classes is not None and int(most) >= classes:
        first = int((label >= classes).nonzero()[0])
        msg = f"{name} item {first} has a label {int(label[first])}, and {classes} classes have names"
        raise DataError(msg, hint="name every class in Contract(classes=…), or number them anew")
