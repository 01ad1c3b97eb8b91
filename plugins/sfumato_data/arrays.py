"""Data from NumPy files: one array a file, or an archive of several."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from sfumato import DataError, Splits, key, permuted
from sfumato_data.binarization import Binarize
from sfumato_data.columns import (
    Column,
    Columns,
    Condition,
    assembled,
    check_items,
    check_lengths,
)
from sfumato_data.files import opened
from sfumato_data.npy_format import read_npy
from sfumato_data.npz_format import Archive
from sfumato_data.scaling import Scaling

Share = Annotated[float, Field(ge=0, le=1)]
Fractions = Annotated[
    tuple[Share, Share, Share],
    Field(description="Shares of train, valid and test, where one array holds all items."),
]
SplitSeed = Annotated[int, Field(description="Seed of the permutation before such a division.")]
ChannelAxis = Annotated[
    Literal["none", "add"], Field(description="Put an axis of length 1 before those of the datum.")
]

_EVEN = (0.8, 0.1, 0.1)
_FIELD = "{split}"
_SPELLINGS = {"train": ("train",), "valid": ("valid", "validation", "val"), "test": ("test",)}


def npy(
    *,
    train: Annotated[Path, Field(examples=["examples/items.npy"])],
    valid: Path | None = None,
    test: Path | None = None,
    train_label: Path | None = None,
    valid_label: Path | None = None,
    test_label: Path | None = None,
    fractions: Fractions = _EVEN,
    split_seed: SplitSeed = 0,
    scaling: Scaling = "none",
    binarize: Binarize = "none",
    channel_axis: ChannelAxis = "none",
    condition: Condition = "none",
) -> Splits:
    """Reads arrays ``(n, *X)`` from ``.npy`` files, without unpickling.

    Where only ``train`` is given its items are divided by a keyed permutation. The support is read
    off the scaled values of all splits: only 0 and 1 is ``binary``, within [0, 1] is ``unit``,
    else ``real``.

    Args:
        train: Items to learn from, or all items.
        valid: Items that choose the epoch to keep.
        test: Items that are looked at last.
        train_label: Class numbers ``(n,)`` of the items of ``train``, from 0 on.
        valid_label: The same for ``valid``.
        test_label: The same for ``test``.
        fractions: Shares of train, valid and test where ``train`` is given alone. A split whose
            share comes to no item is left out.
        split_seed: Seed of the permutation before that division.
        scaling: ``"none"``; ``"unit"``: bytes and 16-bit integers by their type's maximum, other
            numbers by the training split's range; ``"standard"``: each value of the datum by its
            mean and deviation over the training split, where a value that never changes is only
            centred.
        binarize: Make values in [0, 1] 0 or 1.
        channel_axis: ``"add"`` makes ``(1, *X)`` of ``X``, as convolutions want of images.
        condition: Condition models on the class: ``"label"`` gives them a one-hot vector.
    """
    paths = {
        "train": (train, train_label),
        "valid": (valid, valid_label),
        "test": (test, test_label),
    }
    labelled = any(label is not None for _, label in paths.values())
    raw: dict[str, Columns] = {}
    for name, (path, label) in paths.items():
        if (label is not None) != (labelled and path is not None):
            known, missing = (name, f"{name}_label") if path else (f"{name}_label", name)
            msg = f"{known} is given without {missing}"
            raise DataError(msg, hint="label every split, or none")
        files = {"x": path, "label": label}
        if path is not None:
            raw[name] = {column: _file(p) for column, p in files.items() if p is not None}
    if set(raw) == {"train"}:
        raw = _divided(raw["train"], fractions, split_seed)
    return assembled(
        raw, scaling=scaling, binarize=binarize, channel_axis=channel_axis, condition=condition
    )


def npz(
    *,
    path: Annotated[Path, Field(examples=["examples/items.npz"])],
    x: str = "x",
    label: str | None = None,
    condition: str | None = None,
    mask: str | None = None,
    factors: str | None = None,
    fractions: Fractions = _EVEN,
    split_seed: SplitSeed = 0,
    scaling: Scaling = "none",
    binarize: Binarize = "none",
    channel_axis: ChannelAxis = "none",
) -> Splits:
    """Reads arrays by key from an ``.npz`` archive, without unpickling.

    A key with ``{split}`` in it names one array for each split: ``"x_{split}"`` reads ``x_train``,
    and ``x_valid`` and ``x_test`` where they exist. A key without it names all items, which are
    divided by a keyed permutation. Support, scaling and binarisation are those of ``npy``.

    Args:
        path: The archive.
        x: Key of the data ``(n, *X)``.
        label: Key of the class numbers ``(n,)``, from 0 on.
        condition: Key of the conditions ``(n, C)``; or that of ``label``, whose classes become
            one-hot vectors.
        mask: Key of the mask ``(n, *X)``: 1 where a value counts, 0 where it is missing. What
            stands at a missing value is not used and may be NaN.
        factors: Key of known causes of variation ``(n, factors)``.
        fractions: Shares of train, valid and test of undivided items. A split whose share comes to
            no item is left out.
        split_seed: Seed of the permutation before that division.
        scaling: ``"none"``, ``"unit"`` or ``"standard"``.
        binarize: Make values in [0, 1] 0 or 1.
        channel_axis: ``"add"`` makes ``(1, *X)`` of ``X``.
    """
    by_class = condition is not None and condition == label
    vectors = None if by_class else condition
    offered = {"x": x, "label": label, "condition": vectors, "mask": mask, "factors": factors}
    keys = {column: name for column, name in offered.items() if name is not None}
    odd = [c for c, name in keys.items() if (_FIELD in name) != (_FIELD in x)]
    if odd:
        msg = f'the keys "{x}" and "{keys[odd[0]]}" do not divide the items alike'
        raise DataError(msg, hint=f"write {_FIELD} in every key, or in none")
    with opened(path) as stream:
        archive = Archive(stream, str(path))
        raw = (
            _named(archive, keys)
            if _FIELD in x
            else _divided(_read(archive, keys), fractions, split_seed)
        )
    return assembled(
        raw,
        scaling=scaling,
        binarize=binarize,
        channel_axis=channel_axis,
        condition="label" if by_class else "none",
    )


def _file(path: Path) -> Column:
    with opened(path) as stream:
        return Column(read_npy(stream, path.stat().st_size, str(path)), str(path))


def _read(archive: Archive, keys: Mapping[str, str]) -> Columns:
    return {column: Column(archive.array(k), archive.where(k)) for column, k in keys.items()}


def _named(archive: Archive, keys: Mapping[str, str]) -> dict[str, Columns]:
    """Columns by split, under the first spelling of its name for which there are data."""
    raw = {}
    for name, spellings in _SPELLINGS.items():
        found = [s for s in spellings if keys["x"].replace(_FIELD, s) in archive]
        if found or name == "train":
            spelling = found[0] if found else name
            wanted = {column: k.replace(_FIELD, spelling) for column, k in keys.items()}
            raw[name] = _read(archive, wanted)
    return raw


def _divided(columns: Columns, fractions: Fractions, seed: int) -> dict[str, Columns]:
    """The items in a keyed order, cut at the cumulated shares."""
    if not math.isclose(sum(fractions), 1):
        msg = f"fractions {list(fractions)} add up to {sum(fractions):g}, not 1"
        raise DataError(
            msg, hint="give the shares of train, valid and test, such as 0.8, 0.1, 0.1"
        )
    n = check_lengths(columns)
    check_items(columns)
    first, second = round(fractions[0] * n), round((fractions[0] + fractions[1]) * n)
    if first == 0:
        msg = f"a training share of {fractions[0]:g} leaves none of {n} items"
        raise DataError(msg, hint="raise the first of the fractions")
    order = permuted(torch.arange(n), n, key(seed, "division of the data")).numpy()
    parts = {"train": order[:first], "valid": order[first:second], "test": order[second:]}
    return {
        name: {column: c.take(np.sort(rows)) for column, c in columns.items()}
        for name, rows in parts.items()
        if len(rows)
    }
