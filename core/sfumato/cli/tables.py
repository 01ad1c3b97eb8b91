"""Tables of figures as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sfumato import figure_text

if TYPE_CHECKING:
    from sfumato.figures import Figure
    from sfumato.results import Comparison


def figures_table(figures: Mapping[str, Figure]) -> str:
    """One row a figure, and below it why some have no value."""
    notes = "".join(f"  {note}\n" for note in figure_text.undefined(figures))
    return _aligned(figure_text.figures_table(figures)) + notes


def comparison_table(comparison: Comparison) -> str:
    """One row a figure, one column a variant: mean and half the 95 % interval over seeds."""
    return _aligned(figure_text.comparison_table(comparison))


def differences_table(comparison: Comparison) -> str:
    """How variants differ from the first one, paired by seed; empty if there is nothing to pair."""
    return _aligned(figure_text.differences_table(comparison))


def _aligned(table: figure_text.Table) -> str:
    widths = [max(len(cell.text) for cell in column) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(cell.text.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in table
    )
    return "".join(f"  {line.rstrip()}\n" for line in lines)
