"""Rows of one array that lie in several files, and reading some of them.

Files are read and never mapped: a mapped file would count as memory of the process, and a file
that is cut short under a mapping ends the process.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import DataError

_DELIVERED = {
    "?": torch.uint8,
    "u1": torch.uint8,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    # torch computes little or nothing with these
    "u2": torch.int32,
    "u4": torch.int64,
    "f2": torch.float32,
    "f4": torch.float32,
    "f8": torch.float64,
}
_CONVERTED = 1 << 20
"""Bytes that are read at once where they are of another type in the file."""


@dataclass(frozen=True)
class Shard:
    """A file that holds some of the rows, one after the other in C order.

    Args:
        path: The file.
        offset: Bytes before its first row.
        rows: How many rows it holds.
        size: Bytes of the whole file when it was looked at: a file of another size is refused.
    """

    path: Path
    offset: int
    rows: int
    size: int


@dataclass(frozen=True)
class Files:
    """Several files as one sequence of rows.

    Args:
        shards: The files.
        item: ``X``.
        dtype: NumPy's name of the type of the values in the files.
    """

    shards: tuple[Shard, ...]
    item: tuple[int, ...]
    dtype: str

    def check(self) -> None:
        """Refuse values that torch does not know, and files that are shorter than their rows.

        Raises:
            DataError: A file is named.
        """
        if self._kind not in _DELIVERED:
            where = self.shards[0].path if self.shards else "a shard"
            msg = f"{where} holds {np.dtype(self.dtype)}, not numbers that torch knows"
            raise DataError(msg, hint="store bytes, integers, or floats of at most 64 bits")
        for shard in self.shards:
            if shard.offset + shard.rows * self.row_bytes > shard.size:
                raise _cut(shard)

    @property
    def delivered(self) -> torch.dtype:
        """Type of the tensors that rows are read into."""
        return _DELIVERED[self._kind]

    @property
    def _kind(self) -> str:
        dtype = np.dtype(self.dtype)
        return "?" if dtype.kind == "b" else dtype.str[1:]

    @cached_property
    def starts(self) -> list[int]:
        """Which row each file begins with, and how many rows there are."""
        return [0, *np.cumsum([shard.rows for shard in self.shards], dtype=np.int64).tolist()]

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes in its file."""
        return math.prod(self.item) * np.dtype(self.dtype).itemsize

    def where(self, row: int) -> str:
        """The file of that row, and its number there."""
        number = self._shard_of(row)
        return f"row {row - self.starts[number]} of {self.shards[number].path}"

    def fill(self, out: Tensor, runs: Sequence[range]) -> None:
        """Write the rows of ``runs`` into ``out``, a contiguous tensor on the CPU.

        One file is open at a time, and none between calls.

        Raises:
            DataError: A file is gone, or is not as long as it was.
        """
        array = out.detach().numpy()
        pieces = sorted(self._pieces(runs))
        for number, of_shard in groupby(pieces, key=operator.itemgetter(0)):
            shard = self.shards[number]
            with _opened(shard) as stream:
                for _, row, count, place in of_shard:
                    stream.seek(shard.offset + row * self.row_bytes)
                    self._read(stream, array[place : place + count], shard)

    def _pieces(self, runs: Sequence[range]) -> Iterator[tuple[int, int, int, int]]:
        """The parts of runs that lie in one file: its number, their first row there, count and place."""
        place = 0
        for run in runs:
            first = run.start
            while first < run.stop:
                number = self._shard_of(first)
                count = min(run.stop, self.starts[number + 1]) - first
                yield number, first - self.starts[number], count, place
                first, place = first + count, place + count

    def _shard_of(self, row: int) -> int:
        return int(np.searchsorted(self._ends, row, side="right"))

    @cached_property
    def _ends(self) -> np.ndarray[Any, Any]:
        return np.array(self.starts[1:])

    def _read(self, stream: FileIO, out: np.ndarray[Any, Any], shard: Shard) -> None:
        dtype = np.dtype(self.dtype)
        if dtype == out.dtype:
            _read_into(stream, out, shard)
            return
        step = max(1, _CONVERTED // self.row_bytes)
        for first in range(0, len(out), step):
            raw = np.empty((min(step, len(out) - first), *self.item), dtype)
            _read_into(stream, raw, shard)
            out[first : first + step] = raw


@contextmanager
def _opened(shard: Shard) -> Iterator[FileIO]:
    try:
        with FileIO(shard.path) as stream:
            if stream.seek(0, 2) != shard.size:
                raise _cut(shard)
            yield stream
    except OSError as error:
        msg = f"{shard.path} cannot be read: {error.strerror or error}"
        raise DataError(msg, hint="the files of a data set have to stay where they are") from error


def _read_into(stream: FileIO, out: np.ndarray[Any, Any], shard: Shard) -> None:
    view: memoryview = out.reshape(-1).view(np.uint8).data
    while view.nbytes:
        count = stream.readinto(view)
        if not count:
            raise _cut(shard)
        view = view[count:]


def _cut(shard: Shard) -> DataError:
    msg = f"{shard.path} changed: it had {shard.size:,} bytes, and {shard.rows:,} rows, when it was opened"
    return DataError(msg, hint="write the file again, and leave it as it is while it is used")
