"""Batches of data: one gather each, then type, scale and binarisation.

Data in memory live on the device. Of data in files, windows of rows pass through it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from sfumato.ahead import read
from sfumato.data import Contract, Split, binarized, evaluated, mask_of, model_space, seen, visible
from sfumato.interfaces import Scope
from sfumato.randomness import Noise, key, permuted
from sfumato.stored import Stored
from sfumato.windows import Window, in_order, rows_of_window, shuffled


@dataclass(frozen=True)
class Batch:
    """Items as the model sees them: ``x`` ``(B, *X)``, ``condition`` ``(B, C)`` and ``mask`` ``(B, *X)``."""

    x: Tensor
    condition: Tensor | None
    mask: Tensor | None

    def __len__(self) -> int:
        return len(self.x)

    def scope(self, step: int, source: Noise | None = None) -> Scope:
        """What the model runs on at a training step."""
        at = torch.full((), step, device=self.x.device)
        return Scope(self.x, self.condition, self.mask, at, source)


class Batches:
    """The training items of a run, on its device.

    Args:
        split: The items, as stored.
        contract: What they keep to.
        device: Where they go.
        dtype: Floating type of the model.
        batch_size: Items a batch; the last one of an epoch may have fewer, and a single item left
            over joins the batch before it, because batch normalisation needs two.
        seed: Seed of the order and of dynamic binarisation.
        block: How many items lie together, see :attr:`Splits.block`; None shuffles single items.
        ahead: Whether items that lie in files are read before they are needed, which changes
            nothing but the time it takes.
    """

    def __init__(
        self,
        split: Split,
        contract: Contract,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: int,
        seed: int,
        *,
        block: int | None = None,
        ahead: bool = True,
    ) -> None:
        self._contract, self._dtype, self._seed = contract, dtype, seed
        self._device, self.sizes = device, _sizes(len(split), batch_size)
        self._x, self._block = split.x, block
        if not isinstance(split.x, Stored):
            self._x = split.x.to(device)
        elif block is None:
            self._block = split.x.block
        self._ahead = ahead
        self._condition = None if split.condition is None else split.condition.to(device, dtype)
        self._mask = None if split.mask is None else split.mask.to(device, dtype)

    @staticmethod
    def count(items: int, batch_size: int) -> int:
        """How many batches so many items make."""
        return len(_sizes(items, batch_size))

    @staticmethod
    def sizes_of(items: int, batch_size: int) -> list[int]:
        """How many items the batches of an epoch have."""
        return _sizes(items, batch_size)

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return len(self.sizes)

    @property
    def in_files(self) -> bool:
        """Whether the items lie in files."""
        return isinstance(self._x, Stored)

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[int, Batch]]:
        """The batches of epoch ``number`` (from 0), each with its step, in the epoch's keyed order.

        Args:
            number: The epoch.
            first: How many of its batches are passed over; they are not read.
        """
        with closing(self._gathered(number, first)) as gathered:
            for step, (x, rows) in enumerate(gathered, number * self.per_epoch + first):
                yield step, self._batch(x, rows, "binarize", step)

    def at(self, rows: Tensor, step: int) -> Batch:
        """The batch of some rows ``(B,)`` of data in memory."""
        return self._batch(self._x.index_select(0, rows), rows, "binarize", step)

    def in_order(self, number: int, rows: int = 1024) -> Iterator[tuple[int, Batch]]:
        """All items once, in their own order, each run with the index of its first."""
        with closing(self._runs(rows)) as runs:
            for x, at in runs:
                yield at.start, self._batch(x, at, "binarize/in order", number, at.start)

    def _gathered(self, number: int, first: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Values of every batch from the first one on, as they are stored, and their rows."""
        if isinstance(self._x, Stored):
            yield from self._streamed(self._x, self._windows(number), first)
            return
        for rows in self.order(number).to(self._device).split(self.sizes)[first:]:
            # Of bytes it takes a tenth of the time of self._x[rows].
            yield self._x.index_select(0, rows), rows

    def order(self, number: int) -> Tensor:
        """The keyed order of epoch ``number``, ``(n,)``: which item comes where."""
        n = len(self._x)
        if self._block is None:
            return permuted(torch.arange(n), n, key(self._seed, "order", number))
        return torch.cat([window.rows for window in self._windows(number)])

    def _windows(self, number: int) -> Iterator[Window]:
        block = self._block or 1
        many = rows_of_window(self._x, block)
        return shuffled(len(self._x), block, many, self._seed, number)

    def _streamed(
        self, x: Stored, windows: Iterator[Window], number: int
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Batches from one number on out of windows; the one that begins in a window may end in the next."""
        sizes = iter(self.sizes[number:])
        size = next(sizes, 0)
        windows, first = _without(windows, sum(self.sizes[:number]))
        parts: list[tuple[Tensor, Tensor]] = []
        many = rows_of_window(x, self._block or 1)
        with closing(read(x, windows, many, self._device, ahead=self._ahead)) as made:
            for window, found in made:
                places, rows = (t.to(self._device) for t in (window.places, window.rows))
                while first < len(window):
                    last = first + size - sum(len(part) for _, part in parts)
                    parts.append((found[places[first:last]], rows[first:last]))
                    if last > len(window):
                        break
                    yield _joined(parts)
                    first, size = last, next(sizes, 0)
                    parts = []
                first = 0

    def _runs(self, rows: int) -> Generator[tuple[Tensor, slice], None, None]:
        n = len(self._x)
        if isinstance(self._x, Stored):
            made = read(self._x, in_order(n, rows), rows, self._device, ahead=self._ahead)
            with closing(made):
                for window, found in made:
                    run = window.runs[0]
                    # A copy: who is given the items may keep them while the next ones are read.
                    yield found.clone(), slice(run.start, run.stop)
            return
        for first in range(0, n, rows):
            at = slice(first, first + rows)
            yield self._x[at], at

    def _batch(self, stored: Tensor, rows: Tensor | slice, purpose: str, *steps: int) -> Batch:
        x = model_space(stored, self._contract, self._dtype)
        mask = None if self._mask is None else self._mask[rows]
        if mask is not None:
            x = visible(x, mask)
        if self._contract.binarize == "dynamic":
            x = binarized(x, self._seed, purpose, *steps)
        condition = None if self._condition is None else self._condition[rows]
        return Batch(x, condition, mask_of(x, mask, self._contract))


def chunks(
    split: Split,
    contract: Contract,
    device: torch.device,
    dtype: torch.dtype,
    rows: int = 1024,
    *,
    block: int | None = None,
) -> Iterator[tuple[int, Batch]]:
    """A split as an evaluation sees it, in runs of so many items, each with the index of its first."""
    # One draw for all items cannot be made a part at a time.
    at_once = contract.binarize == "dynamic" and block is None
    made = evaluated(split, contract, dtype) if at_once else split
    for first in range(0, len(made), rows):
        at = range(first, min(first + rows, len(made)))
        part = made.take(slice(at.start, at.stop))
        if not at_once:
            part = seen(part, contract, dtype, at=torch.arange(at.start, at.stop), block=block)
        condition = None if part.condition is None else part.condition.to(device, dtype)
        mask = None if part.mask is None else part.mask.to(device, dtype)
        x = part.x.to(device)
        yield first, Batch(x, condition, mask_of(x, mask, contract))


def _without(windows: Iterator[Window], items: int) -> tuple[Iterator[Window], int]:
    """Windows without those that hold first items alone, and how many of these the next one holds."""
    for window in windows:
        if items < len(window):
            return chain([window], windows), items
        items -= len(window)
    return iter(()), 0


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(parts) == 1:
        return parts[0]
    x, rows = zip(*parts, strict=True)
    return torch.cat(x), torch.cat(rows)


def _sizes(items: int, batch_size: int) -> list[int]:
    full, rest = divmod(items, batch_size)
    if rest == 1 and full:
        return [batch_size] * (full - 1) + [batch_size + 1]
    return [batch_size] * full + [rest] * (rest > 0)
