"""What may mislead of data that can be trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sfumato.arrays import runs
from sfumato.data import Split, Splits, model_space

_FIRST = 64
"""Items that are looked at before the others: over so many, few features stay the same."""
_GROWTH = 4


def cautions(splits: Splits) -> list[str]:
    """Sentences about data that train, but whose figures may mislead; most data give none.

    If all training items are equal there is nothing to learn but that item. Of real values, a
    feature that never changes buys as much density as the least scale of a likelihood allows. In
    values of [0, 1], or of 0 and 1, such features are the background of pictures: a likelihood
    whose scale is at its minimum says so itself.

    Rows that lie in files are read a part at a time, and none after every feature has changed.

    Args:
        splits: Data that :func:`sfumato.datasets.check_splits` lets pass.
    """
    train, contract = splits.train, splits.contract
    real, values = contract.support == "real", math.prod(contract.shape)
    same, value, known = _unchanged(train, every=not real)
    count = int((same & known).sum())
    if count and count == int(known.sum()):
        n = len(train)
        what = f"all {n:,} items of train are equal" if n > 1 else "train has a single item"
        return [f"{what}: there is nothing else to learn; check the data, or give more of them"]
    if not (real and count):
        return []
    first = (same & known).view(contract.shape).nonzero()[0].tolist()
    found = model_space(value.view(1, *contract.shape), contract, torch.float64)[0]
    said = (
        f"{count:,} of {values:,} features never change in train, first x{first} = "
        f"{found[tuple(first)].item():.6g}: a density of real values is as high there as the least "
        "scale of the likelihood lets it be; leave such features out, or do not compare densities"
    )
    return [said]


def _unchanged(split: Split, *, every: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Which features of a split have one value in all items where they count.

    Args:
        split: The items.
        every: Stop where one feature has changed, for it is asked whether none has.

    Returns:
        Flat ``(P,)`` each: whether all values that were looked at are equal, the first of them,
        and whether there was any.
    """
    x, mask = split.x, split.mask
    value = x[:1].reshape(-1).clone()
    same = torch.ones(len(value), dtype=torch.bool)
    known = torch.full_like(same, fill_value=mask is None)
    left = torch.arange(len(value))
    for at in _growing(x):
        rows = _columns(x[at], left)
        if mask is None:
            equal = (rows == value[left]).all(0)
        else:
            counts = _columns(mask[at], left) != 0
            new = counts.any(0) & ~known[left]
            first = rows.gather(0, counts.int().argmax(0, keepdim=True))[0]
            value[left] = torch.where(new, first, value[left])
            known[left] |= new
            equal = ((rows == value[left]) | ~counts).all(0)
        same[left] &= equal
        left = left[equal]
        if not len(left) or (every and not bool(same.all())):
            break
    return same, value, known


def _columns(rows: Tensor, which: Tensor) -> Tensor:
    """Some features of items ``(n, *X)``, ``(n, P)``."""
    flat = rows.reshape(len(rows), -1)
    return flat if len(which) == flat.shape[1] else flat.index_select(1, which)


def _growing(x: Tensor) -> Iterator[slice]:
    """Runs of items: few at first, then as many as are looked at together."""
    most = next(runs(x)).stop
    first, step = 0, min(_FIRST, most)
    while first < len(x):
        yield slice(first, first + step)
        first, step = first + step, min(_GROWTH * step, most)
