"""Loading the data a spec names, and checking data before anything is built on them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from sfumato.data import Contract, Split, Splits, model_space, visible
from sfumato.errors import DataError, PluginError, Problem, SpecError
from sfumato.options import arguments, path_options
from sfumato.registry import Registry, registry
from sfumato.resolve import load_spec
from sfumato.spec import Spec
from sfumato.stored import Stored

_VALUES = 1 << 22
"""Values that are looked at together."""
_ROUNDING = 1e-6


def load_splits(
    spec: Spec | Mapping[str, Any] | str | os.PathLike[str], *, parts: Registry = registry
) -> Splits:
    """The data that a spec names, checked. Relative paths are relative to the spec's file.

    Args:
        spec: A spec, a mapping or a path.
        parts: Where parts are looked up.

    Raises:
        SpecError: The spec is wrong, or names no data.
        DataError: The data are missing, damaged or not as their contract says.

    Example:
        >>> splits = load_splits({"data": "digits", "model": {"family": "vae"}})
        >>> len(splits.train), splits.seen("test").x.max()
        (1350, tensor(1.))
    """
    spec = load_spec(spec, parts=parts)
    if spec.data is None:
        hint = """name them, as in --set 'data={"type": "npy", "train": "x.npy"}', or pass data="""
        raise SpecError([Problem("K204", "/data", "the spec names no data", hint)])
    entry = parts.get("data", spec.data.type)
    splits = entry.load()(**data_options(spec, parts))
    if not isinstance(splits, Splits):
        msg = f"data {entry.name!r} of {entry.distribution} returned {type(splits).__name__}"
        raise PluginError(msg, hint="a data plugin returns sfumato.Splits")
    check_splits(splits)
    return splits


def data_options(spec: Spec, parts: Registry = registry) -> dict[str, Any]:
    """The options of the data that a spec names, paths taken from where the spec stands."""
    if spec.data is None:
        return {}
    options = arguments(spec.data)
    for name in path_options(parts.get("data", spec.data.type)):
        if isinstance(options[name], Path):
            options[name] = spec.base / options[name]
    return options


def check_splits(splits: Splits) -> None:
    """Raise a :class:`DataError`, with split, item and field, unless all keep to the contract."""
    _check_contract(splits.contract)
    for name, split in splits.named():
        _check_shapes(name, split, splits)
        _check_finite(name, split)
        _check_values(name, split, splits.contract)


def _check_contract(contract: Contract) -> None:
    values = math.prod(contract.shape)
    for field in ("scale", "shift"):
        constant = getattr(contract, field)
        if isinstance(constant, tuple) and len(constant) != values:
            msg = f"the contract has {len(constant)} values of {field}; a datum has {values}"
            raise DataError(msg)


def _check_shapes(name: str, split: Split, splits: Splits) -> None:
    for field in ("x", "label", "condition", "mask", "factors"):
        column = getattr(split, field)
        if not isinstance(column, Tensor) and (field == "x" or column is not None):
            msg = f"{field} of {name} is {type(column).__name__}, not a tensor"
            raise DataError(msg, hint="convert it with torch.as_tensor")
    contract, n = splits.contract, len(split)
    if n == 0:
        msg = f"the {name} split is empty"
        raise DataError(msg)
    _same(name, "x", tuple(split.x.shape[1:]), contract.shape)
    for field in ("label", "condition", "mask", "factors"):
        column = getattr(split, field)
        if column is not None and len(column) != n:
            msg = f"{name} has {n} items and {len(column)} rows of {field}"
            raise DataError(msg)
    if split.mask is not None:
        _same(name, "mask", tuple(split.mask.shape[1:]), contract.shape)
        if not bool(((split.mask == 0) | (split.mask == 1)).all()):
            msg = f"the mask of {name} holds other values than 0 and 1"
            raise DataError(msg, hint="it says 1 where a value counts and 0 where it is missing")
    named = len(contract.factors)
    if named and split.factors is not None:
        _same(name, "factors", tuple(split.factors.shape[1:]), (named,))
    width = () if split.condition is None else tuple(split.condition.shape[1:])
    _same(name, "condition", width, (contract.condition_dim,) if contract.condition_dim else ())


def _same(name: str, field: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        msg = f"items of {name} have {field} of shape {found}; the contract says {wanted}"
        raise DataError(msg)


def _check_finite(name: str, split: Split) -> None:
    """Values that the mask hides may be anything."""
    for field in ("x", "condition"):
        column = getattr(split, field)
        if column is None or not column.is_floating_point():
            continue
        first, count = "", 0
        for at in _runs(column):
            rows = column[at]
            bad = ~torch.isfinite(rows)
            if field == "x" and split.mask is not None:
                bad &= split.mask[at].bool()
            if bool(bad.any()):
                item, *index = bad.nonzero()[0].tolist()
                value = rows[(item, *index)].item()
                first = (
                    first or f"{_item(name, split, at.start + item)} has {field}{index} = {value}"
                )
                count += int(bad.sum())
        if first:
            msg = f"{first} ({count} such values)"
            raise DataError(msg, hint="remove the items, or mask the values with Split(mask=...)")


def _check_values(name: str, split: Split, contract: Contract) -> None:
    """Values are those that the contract says; half a rounding step beyond [0, 1] is within it."""
    support = _support(contract)
    if _certain(split.x.dtype, contract, support):
        return
    for at in _runs(split.x):
        rows = split.take(at)
        x = model_space(rows.x, contract, torch.float64)
        if rows.mask is not None:
            x = visible(x, rows.mask)
        outside = ~support.check(x)
        if bool(outside.any()):
            item, *index = outside.nonzero()[0].tolist()
            value = x[(item, *index)].item()
            msg = f"{_item(name, split, at.start + item)} has x{index} = {value:.6g}"
            raise DataError(f"{msg}; the contract says {contract.support} values")


def _certain(dtype: torch.dtype, contract: Contract, support: constraints.Constraint) -> bool:
    """Whether the type of stored values says that they keep to the contract."""
    if support is constraints.real:
        return True  # being finite is all there is to it
    plain = isinstance(contract.scale, float) and isinstance(contract.shift, float)
    if (
        dtype.is_floating_point
        or not plain
        or not isinstance(support, type(constraints.unit_interval))
    ):
        return False
    ends = torch.tensor([torch.iinfo(dtype).min, torch.iinfo(dtype).max])
    return bool(support.check(model_space(ends, contract, torch.float64)).all())


def _runs(column: Tensor) -> Iterator[slice]:
    step = max(1, _VALUES // max(1, math.prod(column.shape[1:])))
    for first in range(0, len(column), step):
        yield slice(first, first + step)


def _item(name: str, split: Split, item: int) -> str:
    """What a message calls an item: of one that lies in a file, with the place."""
    where = f" ({split.x.source.where(item)})" if isinstance(split.x, Stored) else ""
    return f"{name} item {item}{where}"


def _support(contract: Contract) -> constraints.Constraint:
    if contract.support == "token":
        return constraints.integer_interval(0, (contract.vocabulary or 1) - 1)
    if contract.support == "unit" or contract.binarize == "dynamic":
        return constraints.interval(-_ROUNDING, 1 + _ROUNDING)
    if contract.support == "binary":
        return constraints.boolean
    return constraints.nonnegative_integer if contract.support == "count" else constraints.real
