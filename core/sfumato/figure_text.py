"""Figures as text: numbers, and tables cell by cell, which a terminal and a notebook lay out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sfumato.figures import Difference, Figure, Summary
    from sfumato.results import Comparison, Variant

NOT_DEFINED = "not defined"
_REAL = "real data"


class Cell(NamedTuple):
    """A cell of a table.

    Args:
        text: What stands in it.
        note: What a reader may ask about it: a definition, or why there is no value.
    """

    text: str
    note: str = ""


Table = list[list[Cell]]
"""Rows of cells; the first row is the head, the first column has names."""


def figures_table(figures: Mapping[str, Figure]) -> Table:
    """One row a figure: value, standard error, what real data reach, unit, direction."""
    floors = any(f.floor is not None for f in figures.values())
    real = [_REAL] if floors else []
    table = [_cells("", "value ± standard error", *real, "unit", "better")]
    for name, figure in figures.items():
        value = Cell(with_error(figure.value, figure.standard_error), figure.undefined or "")
        floor = [_floor(figure.floor)] if floors else []
        table.append([_name(name, figure), value, *floor, *_cells(figure.unit, figure.better)])
    return table


def undefined(figures: Mapping[str, Figure]) -> list[str]:
    """Why figures have no value, a line each."""
    return [f"{n}: {NOT_DEFINED}, {f.undefined}" for n, f in figures.items() if f.undefined]


def comparison_table(comparison: Comparison) -> Table:
    """One row a figure, one column a variant: mean and half the 95 % interval over seeds."""
    variants = comparison.variants
    names = dict.fromkeys(name for v in variants for name in v.figures)
    floors = any(s.floor is not None for v in variants for s in v.figures.values())
    real, blank = ([_REAL], [Cell("")]) if floors else ([], [])
    table = [_cells("", *(v.name for v in variants), *real, "unit", "better")]
    for name in names:
        found = [v.figures.get(name) for v in variants]
        known = [summary for summary in found if summary is not None]
        example = known[0].example
        floor = next((s.floor for s in known if s.floor is not None), None)
        cells = [_summary(v, s) for v, s in zip(variants, found, strict=True)]
        real_cell = [_floor(floor)] if floors else []
        table.append(
            [_name(name, example), *cells, *real_cell, *_cells(example.unit, example.better)]
        )
    parameters = _cells("parameters", *(f"{v.parameters:,}" for v in variants))
    table.append([*parameters, *blank, *_cells("", "")])
    seconds = [Cell("training time"), *(_seconds(v) for v in variants)]
    table.append([*seconds, *blank, *_cells("seconds a run", "lower")])
    return table


def differences_table(comparison: Comparison) -> Table:
    """One row a figure, one column a variant: how it differs from the first one, paired by seed.

    A star marks a difference that the seeds settle. Empty if there is nothing to pair.
    """
    first, *others = comparison.variants
    names = dict.fromkeys(name for v in others for name in v.figures)
    table = [_cells("", *(v.name for v in others))]
    for name in names:
        found = [comparison.difference(name, v, first) for v in others]
        if any(d is not None for d in found):
            cells = (_difference(d, len(comparison.seeds)) for d in found)
            table.append(_cells(name, *cells))
    return table if len(table) > 1 else []


def number(value: float | None) -> str:
    """A figure for people: four significant digits, at most six decimals; a whole number as it is."""
    if value is None:
        return NOT_DEFINED
    if not math.isfinite(value):
        return str(value)
    if value == int(value):
        return _fixed(value, 0)
    size = math.floor(math.log10(abs(value))) if value else 0
    return _fixed(value, 3 - size)


def with_error(value: float | None, error: float | None) -> str:
    """A figure and its error: two significant digits of the error, and as many of the figure."""
    if value is None or not error or not math.isfinite(error):
        return number(value)
    decimals = 1 - math.floor(math.log10(error))
    return f"{_fixed(value, decimals)} ± {_fixed(error, decimals)}"


def _fixed(value: float, decimals: int) -> str:
    return f"{value:,.{min(6, max(0, decimals))}f}".replace("-", "−")


def _cells(*texts: str | None) -> list[Cell]:
    return [Cell(text or "") for text in texts]


def _name(name: str, figure: Figure) -> Cell:
    said = f"{figure.definition} ({figure.source})" if figure.source else figure.definition
    return Cell(name, said)


def _summary(variant: Variant, summary: Summary | None) -> Cell:
    if summary is None:
        failed = "; ".join(dict.fromkeys(variant.errors.values()))
        return Cell("failed", failed) if variant.errors else Cell("not measured")
    interval, known = summary.interval, len(summary.values)
    said = with_error(summary.mean, None if interval is None else interval.half)
    some = f" ({known} of {len(variant.runs)})" if 0 < known < len(variant.runs) else ""
    lacks = next((f.undefined for f in summary.per_seed if f is not None and f.undefined), "")
    return Cell(said + some, lacks)


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


def _floor(floor: float | None) -> Cell:
    return Cell("" if floor is None else number(floor))


def _seconds(variant: Variant) -> Cell:
    known = [run.seconds for run in variant.runs if run.error is None]
    return Cell(f"{sum(known) / len(known):.1f}" if known else "failed")
