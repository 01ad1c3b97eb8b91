"""Tables of figures as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sfumato.cli.options import number, with_error

if TYPE_CHECKING:
    from sfumato.figures import Difference, Figure, Summary
    from sfumato.results import Comparison, Variant

_REAL = "real data"


def figures_table(figures: Mapping[str, Figure]) -> str:
    """One row a figure: value, standard error, what real data reach, unit, direction."""
    floors = any(f.floor is not None for f in figures.values())
    rows = [("", "value ± standard error", *([_REAL] if floors else []), "unit", "better")]
    for name, figure in figures.items():
        value = with_error(figure.value, figure.standard_error)
        floor = [_floor(figure.floor)] if floors else []
        rows.append((name, value, *floor, figure.unit, figure.better or ""))
    notes = [f"{n}: not defined, {f.undefined}" for n, f in figures.items() if f.undefined]
    return _aligned(rows) + "".join(f"  {note}\n" for note in notes)


def comparison_table(comparison: Comparison) -> str:
    """One row a figure, one column a variant: mean and half the 95 % interval over seeds."""
    variants = comparison.variants
    names = dict.fromkeys(name for v in variants for name in v.figures)
    examples = {n: next(v.figures[n] for v in variants if n in v.figures) for n in names}
    floors = any(s.floor is not None for v in variants for s in v.figures.values())
    real = [_REAL] if floors else []
    rows: list[tuple[str, ...]] = [("", *(v.name for v in variants), *real, "unit", "better")]
    for name, example in examples.items():
        cells = [_cell(v, v.figures.get(name)) for v in variants]
        found = (v.figures[name].floor for v in variants if name in v.figures)
        floor = [_floor(next((f for f in found if f is not None), None))] if floors else []
        figure = example.example
        rows.append((name, *cells, *floor, figure.unit, figure.better or ""))
    blank = [""] if floors else []
    rows.append(("parameters", *(f"{v.parameters:,}" for v in variants), *blank, "", ""))
    seconds = [_seconds(v) for v in variants]
    rows.append(("training time", *seconds, *blank, "seconds a run", "lower"))
    return _aligned(rows)


def differences_table(comparison: Comparison) -> str:
    """One row a figure, one column a variant: how it differs from the first one, paired by seed.

    Empty if there is nothing to pair.
    """
    first, *others = comparison.variants
    names = dict.fromkeys(name for v in others for name in v.figures)
    rows: list[tuple[str, ...]] = [("", *(v.name for v in others))]
    for name in names:
        found = [comparison.difference(name, v, first) for v in others]
        if any(d is not None for d in found):
            rows.append((name, *(_difference(d, len(comparison.seeds)) for d in found)))
    return _aligned(rows) if len(rows) > 1 else ""


def _cell(variant: Variant, summary: Summary | None) -> str:
    if summary is None:
        return "failed" if variant.errors else "not measured"
    interval, known = summary.interval, len(summary.values)
    said = with_error(summary.mean, None if interval is None else interval.half)
    return said + (f" ({known} of {len(variant.runs)})" if 0 < known < len(variant.runs) else "")


def _difference(difference: Difference | None, seeds: int) -> str:
    if difference is None:
        return "–"
    interval = difference.interval
    if difference.mean == 0 and (interval is None or interval.half == 0):
        return "0"
    said = with_error(difference.mean, None if interval is None else interval.half)
    sign = "" if said.startswith("−") else "+"
    paired = f" ({difference.seeds} of {seeds})" if difference.seeds < seeds else ""
    return f"{sign}{said}{'*' if difference.marked else ''}{paired}"


def _floor(floor: float | None) -> str:
    return "" if floor is None else number(floor)


def _seconds(variant: Variant) -> str:
    known = [run.seconds for run in variant.runs if run.error is None]
    return f"{sum(known) / len(known):.1f}" if known else "failed"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "".join(f"  {line.rstrip()}\n" for line in lines)
