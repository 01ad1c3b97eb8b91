"""Squared distances between many rows, in tiles of bounded memory, and nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_TILE = 2**22
"""Distances that are held at once: 32 MiB."""
_ROUNDING = 1e-12


def tiles(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of some rows of ``x`` ``(n, F)`` to all of ``y`` ``(m, F)``, run by run.

    As ``|x|² − 2x·y + |y|²``, in float64, so they are right to rounding of the squared lengths;
    rows are best centred. A tile is overwritten by the next one.
    """
    rows = max(1, min(len(x), _TILE // len(y)))
    x_squared, y_squared = x.square().sum(1, keepdim=True), y.square().sum(1)
    turned, memory = y.T.contiguous(), y.new_empty(rows, len(y))
    for first in range(0, len(x), rows):
        at = slice(first, min(first + rows, len(x)))
        tile = memory[: at.stop - first]
        torch.addmm(y_squared, x[at], turned, alpha=-2, out=tile)
        yield at, tile.add_(x_squared[at]).clamp_(min=0)


def radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of every row to the ``k``-th nearest of the other ones, ``(n,)``.

    It is widened by the rounding of such distances, so that what lies on the sphere is within it.
    """
    found = x.new_empty(len(x))
    for at, tile in tiles(x, x):
        tile.diagonal(at.start).fill_(torch.inf)
        found[at] = tile.topk(k, largest=False).values[:, -1]
    return found + _ROUNDING * (found + x.square().sum(1))


def nearest(x: Tensor, among: Tensor, k: int) -> Tensor:
    """Distances of every row of ``x`` to the ``k`` nearest rows of ``among``, rising, ``(n, k)``.

    Which they are is found among rounded distances; how far they are is then computed from their
    differences, so that equal rows are at distance 0.
    """
    found = x.new_empty(len(x), k)
    for at, tile in tiles(x, among):
        rows = tile.topk(k, largest=False).indices
        found[at] = (x[at, None] - among[rows]).square().sum(2).sqrt().sort(1).values
    return found
