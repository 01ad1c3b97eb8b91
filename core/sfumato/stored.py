"""Tensors whose rows lie in files.

A :class:`Stored` tensor knows its shape and its type, and holds no values. Rows that are taken from
it are read, into an ordinary tensor; whatever else would need its values is refused, so that
nobody loads by accident what does not fit into memory.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NoReturn, Protocol, final

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import DataError
from sfumato.row_files import Files, Shard

_BLOCK = 1 << 16
_MOST = 1 << 31
"""Bytes that may be taken at once."""


class Source(Protocol):
    """What the rows of a stored tensor are read from."""

    def fill(self, out: Tensor, runs: Sequence[range]) -> None:
        """Write the rows of ``runs``, one run after the other, into ``out`` ``(rows, *X)``."""
        ...

    def where(self, row: int) -> str:
        """Where that row lies, for a message."""
        ...


@final
class Stored(Tensor):
    """A tensor ``(n, *X)`` whose rows lie in files; ``x[rows]`` reads some of them.

    Rows are taken by a slice, a number, or numbers ``(m,)``, and come as an ordinary tensor on the
    CPU. Everything else that needs values raises a :class:`DataError`, but for ``torch.equal``,
    which reads a part at a time. To pickle it is to pickle the names of its files.
    """

    source: Source

    # Shape, type and length are answered by torch itself, everything else by __torch_dispatch__.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # noqa: SLF001 - documented

    @staticmethod
    def __new__(
        cls: type[Stored], source: Source, shape: Sequence[int], dtype: torch.dtype
    ) -> Stored:
        """A tensor of that shape and type over a source."""
        made: Stored = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype)  # noqa: SLF001 - torch documents it
        made.source = source
        return made

    @classmethod
    def of(cls, shards: Sequence[Shard], item: Sequence[int], dtype: np.dtype[Any]) -> Stored:
        """The rows of several files, as one sequence.

        Args:
            shards: The files, in the order of their rows.
            item: ``X``.
            dtype: Type of the values in the files, of either byte order.

        Raises:
            DataError: Values of that type are not read from files, or a file is shorter than its
                rows.
        """
        files = Files(tuple(shards), tuple(item), dtype.str)
        files.check()
        return cls(files, (files.starts[-1], *item), files.delivered)

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes in memory."""
        return math.prod(self.shape[1:]) * self.element_size()

    @property
    def block(self) -> int:
        """How many rows are best read together: those of about 64 KiB, and at least one."""
        return max(1, _BLOCK // max(1, self.row_bytes))

    def whole(self) -> Tensor:
        """All rows, in memory."""
        return self._taken([range(len(self))])

    def __getitem__(self, at: Any) -> Tensor:
        n = len(self)
        if isinstance(at, slice):
            picked = range(n)[at]
            if picked.step == 1:
                return self._few([picked])
            at = torch.tensor(picked, dtype=torch.long)
        if isinstance(at, Tensor | np.ndarray | list) and np.ndim(at) == 1:
            return self._at(_positions(torch.as_tensor(at).cpu(), n))
        try:
            number = operator.index(at)
        except TypeError:
            _refuse()
        if not -n <= number < n:
            msg = f"row {number} of {n}"
            raise IndexError(msg)
        return self._few([range(number % n, number % n + 1)])[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[row] for row in range(len(self)))

    def _at(self, rows: Tensor) -> Tensor:
        """The rows at ``(m,)`` positions: read in the order of the file, a run at a time."""
        ordered, order = rows.sort()
        if not len(rows):
            return self._few([])
        breaks = (ordered.diff() != 1).nonzero().flatten().add(1).tolist()
        firsts = ordered[[0, *breaks]].tolist()
        lengths = [b - a for a, b in pairwise([0, *breaks, len(rows)])]
        found = self._few([range(a, a + n) for a, n in zip(firsts, lengths, strict=True)])
        if not breaks:
            return found[order.argsort()] if len(order) > 1 else found
        made = torch.empty_like(found)
        made[order] = found
        return made

    def _few(self, runs: Sequence[range]) -> Tensor:
        wanted = sum(map(len, runs)) * self.row_bytes
        if wanted > _MOST:
            msg = f"{wanted / 2**30:.1f} GiB of rows that lie in files are asked for at once"
            raise DataError(msg, hint="take fewer rows at a time")
        return self._taken(runs)

    def _taken(self, runs: Sequence[range]) -> Tensor:
        out = torch.empty(sum(map(len, runs)), *self.shape[1:], dtype=self.dtype)
        self.source.fill(out, runs)
        return out

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's annotation lacks the function
        cls, func: Any, _types: Any, args: tuple[Any, ...] = (), _kwargs: Any = None
    ) -> Any:
        return _equal(*args) if func is torch.ops.aten.equal.default else _refuse()

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return Stored, (self.source, tuple(self.shape), self.dtype)

    def __copy__(self) -> Stored:
        return self

    def __deepcopy__(self, _memo: Any) -> Stored:
        return self

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Stored(shape={tuple(self.shape)}, dtype={self.dtype})"

    def numpy(self, **_: Any) -> NoReturn:
        """Refused: take rows first."""
        _refuse()

    def tolist(self) -> NoReturn:
        """Refused: take rows first."""
        _refuse()

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        _refuse()

    def __dlpack__(self, **_: Any) -> NoReturn:
        _refuse()

    def data_ptr(self) -> NoReturn:
        """Refused: there is no storage."""
        _refuse()

    def untyped_storage(self) -> NoReturn:
        """Refused: there is no storage."""
        _refuse()


def _positions(rows: Tensor, n: int) -> Tensor:
    """Row numbers ``(m,)`` from 0 on, of numbers that may count from the end, or of booleans ``(n,)``."""
    if rows.dtype == torch.bool and len(rows) == n:
        return rows.nonzero().flatten()
    if not len(rows):
        return rows.long()
    if rows.is_floating_point() or rows.dtype == torch.bool:
        _refuse()
    rows = rows.long()
    if int(rows.min()) < -n or int(rows.max()) >= n:
        msg = f"rows from {int(rows.min())} to {int(rows.max())} of {n}"
        raise IndexError(msg)
    return torch.where(rows < 0, rows + n, rows)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values, read a part at a time."""
    if one is other:
        return True
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    step = max(1, (1 << 24) // max(1, math.prod(one.shape[1:]) * one.element_size()))
    runs = (slice(first, first + step) for first in range(0, len(one), step))
    return all(torch.equal(one[run].cpu(), other[run].cpu()) for run in runs)


def _refuse() -> NoReturn:
    msg = "the rows of this split lie in files, and this needs all of them in memory"
    raise DataError(msg, hint="take some first, x[rows], or load the data if they fit")
