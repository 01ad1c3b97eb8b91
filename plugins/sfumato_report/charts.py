"""A chart: what a script draws, and what it shows in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

_DIGITS = 5


@dataclass(frozen=True)
class Chart:
    """One panel.

    Args:
        id: Of the element that holds it.
        label: What it shows, for those who do not see it.
        panel: Its heading, or empty.
        data: What the script draws.
        variant: The variant that it is of, by index, if it is of one.
    """

    id: str
    label: str
    panel: str
    data: dict[str, Any]
    variant: int | None = None


def rounded(value: float, digits: int = _DIGITS) -> float:
    """The value with so many significant digits: more cost bytes and show nothing."""
    return float(f"{value:.{digits}g}")


def column(values: Tensor | Iterable[float]) -> list[float]:
    """Values ``(n,)`` as JSON data."""
    found = values.tolist() if isinstance(values, Tensor) else values
    return [rounded(float(v)) for v in found]


def padded(low: float, high: float, share: float = 0.06) -> list[float]:
    """A range with some room at its ends."""
    pad = share * (high - low) or 0.05 * abs(high) or 1.0
    return [rounded(low - pad), rounded(high + pad)]
