r"""Intervals of a mean: :math:`\bar x \pm t_{n-1, 0.975} \, s / \sqrt n`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_NORMAL = 1.959963984540054
# For few degrees of freedom, from 1 on, as any table of Student's t has them.
_STUDENT = (
    12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157,
    2.228139, 2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922,
    2.093024, 2.085963,
)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A 95 % interval.

    Args:
        low: Its lower end.
        high: Its upper end.
    """

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval | None:
        """Of the mean of independent values, by Student's t; None below two, or if one is not finite."""
        n = len(values)
        if n < 2 or not all(map(math.isfinite, values)):  # noqa: PLR2004 - one value has no spread
            return None
        half = student(n - 1) * statistics.stdev(values) / math.sqrt(n)
        mean = statistics.fmean(values)
        return cls(mean - half, mean + half)

    @property
    def half(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2

    def to_json(self) -> list[float]:
        """Its ends."""
        return [self.low, self.high]


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t.

    Beyond a table, by the expansion of Cornish and Fisher in the degrees of freedom (Abramowitz &
    Stegun, 1964, 26.7.5).
    """
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    z, n = _NORMAL, float(degrees)
    first = (z**3 + z) / (4 * n)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return z + first + second + third
