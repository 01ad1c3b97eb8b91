"""What a finding is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sfumato import Comparison
from sfumato_report.ranking import Spread
from sfumato_report.text import number, plural


@dataclass(frozen=True)
class Ref:
    """A variant in a sentence, by index: the page shows its letter, colour and name."""

    index: int
    name: str


Segment = str | Ref


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Args:
        kind: A result, a limit of what was measured, or a warning.
        topic: Its heading, in a word or two.
        segments: The sentences.
    """

    kind: Literal["result", "limit", "warning"]
    topic: str
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The sentences as plain text."""
        return "".join(s if isinstance(s, str) else s.name for s in self.segments)


def refs(comparison: Comparison, indices: Sequence[int]) -> list[Segment]:
    """The variants joined as in a sentence."""
    out: list[Segment] = []
    for at, index in enumerate(indices):
        if at:
            out.append(" and " if at == len(indices) - 1 else ", ")
        out.append(Ref(index, comparison.variants[index].name))
    return out


def value(of: Spread, decimals: int, unit: str = "") -> str:
    """The mean with its range over seeds; with a unit, seeds are counted too: once a sentence."""
    mean = number(of.mean, decimals) + (f" {unit}" if unit else "")
    if len(of.values) == 1:
        return f"{mean} (one seed)" if unit else mean
    counted = f"mean of {plural(len(of.values), 'seed')}; " if unit else ""
    return f"{mean} ({counted}{number(of.low, decimals)} to {number(of.high, decimals)})"
