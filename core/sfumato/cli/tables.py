"""Tables of figures as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sfumato.cli.options import with_error

if TYPE_CHECKING:
    from sfumato.results import Comparison, Figure


def figures_table(figures: Mapping[str, Figure]) -> str:
    """One row a figure: value, standard error, unit, direction."""
    rows = [("", "value ± standard error", "unit", "better")]
    for name, figure in figures.items():
        value = with_error(figure.value, figure.standard_error)
        rows.append((name, value, figure.unit, figure.better or ""))
    notes = [f"{n}: not defined, {f.undefined}" for n, f in figures.items() if f.undefined]
    return _aligned(rows) + "".join(f"  {note}\n" for note in notes)


def comparison_table(comparison: Comparison) -> str:
    """One row a figure, one column a variant: mean and standard deviation over seeds."""
    variants = comparison.variants
    rows: list[tuple[str, ...]] = [("", *(v.name for v in variants), "unit", "better")]
    names = dict.fromkeys(name for v in variants for name in v.figures)
    for name in names:
        found = [v.figures.get(name) for v in variants]
        cells = [with_error(s.mean, s.deviation) if s else "not measured" for s in found]
        example = next(s.example for s in found if s)
        rows.append((name, *cells, example.unit, example.better or ""))
    rows.append(("parameters", *(f"{v.parameters:,}" for v in variants), "", ""))
    seconds = [sum(r.seconds for r in v.runs) / len(v.runs) for v in variants]
    rows.append(("training time", *(f"{s:.1f}" for s in seconds), "seconds a run", "lower"))
    return _aligned(rows)


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "".join(f"  {line.rstrip()}\n" for line in lines)
