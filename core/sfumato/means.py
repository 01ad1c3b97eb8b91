"""Means of terms over items, summed where they are computed and read once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import NonFiniteError
from sfumato.step import SLOWER, Sums


class Means:
    """Means over the items of an epoch."""

    def __init__(self) -> None:
        # Of each set of names: what terms a loss reports may change with its step.
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._items = 0

    def add(self, found: Sums, items: int) -> None:
        """Add sums of terms over so many items."""
        names, sums = found
        # A copy, for a graph sums the next batch in the same place.
        known = self._sums.get(names)
        self._sums[names] = sums.clone() if known is None else known + sums
        self._items += items

    def read(self, when: str) -> dict[str, float]:
        """The means by name.

        Raises:
            NonFiniteError: One is not finite.
        """
        totals: dict[str, float] = {}
        for names, sums in self._sums.items():
            for name, total in zip(names, sums.tolist(), strict=True):
                totals[name] = totals.get(name, 0.0) + total
        means = {name: total / self._items for name, total in totals.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                msg = f"{when}: the mean of {name} is {value}"
                raise NonFiniteError(msg, hint=SLOWER)
        return means

    def state(self) -> dict[str, Any]:
        """What was added so far."""
        return {"sums": dict(self._sums), "items": self._items}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a state, on a device."""
        self._sums = {names: sums.to(device) for names, sums in state["sums"].items()}
        self._items = state["items"]
