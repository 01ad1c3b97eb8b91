"""The tables of a report: figures, seeds, runs and what differs between the specs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sfumato import Comparison, Figure, Interval, Variant
from sfumato_report.curves import loss_names, values
from sfumato_report.ranking import Ranking, Spread, figure, on_one_scale, past, ranking, spread
from sfumato_report.text import finite, number, places, short, term


@dataclass(frozen=True)
class Cell:
    """One figure of one variant.

    Args:
        mean: Over seeds; empty where not defined.
        interval: Half the 95 % interval of the mean over seeds; empty below two.
        range: Smallest and largest value over seeds.
        why: Number of the footnote that says why there is no value.
        best: Whether the seeds settle that this is the best mean.
        failed: Whether every run failed.
        seeds: How many of the seeds have a value, if not all.
        past: Whether the mean is ``level with`` or ``beyond`` what real data reach; else empty.
    """

    mean: str = ""
    interval: str = ""
    range: str = ""
    why: int | None = None
    best: bool = False
    seeds: str = ""
    failed: bool = False
    past: str = ""


@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        title: Its name.
        unit: Its unit.
        better: ``lower is better``, ``higher is better`` or empty.
        definition: What it is.
        floor: What real data reach, where that is known.
        cells: One a variant.
        per_seed: For each variant, a value and its standard error a seed.
    """

    title: str
    unit: str
    better: str
    definition: str
    floor: str
    cells: tuple[Cell, ...]
    per_seed: tuple[tuple[tuple[str, str], ...], ...]


@dataclass
class Metrics:
    """The table of figures.

    Args:
        rows: One a figure.
        reasons: Footnotes: why a cell is empty.
    """

    rows: list[Row] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def because(self, reason: str) -> int:
        """The number of a footnote, new or known."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1


def metrics(comparison: Comparison) -> Metrics:
    """Every figure that some variant has, in the order in which they first occur."""
    table = Metrics()
    names = (n for v in comparison.variants for run in v.runs for n in run.figures)
    for name in dict.fromkeys(names):
        table.rows.append(_row(comparison, name, table))
    return table


def _row(comparison: Comparison, name: str, table: Metrics) -> Row:
    spreads = [spread(v, name) for v in comparison.variants]
    order = ranking(comparison, name)
    best = order.order[0][0] if order and _settled(comparison, order, name) else None
    cells = [
        _empty(v, name, table)
        if s is None
        # Past real data is not better than real data, whatever the direction.
        else _cell(s, best=i == best and not past(v, name), past=past(v, name))
        for i, (v, s) in enumerate(zip(comparison.variants, spreads, strict=True))
    ]
    example = next(f for v in comparison.variants if (f := figure(v, name)) is not None)
    floors = (v.figures[name].floor for v in comparison.variants if name in v.figures)
    floor = next((f for f in floors if f is not None), None)
    return Row(
        term(name),
        example.unit,
        f"{example.better} is better" if example.better else "",
        _definition(example),
        "" if floor is None else short(floor),
        tuple(cells),
        tuple(_seeds(comparison, v, name) for v in comparison.variants),
    )


def _settled(comparison: Comparison, order: Ranking, name: str) -> bool:
    """Whether the best mean is told from the next, by a figure that warns of itself in neither."""
    warned = any(name in comparison.variants[i].cautions for i, _ in order.order[:2])
    return order.verdict == "settled" and on_one_scale(comparison, order.figure) and not warned


def _empty(variant: Variant, name: str, table: Metrics) -> Cell:
    if variant.errors and not variant.figures:
        return Cell(failed=True)
    return Cell(why=table.because(_why(variant, name)))


def _definition(figure: Figure) -> str:
    return f"{figure.definition} ({figure.source})" if figure.source else figure.definition


def _why(variant: Variant, name: str) -> str:
    example = figure(variant, name)
    if example is None:
        return "this variant was not scored with it"
    return example.undefined or "no finite value"


def _decimals(of: Spread) -> int:
    # Each cell has its own: in one row, spreads may differ by orders of magnitude.
    if of.range == 0 and of.low == int(of.low):
        return 0  # a count
    return places(of.values, [of.deviation or 0.0])


def _cell(of: Spread, *, best: bool, past: str) -> Cell:
    decimals, interval = _decimals(of), Interval.of(of.values)
    low, high = number(of.low, decimals), number(of.high, decimals)
    equal = of.range == 0
    several = "in every seed" if equal else f"{low} to {high}"
    return Cell(
        number(of.mean, decimals),
        "" if interval is None or equal else number(interval.half, decimals),
        several if len(of.values) > 1 else "",
        best=best,
        seeds="" if of.complete else f"{len(of.values)} of {of.runs} seeds",
        past=past,
    )


def _seeds(comparison: Comparison, variant: Variant, name: str) -> tuple[tuple[str, str], ...]:
    """The value and its standard error over items, one pair a seed."""
    whole = spread(variant, name)
    decimals = 0 if whole is None else _decimals(whole)
    out = []
    by_seed = {run.seed: run.figures.get(name) for run in variant.runs}
    for seed in comparison.seeds:
        found = by_seed.get(seed)
        value, error = finite(found and found.value), finite(found and found.standard_error)
        shown = "\u2013" if value is None else number(value, decimals)
        out.append((shown, "" if error is None else number(error, decimals)))
    return tuple(out)


def kept_terms(comparison: Comparison) -> list[tuple[str, str, list[str]]]:
    """Terms at the kept epoch, mean over seeds: the curves for those who cannot see them."""
    out = []
    for name in loss_names(comparison):
        for split, title in (("train", "training"), ("valid", "validation")):
            means = [_kept(v, split, name) for v in comparison.variants]
            known = [m for m in means if m is not None]
            decimals = places(known)
            cells = ["\u2013" if m is None else number(m, decimals) for m in means]
            if known:
                out.append((term(name), title, cells))
    return out


def _kept(variant: Variant, split: str, name: str) -> float | None:
    found = (values(run, split, name).get(run.kept_epoch) for run in variant.runs)
    known = [v for v in found if v is not None]
    return statistics.fmean(known) if known else None


def differences(comparison: Comparison) -> list[tuple[str, list[str | None]]]:
    """Pointers where the specs differ and what each variant has there (None: nothing)."""
    names = [v.name for v in comparison.variants]
    return [
        (pointer, [None if row[n] is None else _json(row[n]) for n in names])
        for pointer, row in comparison.differences().items()
    ]


def provenance(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Where each part comes from: rows of part kinds, a cell a variant."""
    kinds = dict.fromkeys(k for v in comparison.variants for k in v.provenance)
    return [(k, [_origin(v.provenance.get(k)) for v in comparison.variants]) for k in kinds]


def _origin(value: Any) -> str:
    if value is None:
        return "\u2013"
    if isinstance(value, Mapping) and "distribution" in value:
        known = [str(value[k]) for k in ("distribution", "version") if value.get(k) is not None]
        target = value.get("target") or value.get("name")
        return " ".join(known) + (f" ({target})" if target else "")
    return value if isinstance(value, str) else _json(value)


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested JSON data as rows."""
    rows: list[tuple[str, str]] = []
    for name, inner in value.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(inner, Mapping):
            rows += flat(inner, f"{label}, ")
        else:
            rows.append((label, inner if isinstance(inner, str) else _json(inner)))
    return rows


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
