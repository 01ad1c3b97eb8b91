r"""From stored values to those that a model sees.

``unit`` brings values into [0, 1]: bytes and 16-bit integers are divided by their type's maximum,
other numbers go from the training split's range, :math:`(x - \min) / (\max - \min)`. ``standard``
gives every value of the datum mean 0 and variance 1 over the training split, :math:`(x - \mu) /
\sigma`. What a linear map can say stays out of the arrays and goes into the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from sfumato import DataError
from sfumato_data.blocks import blocks
from sfumato_data.npy_format import Array

Scaling = Annotated[
    Literal["none", "unit", "standard"],
    Field(description="Values as they are; brought into [0, 1]; or with mean 0 and variance 1."),
]

Support = Literal["binary", "unit", "real"]

# Below this share of its magnitude, float32 cannot resolve the spread of a value.
_RESOLUTION = 1e-6
# Below this, the factor that makes 1 of a spread is no finite float32.
_LEAST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Values:
    """The data of one split.

    Args:
        x: ``(n, *X)``.
        counts: ``(n, *X)`` booleans, False where a value is missing; None: none is.
        where: What errors call it.
    """

    x: Array
    counts: Array | None
    where: str

    def seen(self, rows: slice) -> Array:
        """The values of these items that are not missing, flat."""
        return self.x[rows].reshape(-1) if self.counts is None else self.x[rows][self.counts[rows]]


@dataclass(frozen=True)
class Scaled:
    """Splits as they are stored, with the map from there to the model."""

    x: Mapping[str, Array]
    support: Support
    scale: float | tuple[float, ...] = 1.0
    shift: float | tuple[float, ...] = 0.0
    raw_scale: float = 1.0
    raw_shift: float = 0.0


def scaled(splits: Mapping[str, Values], how: Scaling) -> Scaled:
    """Scale the splits by what the ``train`` split holds.

    Missing values become 0, and under ``standard`` the mean, so that what stood there cannot reach
    a model.

    Raises:
        DataError: The values do not allow of this scaling.
    """
    hidden = {name: _without_missing(values) for name, values in splits.items()}
    dtype = hidden["train"].x.dtype
    if how == "standard":
        return _standard(hidden)
    if dtype == np.bool_:
        return Scaled({n: v.x.astype(np.uint8) for n, v in hidden.items()}, "binary")
    if how == "none":
        return _as_they_are(hidden)
    if dtype in (np.uint8, np.uint16):
        return _by_maximum(hidden, int(np.iinfo(dtype).max))
    return _by_range(hidden)


def _without_missing(values: Values) -> Values:
    if values.counts is None:
        return values
    zero = np.zeros((), values.x.dtype)
    return Values(np.where(values.counts, values.x, zero), values.counts, values.where)


def _as_they_are(splits: Mapping[str, Values]) -> Scaled:
    for values in splits.values():
        low, high = _range(values)
        if values.x.dtype.kind in "iu" and (low < 0 or high > 1):
            msg = f"{values.where} holds integers from {low} to {high}, and scaling is none"
            raise DataError(msg, hint='set scaling to "unit" or "standard", or store floats')
    return Scaled({n: v.x for n, v in splits.items()}, _support(splits, 1))


def _by_maximum(splits: Mapping[str, Values], maximum: int) -> Scaled:
    train = splits["train"]
    if _range(train)[1] <= 1:
        msg = f"{train.where} holds only 0 and 1, which scaling unit would divide by {maximum}"
        raise DataError(msg, hint='set scaling to "none"')
    arrays = {n: v.x for n, v in splits.items()}
    return Scaled(arrays, _support(splits, maximum), scale=1 / maximum)


def _by_range(splits: Mapping[str, Values]) -> Scaled:
    """Bring numbers into [0, 1] at once: a map left to float32 would miss its ends by rounding.

    The map is recorded all the same, for whoever has raw values later.
    """
    train = splits["train"]
    low, high = _range(train)
    if low == high:
        msg = f"{train.where} holds only the value {low}: there is no range to scale"
        raise DataError(msg, hint='look at the data, or set scaling to "none" or "standard"')
    if high - low < _LEAST:
        msg = f"{train.where} holds values from {low} to {high}, finer than float32 resolves"
        raise DataError(msg, hint="multiply them by a constant in the file")
    made = {}
    for name, values in splits.items():
        dtype = values.x.dtype if values.x.dtype == np.float64 else np.dtype(np.float32)
        x = np.empty(values.x.shape, dtype)
        for rows in blocks(x.shape):
            x[rows] = (values.x[rows].astype(np.float64) - low) / (high - low)
        made[name] = _without_missing(Values(x, values.counts, values.where))
    arrays, span = {n: v.x for n, v in made.items()}, high - low
    return Scaled(arrays, _support(made, 1), raw_scale=1 / span, raw_shift=-low / span)


def _standard(splits: Mapping[str, Values]) -> Scaled:
    train = splits["train"]
    mean, deviation = _moments(train)
    vague = (deviation > 0) & (deviation < np.maximum(_RESOLUTION * np.abs(mean), _LEAST))
    if vague.any():
        at = tuple(int(i) for i in np.argwhere(vague)[0])
        spread = f"{mean[at]:.9g} with a deviation of {deviation[at]:.3g}"
        msg = f"{train.where} has value {list(at)} around {spread}, finer than float32 resolves"
        raise DataError(msg, hint="subtract a constant from it in the file, or multiply it by one")
    # A value that never changes is only centred: there is no deviation to divide by.
    scale = 1 / np.where(deviation > 0, deviation, 1.0)
    arrays = {}
    for name, values in splits.items():
        x = values.x.astype(np.uint8) if values.x.dtype == np.bool_ else values.x
        if values.counts is not None:
            x = np.where(values.counts, x, mean.astype(x.dtype))
        arrays[name] = x
    shift = -mean * scale
    return Scaled(arrays, "real", tuple(scale.ravel().tolist()), tuple(shift.ravel().tolist()))


def _moments(values: Values) -> tuple[Array, Array]:
    """Mean and standard deviation of every value of the datum, ``(*X)``, in float64.

    The deviation of a value that never changes is exactly 0, whatever its mean is rounded to.
    """
    x, item = values.x, values.x.shape[1:]
    counts = np.broadcast_to(np.True_, x.shape) if values.counts is None else values.counts
    low, high = np.full(item, np.inf), np.full(item, -np.inf)
    total, squares = np.zeros(item), np.zeros(item)
    for rows in blocks(x.shape):
        block, where = x[rows].astype(np.float64), counts[rows]
        total += block.sum(0, where=where)
        low = np.minimum(low, block.min(0, where=where, initial=np.inf))
        high = np.maximum(high, block.max(0, where=where, initial=-np.inf))
    number = np.maximum(counts.sum(0), 1)
    mean = total / number
    for rows in blocks(x.shape):
        squares += ((x[rows].astype(np.float64) - mean) ** 2).sum(0, where=counts[rows])
    # Squares of the smallest numbers are 0: their spread is not.
    deviation = np.maximum(np.sqrt(squares / number), np.finfo(np.float64).tiny)
    return mean, np.where(high > low, deviation, 0.0)


def _range(values: Values) -> tuple[Any, Any]:
    """Smallest and largest value that is not missing, as Python numbers."""
    ends = [
        (seen.min().item(), seen.max().item())
        for rows in blocks(values.x.shape)
        if (seen := values.seen(rows)).size
    ]
    if not ends:
        msg = f"{values.where} is hidden by its mask altogether"
        raise DataError(
            msg, hint="1 is where a value counts, 0 where it is missing: is it reversed?"
        )
    return min(low for low, _ in ends), max(high for _, high in ends)


def _support(splits: Mapping[str, Values], one: int) -> Support:
    """What the values of all splits are, where ``one`` stands for 1."""
    support: Support = "binary"
    for values in splits.values():
        for rows in blocks(values.x.shape):
            seen = values.seen(rows)
            if not ((seen >= 0) & (seen <= one)).all():
                return "real"
            if support == "binary" and not ((seen == 0) | (seen == one)).all():
                support = "unit"
    return support
