"""Data in many files, which need not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from sfumato import Contract, DataError, Split, Splits, Stored, conditioned_on_labels
from sfumato_data.binarization import binarized
from sfumato_data.blocks import blocks
from sfumato_data.columns import Column, Condition, class_names, labels_of
from sfumato_data.files import opened
from sfumato_data.npy_format import read_npy
from sfumato_data.shard_files import Rows, stored_rows

_LARGEST = float(torch.finfo(torch.float32).max)
_MAXIMA = {"u1": 255, "u2": 65535}


def shards(
    *,
    train: Annotated[Path, Field(examples=["examples/shards"])],
    valid: Path | None = None,
    test: Path | None = None,
    train_label: Path | None = None,
    valid_label: Path | None = None,
    test_label: Path | None = None,
    key: str = "x",
    memory: Annotated[
        Literal["stream", "load"],
        Field(description="Read rows when they are needed, or all of them before."),
    ] = "stream",
    scaling: Annotated[
        Literal["none", "unit"],
        Field(description="Values as they are; or bytes and 16-bit integers by their maximum."),
    ] = "none",
    binarize: Annotated[
        Literal["none", "dynamic"],
        Field(description="Turn grey values into 0 and 1, drawn anew in every epoch."),
    ] = "none",
    channel_axis: Annotated[
        Literal["none", "add"],
        Field(description="Put an axis of length 1 before those of the datum."),
    ] = "none",
    condition: Condition = "none",
) -> Splits:
    """Reads arrays ``(n, *X)`` that lie in shards: ``.npy`` and ``.safetensors`` files.

    The rows of a split are those of its shards one after the other, in the order of their names.
    Training reads some MiB at a time, in an order of blocks that lie together, and keeps no more
    in memory. The support is read off the values: only 0 and 1 is ``binary``, within [0, 1] is
    ``unit``, else ``real``.

    Args:
        train: Items to learn from: a folder of shards, or one file.
        valid: Items that choose the epoch to keep.
        test: Items that are looked at last.
        train_label: Class numbers ``(n,)`` of the items of ``train``, from 0 on: one ``.npy``
            file, which is kept in memory.
        valid_label: The same for ``valid``.
        test_label: The same for ``test``.
        key: Name of the tensor in ``.safetensors`` files.
        memory: ``"stream"``; ``"load"`` reads all items before training, for disks that are slow,
            and gives the same results to the last bit.
        scaling: ``"none"``; ``"unit"``: bytes and 16-bit integers by their type's maximum.
        binarize: ``"dynamic"`` draws 0 or 1 of values in [0, 1], anew in every epoch.
        channel_axis: ``"add"`` makes ``(1, *X)`` of ``X``, as convolutions want of images.
        condition: Condition models on the class: ``"label"`` gives them a one-hot vector.
    """
    paths = {"train": train, "valid": valid, "test": test}
    rows = {
        name: stored_rows(path, key, add_axis=channel_axis == "add")
        for name, path in paths.items()
        if path is not None
    }
    _check_alike(rows)
    labels = _labels(rows, {"train": train_label, "valid": valid_label, "test": test_label})
    divisor = _divisor(rows["train"], scaling)
    contract = Contract(
        shape=tuple(rows["train"].x.shape[1:]),
        support=_support(rows, divisor),
        scale=1 / divisor,
        classes=class_names(torch.cat(list(labels.values()))) if labels else (),
    )
    load = memory == "load"
    made = {
        name: Split(found.x.whole() if load else found.x, labels.get(name))
        for name, found in rows.items()
    }
    splits = Splits(
        train=made["train"],
        contract=contract,
        valid=made.get("valid"),
        test=made.get("test"),
        block=rows["train"].x.block,  # loaded rows too, so that they are used in the same order
    )
    splits = binarized(splits, binarize)
    return conditioned_on_labels(splits) if condition == "label" else splits


def _check_alike(rows: Mapping[str, Rows]) -> None:
    train = rows["train"]
    for name, other in rows.items():
        for what, one, two in (
            ("items of shape", tuple(train.x.shape[1:]), tuple(other.x.shape[1:])),
            ("values of type", train.dtype, other.dtype),
        ):
            if one != two:
                msg = f"train holds {what} {one}, and {name} {two}"
                raise DataError(msg, hint="write all splits in one shape and one type")


def _labels(rows: Mapping[str, Rows], paths: Mapping[str, Path | None]) -> dict[str, Tensor]:
    made = {}
    for name, path in paths.items():
        if path is None:
            continue
        if name not in rows:
            msg = f"{name}_label is given without {name}"
            raise DataError(msg, hint="name the items too, or leave the labels out")
        with opened(path) as stream:
            column = Column(read_npy(stream, path.stat().st_size, str(path)), str(path))
        n = len(rows[name].x)
        if column.values.shape != (n,):
            msg = f"{path} has shape {column.values.shape}, and {name} {n:,} items"
            raise DataError(msg, hint="give one class number an item, (n,)")
        made[name] = labels_of(column)
    if made and set(made) != set(rows):
        msg = f"there are labels for {', '.join(made)}, and items for {', '.join(rows)}"
        raise DataError(msg, hint="label every split, or none")
    return made


def _divisor(train: Rows, scaling: str) -> int:
    if scaling == "none":
        return 1
    kind = train.dtype.str[1:]
    if kind not in _MAXIMA:
        msg = f"scaling unit is for bytes and 16-bit integers, and train holds {train.dtype}"
        raise DataError(msg, hint="scale the values before they are written, and store floats")
    if all(int(part.max()) <= 1 for _, part in _parts(train.x)):
        msg = f"train holds only 0 and 1, which scaling unit would divide by {_MAXIMA[kind]}"
        raise DataError(msg, hint='set scaling to "none"')
    return _MAXIMA[kind]


def _support(rows: Mapping[str, Rows], one: int) -> Literal["binary", "unit", "real"]:
    """What the values of all splits are, where ``one`` stands for 1; all of them are checked.

    Integers that are divided by their maximum are certain to be within [0, 1], so no more of them
    is read than shows that they are not binary.
    """
    supports = {_support_of(name, found.x, one) for name, found in rows.items()}
    if "real" in supports:
        return "real"
    return "unit" if "unit" in supports else "binary"


def _support_of(name: str, x: Stored, one: int) -> Literal["binary", "unit", "real"]:
    support: Literal["binary", "unit", "real"] = "binary"
    for first, part in _parts(x):
        if x.is_floating_point():
            _check_finite(name, x, part, first)
        elif one == 1:
            _check_binary(name, x, part, first)
            continue
        low, high = part.min(), part.max()
        if low < 0 or high > one:
            support = "real"
        elif support == "binary" and not bool(((part == 0) | (part == one)).all()):
            support = "unit"
        if support == "unit" and one > 1:
            break
    return support


def _parts(x: Stored) -> Iterator[tuple[int, Tensor]]:
    for at in blocks(x.shape):
        yield at.start, x[at]


def _check_finite(name: str, x: Stored, part: Tensor, first: int) -> None:
    good = part.abs() <= _LARGEST  # False for NaN too
    if not bool(good.all()):
        large = bool((part[~good] * 0 == 0).any())  # not NaN, and not infinite
        hint = "scale the values before they are written" if large else "remove such items"
        _refuse(name, x, part, ~good, first, "not a finite float32", hint)


def _check_binary(name: str, x: Stored, part: Tensor, first: int) -> None:
    if int(part.min()) < 0 or int(part.max()) > 1:
        bad = (part != 0) & (part != 1)
        hint = 'set scaling to "unit", or store floats'
        _refuse(name, x, part, bad, first, "an integer that is not scaled", hint)


def _refuse(
    name: str, x: Stored, part: Tensor, bad: Tensor, first: int, what: str, hint: str
) -> None:
    item, *index = bad.nonzero()[0].tolist()
    where = f"{name} item {first + item} ({x.source.where(first + item)})"
    msg = f"{where} has {part[(item, *index)].item()} at {index}: {what}"
    raise DataError(msg, hint=hint)
