"""Finding files that hold the rows of one array, and reading their headers."""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato import DataError, Shard, Stored
from sfumato_data.files import damaged, mode_of, opened
from sfumato_data.npy_format import read_header
from sfumato_data.safetensors_format import find_tensor

_SUFFIXES = (".npy", ".safetensors")


@dataclass(frozen=True)
class _Found:
    """A file, and what its header says of the rows."""

    shard: Shard
    item: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Rows:
    """The rows of a split.

    Args:
        x: ``(n, *X)``, as they come from the files.
        dtype: Type of the values in the files.
    """

    x: Stored
    dtype: np.dtype[Any]


def stored_rows(path: Path, tensor: str, *, add_axis: bool) -> Rows:
    """The rows of a file, or of all shards of a folder in the order of their names.

    Args:
        path: The file or folder.
        tensor: The name of the tensor in ``.safetensors`` files.
        add_axis: Whether an axis of length 1 is put before those of the datum.

    Raises:
        DataError: There are no shards, or no rows; one is damaged, or of another shape or type
            than the others.
    """
    found = [_looked_at(file, tensor) for file in _files(path)]
    first = found[0]
    for other in found:
        for what, one, two in (
            ("items of shape", first.item, other.item),
            ("values of type", first.dtype, other.dtype),
        ):
            if one != two:
                msg = f"{first.shard.path} holds {what} {one}, and {other.shard.path} {two}"
                raise DataError(msg, hint="all shards of a split hold rows of one array")
    if not sum(each.shard.rows for each in found):
        msg = f"{path} holds no items"
        raise DataError(msg, hint="every split needs an item; leave out a split that has none")
    item = (1, *first.item) if add_axis else first.item
    if not item or 0 in item:
        msg = f"items of {first.shard.path} have shape {item}"
        hint = 'set channel_axis to "add" for one number an item; every item needs a value'
        raise DataError(msg, hint=hint)
    x = Stored.of([each.shard for each in found], item, first.dtype)
    return Rows(x, first.dtype.newbyteorder("="))


def _files(path: Path) -> list[Path]:
    if not stat.S_ISDIR(mode_of(path) or 0):
        return [path]
    found = sorted(
        (f for f in path.iterdir() if f.suffix in _SUFFIXES and not f.name.startswith(".")),
        key=lambda file: file.name,
    )
    if not found:
        msg = f"{path} holds no shards"
        raise DataError(msg, hint=f"shards are files that end in {' or '.join(_SUFFIXES)}")
    return found


def _looked_at(path: Path, tensor: str) -> _Found:
    where = str(path)
    with opened(path) as stream:
        size = path.stat().st_size
        if path.suffix == ".safetensors":
            shape, dtype, offset = find_tensor(stream, size, tensor, where)
            fortran = False
        else:
            shape, fortran, dtype = read_header(stream, size, where)
            offset = stream.tell()
    if not shape:
        msg = f"{where} holds a single number"
        raise DataError(msg, hint="the first axis of a shard counts items")
    if fortran and len([n for n in shape if n != 1]) > 1:
        msg = f"{where} is in Fortran order: its items do not lie together"
        raise DataError(msg, hint="write it by numpy.save(path, numpy.ascontiguousarray(x))")
    if offset + math.prod(shape) * dtype.itemsize > size:
        raise damaged(where, f"its header promises more than its {size:,} bytes")
    return _Found(Shard(path, offset, shape[0], size), shape[1:], dtype)
