"""Batches of data that live on the device: one gather each, then type, scale and binarisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.data import Contract, Split, binarized, evaluated, mask_of, model_space, visible
from sfumato.interfaces import Scope
from sfumato.randomness import Noise, key, permuted


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
        at = torch.tensor(step, device=self.x.device)
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
    """

    def __init__(
        self,
        split: Split,
        contract: Contract,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: int,
        seed: int,
    ) -> None:
        self._contract, self._dtype, self._seed = contract, dtype, seed
        self._device, self._sizes = device, _sizes(len(split), batch_size)
        self._x = split.x.to(device)
        self._condition = None if split.condition is None else split.condition.to(device, dtype)
        self._mask = None if split.mask is None else split.mask.to(device, dtype)

    @staticmethod
    def count(items: int, batch_size: int) -> int:
        """How many batches so many items make."""
        return len(_sizes(items, batch_size))

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return len(self._sizes)

    def epoch(self, number: int) -> Iterator[tuple[int, Batch]]:
        """The batches of epoch ``number`` (from 0), each with its step, in the epoch's keyed order."""
        n = len(self._x)
        order = permuted(torch.arange(n), n, key(self._seed, "order", number)).to(self._device)
        for index, rows in enumerate(order.split(self._sizes)):
            step = number * self.per_epoch + index
            yield step, self._batch(rows, "binarize", step)

    def in_order(self, number: int, rows: int = 1024) -> Iterator[tuple[int, Batch]]:
        """All items once, in their own order, each run with the index of its first."""
        for first in range(0, len(self._x), rows):
            at = slice(first, first + rows)
            yield first, self._batch(at, "binarize/in order", number, first)

    def _batch(self, rows: Tensor | slice, purpose: str, *steps: int) -> Batch:
        x = model_space(self._x[rows], self._contract, self._dtype)
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
) -> Iterator[tuple[int, Batch]]:
    """A split as an evaluation sees it, in runs of so many items, each with the index of its first."""
    seen = evaluated(split, contract, dtype)
    for first in range(0, len(seen), rows):
        part = seen.take(slice(first, first + rows))
        condition = None if part.condition is None else part.condition.to(device, dtype)
        mask = None if part.mask is None else part.mask.to(device, dtype)
        x = part.x.to(device)
        yield first, Batch(x, condition, mask_of(x, mask, contract))


def _sizes(items: int, batch_size: int) -> list[int]:
    full, rest = divmod(items, batch_size)
    if rest == 1 and full:
        return [batch_size] * (full - 1) + [batch_size + 1]
    return [batch_size] * full + [rest] * (rest > 0)
