"""Loading the data a spec names, and checking data before anything is built on them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.data import Contract, Splits
from sfumato.errors import DataError, PluginError, Problem, SpecError
from sfumato.options import arguments, path_options
from sfumato.registry import Registry, registry
from sfumato.resolve import load_spec
from sfumato.spec import Spec
from sfumato.split_checks import check_columns
from sfumato.value_checks import check_values

_LARGEST = float(np.finfo(np.float32).max)


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
    contract = splits.contract
    _check_contract(contract)
    for name, split in splits.named():
        check_columns(name, split, contract)
        check_values(name, split, contract)
    widths = {n: s.factors.shape[1] for n, s in splits.named() if s.factors is not None}
    if len(set(widths.values())) > 1:
        msg = f"factors differ in number from split to split: {widths}"
        raise DataError(msg, hint="give all splits the same factors, in the same order")


def _check_contract(contract: Contract) -> None:
    values = math.prod(contract.shape)
    for field in ("scale", "shift"):
        constant = getattr(contract, field)
        if isinstance(constant, tuple) and len(constant) != values:
            msg = f"the contract has {len(constant)} values of {field}; a datum has {values}"
            raise DataError(msg, hint="give one number, or one a value of the flattened datum")
        given = constant if isinstance(constant, tuple) else (constant,)
        large = next((number for number in given if abs(number) > _LARGEST), None)
        if large is not None:
            msg = f"the contract has {large:g} as {field}, which is no finite float32"
            raise DataError(msg, hint="scale the values before they are stored")
    if contract.support == "token" and contract.vocabulary is None:
        msg = "the contract says token values, and not how many symbols there are"
        raise DataError(msg, hint="give Contract(vocabulary=...)")
    if contract.binarize == "dynamic" and contract.support != "binary":
        msg = f'the contract says {contract.support} values, and binarize "dynamic", which makes 0 and 1'
        raise DataError(msg, hint='give Contract(support="binary"), or leave binarize out')
    classes, width = len(contract.classes), contract.condition_dim
    if contract.condition == "label" and width and classes not in (0, width):
        msg = f"the contract has a condition of {width} classes, and names {classes}"
        raise DataError(msg, hint="name every class, or none")
