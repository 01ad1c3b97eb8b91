"""Arrays and tensors that people hand over: such as torch can compute with, or refused with the remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import DataError
from sfumato.stored import Stored

LARGEST = 2.0**63
"""Values up to this have squares that are finite in float32, as every likelihood of reals needs."""

_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
NUMBERS = _FLOATS | _INTEGERS | {torch.bool}
"""Types that columns may have; halves are widened to the model's type, which changes no value."""

_NUMPY = {np.dtype(t) for t in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")}
_SHOWN = 1 << 25
"""Bytes that a view may seem to have without having them."""
_SMALL = 1 << 28
"""Bytes up to which an array is taken without asking for how much memory there is."""
_VALUES = 1 << 22
"""Values that are looked at together."""
_MEMORY = Path("/proc/meminfo")
_WANTED = "give a NumPy array or a tensor of shape (n, *X)"


def from_numpy(array: np.ndarray[Any, Any], name: str = "the array") -> Tensor:
    """An array in a type and a layout that torch can compute with.

    Raises:
        DataError: Not real numbers, a mask that would be lost, or more than memory holds.
    """
    if array.dtype.kind not in "bfiu":
        msg = f"{name} holds {array.dtype}, not numbers"
        raise DataError(msg, hint=_remedy(array))
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            msg = f"{name} is a masked array, and its mask would be lost"
            hint = "pass sfumato.Split(x, mask=…), as tensors: x = a.filled(0), mask = ~a.mask"
            raise DataError(msg, hint=hint)
        array = array.data
    native = array.dtype.newbyteorder("=")
    if native not in _NUMPY:
        native = np.dtype("f8" if array.dtype.kind == "f" else "i8")
    extent = sum((n - 1) * abs(s) for n, s in zip(array.shape, array.strides, strict=True))
    check_repeats(name, array.shape, native.itemsize, extent // (array.itemsize or 1) + 1)
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        msg = f"{name} holds {array.max()}, which no 64-bit integer of torch can be"
        raise DataError(msg, hint="give floats, or smaller numbers")
    if array.dtype != native or not (array.flags.c_contiguous and array.flags.writeable):
        check_memory(name, array.shape, native.itemsize)
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused as that
        made = np.require(array, native, ["C", "W"])
    # One item backwards is in order for NumPy, and not for torch.
    return torch.from_numpy(made if min(made.strides, default=0) >= 0 else made.copy())


def as_tensor(value: object, name: str) -> Tensor:
    """What a user hands over as data, as a plain tensor on the CPU.

    Raises:
        DataError: No array of real numbers, or more than memory holds.
    """
    if isinstance(value, np.ndarray):
        return from_numpy(value, name)
    if not isinstance(value, Tensor):
        msg = f"{name} is {type(value).__name__}, not an array"
        raise DataError(msg, hint=_WANTED)
    check_kind(value, name)
    # Negative views are lazy, and much of torch does not see through them.
    plain = value.detach().cpu().resolve_neg()
    check_column(plain, name)
    return plain


def check_kind(tensor: Tensor, name: str) -> None:
    """Raise a :class:`DataError` unless these are real numbers that torch computes with."""
    kind = _not_plain(tensor)
    if kind is not None:
        raise _odd(name, *kind)
    if tensor.is_complex():
        msg = f"{name} holds complex numbers"
        raise DataError(msg, hint="give real and imaginary parts as two channels")
    if tensor.dtype not in NUMBERS:
        msg = f"{name} holds {_name(tensor.dtype)}, which torch computes little with"
        other = "float" if tensor.is_floating_point() else "long"
        raise DataError(msg, hint=f"give tensor.{other}()")


def check_column(tensor: Tensor, name: str) -> None:
    """Raise a :class:`DataError` unless a tensor can be a column of a split."""
    check_kind(tensor, name)
    if isinstance(tensor, Stored):
        return
    if tensor.is_neg():
        raise _odd(name, "a negative view of another tensor", "tensor.resolve_neg()")
    if tensor.requires_grad:
        raise _odd(name, "a tensor that asks for its gradient", "tensor.detach()")
    extent = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    check_repeats(name, tuple(tensor.shape), tensor.element_size(), extent + 1)


def check_repeats(name: str, shape: tuple[int, ...], size: int, values: int) -> None:
    """Raise a :class:`DataError` if a large view of that shape repeats only so many ``values``."""
    count = math.prod(shape)
    if count * size > _SHOWN and values < count:
        msg = f"{name} of shape {shape} is a view that repeats {max(values, 1):,} stored values"
        hint = f"give each item once; a copy of the view would take {_bytes(count * size)}"
        raise DataError(msg, hint=hint)


def check_memory(name: str, shape: tuple[int, ...], size: int) -> None:
    """Raise a :class:`DataError` if memory does not hold a copy, of ``size`` bytes a value."""
    wanted = math.prod(shape) * size
    free = _free() if wanted > _SMALL else None
    if free is not None and wanted > free:
        msg = f"a copy of {name} of shape {shape} takes {_bytes(wanted)}, and {_bytes(free)} are free"
        hint = 'write it to .npy files, which data "shards" reads a part at a time'
        raise DataError(msg, hint=hint)


def check_finite(
    x: Tensor, called: Callable[[int], str], mask: Tensor | None = None, *, hint: str
) -> None:
    """Raise a :class:`DataError` that names the first value that counts and is not finite.

    Args:
        x: ``(n, *X)``, of any type.
        called: What a message calls the column of an item, by the item's number.
        mask: ``(n, *X)``, 0 where a value does not count, or None.
        hint: What to do about it.
    """
    if not x.is_floating_point():
        return
    first, count = "", 0
    for at in runs(x):
        rows = x[at]
        low, high = rows.aminmax()
        if bool(torch.isfinite(low) & torch.isfinite(high)):  # NaN becomes both of them
            continue
        bad = ~torch.isfinite(rows)
        if mask is not None:
            bad &= mask[at].bool()
        if bool(bad.any()):
            item, *index = bad.nonzero()[0].tolist()
            value = rows[(item, *index)].item()
            first = first or f"{called(at.start + item)}{index} = {value}"
            count += int(bad.sum())
    if first:
        msg = f"{first} ({count} such values)"
        raise DataError(msg, hint=hint)


def runs(column: Tensor) -> Iterator[slice]:
    """Cut the rows of a column into runs of about four million values."""
    step = max(1, _VALUES // max(1, math.prod(column.shape[1:])))
    for first in range(0, len(column), step):
        yield slice(first, first + step)


def _not_plain(tensor: Tensor) -> tuple[str, str] | None:
    """What kind of tensor this is, if it is none of plain numbers, and how to make one of it."""
    if tensor.is_nested:
        return "a nested tensor, whose items differ in shape", "items of one shape, with a mask"
    if tensor.layout is not torch.strided:
        return "a sparse tensor", "tensor.to_dense()"
    if tensor.is_quantized:
        return "a quantised tensor", "tensor.dequantize()"
    if tensor.is_meta:
        return "on the meta device, without values", "a tensor with values"
    if any(getattr(tensor, "names", ())):  # of torch 2.7
        return "a tensor with named axes", "tensor.rename(None)"
    return None


def _odd(name: str, what: str, instead: str) -> DataError:
    return DataError(f"{name} is {what}", hint=f"give {instead}")


def _remedy(array: np.ndarray[Any, Any]) -> str:
    if array.dtype.kind == "c":
        return "give real and imaginary parts as two channels"
    if array.dtype.kind == "O":
        return "give numbers of one type, items of one shape: numpy.array(list, dtype=float)"
    if array.dtype.kind in "Mm":
        return "give times as floats, such as seconds since a date"
    if array.dtype.names:
        return "give the fields as columns of one array"
    return _WANTED


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"


def _free() -> int | None:
    """Bytes of memory that can be had, where the platform tells."""
    try:
        text = _MEMORY.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return None if found is None else 1024 * int(found[1])
