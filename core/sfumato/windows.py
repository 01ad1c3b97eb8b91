"""The order of rows that lie together: blocks are shuffled, then rows within windows of blocks.

An order of single rows would read each of them from somewhere else. Here an epoch takes the blocks
in a keyed order, a window of some at a time, and the rows of each window in a keyed order. Blocks
and windows are so many bytes of the rows and nothing else, so that the order is the same on every
machine, and the same for rows in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.randomness import key, permuted

_WINDOW = 1 << 24


@dataclass(frozen=True)
class Window:
    """Rows that are read together.

    Args:
        runs: Where they lie.
        places: ``(m,)``, the order they are taken in: numbers among the rows of the runs, one run
            after the other.
    """

    runs: tuple[range, ...]
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    @property
    def rows(self) -> Tensor:
        """``(m,)``, the numbers of the rows in the order they are taken in."""
        return positions(self.runs)[self.places]


def positions(runs: Sequence[range]) -> Tensor:
    """The numbers of runs, one run after the other."""
    made = [torch.arange(run.start, run.stop) for run in runs]
    return torch.cat(made) if made else torch.zeros(0, dtype=torch.long)


def rows_of_window(x: Tensor, block: int) -> int:
    """Rows of a window: blocks of about 16 MiB, and at least one block."""
    row_bytes = max(1, math.prod(x.shape[1:]) * x.element_size())
    return max(1, _WINDOW // (block * row_bytes)) * block


def shuffled(n: int, block: int, of_window: int, seed: int, epoch: int) -> Iterator[Window]:
    """The windows of an epoch, which hold every one of ``n`` rows once.

    Args:
        n: How many rows there are.
        block: How many lie together.
        of_window: How many a window has: a multiple of ``block``.
        seed: Seed of the run.
        epoch: Number of the epoch.
    """
    blocks, some = -(-n // block), of_window // block
    order = key(seed, "order of blocks", epoch)
    for number, first in enumerate(range(0, blocks, some)):
        chosen = permuted(torch.arange(first, min(first + some, blocks)), blocks, order).tolist()
        runs = tuple(range(b * block, min(n, (b + 1) * block)) for b in chosen)
        count = sum(map(len, runs))
        within = key(seed, "order in a window", epoch, number)
        yield Window(runs, permuted(torch.arange(count), count, within))


def in_order(n: int, rows: int) -> Iterator[Window]:
    """All rows in their own order, so many at a time."""
    for first in range(0, n, rows):
        run = range(first, min(first + rows, n))
        yield Window((run,), torch.arange(len(run)))
