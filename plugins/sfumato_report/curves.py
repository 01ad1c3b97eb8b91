"""Training curves as chart data: a mean over seeds and the range around it, an epoch at a time."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sfumato import Comparison, VariantRun
from sfumato_report.charts import Chart, padded, rounded
from sfumato_report.text import finite, letter, short, term

_POINTS = 240  # A chart is about 500 pixels wide; more points cost bytes and show nothing.
_CUT_FROM = 10  # A scale leaves out first epochs only where enough others remain.
_FIRST = ("objective", "elbo", "reconstruction", "kl")
_SAID = {
    "objective": "What training minimises, each variant with its own loss and weights: compare "
    "its shape, not its height, where losses differ.",
    "elbo": "The evidence lower bound, with weight 1 on the divergence whatever the objective.",
    "reconstruction": "\u2212log p(x|z), with its constants.",
    "kl": "Divergence of the posterior from the prior.",
}


@dataclass(frozen=True)
class Term:
    """The panels of one term, on one scale.

    Args:
        title: Its name.
        definition: What it is.
        unit: Its unit.
        charts: Training and validation, or what a part reports.
        cut: Epochs that the scale leaves out in part; 0 if none.
    """

    title: str
    definition: str
    unit: str
    charts: tuple[Chart, ...]
    cut: int


def stride(comparison: Comparison) -> int:
    """Every how many epochs a point is drawn."""
    longest = max((len(run.history) for v in comparison.variants for run in v.runs), default=0)
    return max(1, -(-longest // _POINTS))


def terms(comparison: Comparison) -> list[Term]:
    """Every term that some variant records, the objective first, then what parts report."""
    losses = loss_names(comparison)
    found = [
        _term(comparison, n, ("train", "valid"), "nats per item", i) for i, n in enumerate(losses)
    ]
    for name in _names(comparison, ("parts",)):
        found.append(_term(comparison, name, ("parts",), "", len(found)))
    return [t for t in found if t.charts]


def loss_names(comparison: Comparison) -> list[str]:
    """Every loss term that some variant records, the objective first."""
    names = _names(comparison, ("train", "valid"))
    return sorted(names, key=lambda n: _FIRST.index(n) if n in _FIRST else len(_FIRST))


def _names(comparison: Comparison, groups: tuple[str, ...]) -> list[str]:
    entries = [e for v in comparison.variants for run in v.runs for e in run.history]
    names = (n for e in entries for g in groups for n in _mapping(e.get(g)))
    return list(dict.fromkeys(names))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _term(
    comparison: Comparison, name: str, groups: tuple[str, ...], unit: str, index: int
) -> Term:
    step = stride(comparison)
    panels = {g: _series(comparison, g, name, step) for g in groups}
    panels = {g: series for g, series in panels.items() if series}
    grid = sorted({e for series in panels.values() for s in series for e in s["at"]})
    scale, cut = _scale(grid, [s for series in panels.values() for s in series])
    charts = []
    for group, series in panels.items():
        panel = {"train": "training", "valid": "validation"}.get(group, "")
        for s in series:
            at = s.pop("at")
            rows = {k: s[k] for k in ("mean", "low", "high") if k in s}
            s.update({k: _on(grid, at, v) for k, v in rows.items()})
        chart_id = f"chart-{index}-{group}"
        data = {
            "id": chart_id,
            "group": f"term-{index}",
            "unit": unit,
            "over": "epoch",
            "said": "epoch",
            "x": grid,
            "range": scale,
            "series": series,
        }
        charts.append(Chart(chart_id, _label(name, panel, unit, grid, series), panel, data))
    title = term(name) if groups[0] == "train" else name
    return Term(title, _SAID.get(name, ""), unit, tuple(charts), cut)


def _series(comparison: Comparison, group: str, name: str, step: int) -> list[dict[str, Any]]:
    found = []
    for index, variant in enumerate(comparison.variants):
        if variant.trained_as is not None:
            continue  # its curves are those of another column
        runs = [values(run, group, name) for run in variant.runs]
        at = sorted({e for run in runs for e in run})
        at = [e for i, e in enumerate(at) if i % step == 0 or i == len(at) - 1]
        if not at:
            continue
        columns = [[run[e] for run in runs if e in run] for e in at]
        series: dict[str, Any] = {"variant": index, "at": at}
        series["mean"] = [rounded(statistics.fmean(c)) for c in columns]
        if len(runs) > 1:
            series["low"] = [rounded(min(c)) for c in columns]
            series["high"] = [rounded(max(c)) for c in columns]
        kept = [(r.kept_epoch, v) for r, v in zip(variant.runs, runs, strict=True)]
        series["kept"] = [[e, rounded(v[e])] for e, v in kept if e in v]
        found.append(series)
    return found


def values(run: VariantRun, group: str, name: str) -> dict[int, float]:
    """One term of one run by epoch, where it is finite."""
    pairs = ((e["epoch"], finite(_mapping(e.get(group)).get(name))) for e in run.history)
    return {int(epoch): value for epoch, value in pairs if value is not None}


def _on(grid: list[int], at: list[int], column: list[float]) -> list[float | None]:
    known = dict(zip(at, column, strict=True))
    return [known.get(epoch) for epoch in grid]


def _scale(grid: list[int], series: list[dict[str, Any]]) -> tuple[list[float], int]:
    """The y range, and how many first epochs it leaves out in part.

    The first epochs often span more than all the rest; a scale that holds them flattens what
    matters.
    """
    if not grid:
        return [0.0, 1.0], 0
    early = grid[0] + max(2, (grid[-1] - grid[0]) // 5)
    every = list(_points(series, grid[0]))
    late = list(_points(series, early))
    whole = max(every) - min(every)
    if late and len(grid) >= _CUT_FROM and whole > 2 * (max(late) - min(late)) > 0:
        low, high = padded(min(late), max(late), 0.12)
        outside = [e for e, v in _placed(series) if not low <= v <= high]
        return [low, high], max(outside, default=grid[0]) - grid[0] + 1
    return padded(min(every), max(every), 0.05), 0


def _placed(series: list[dict[str, Any]]) -> Iterable[tuple[int, float]]:
    for s in series:
        for key in ("mean", "low", "high"):
            yield from zip(s["at"], s.get(key, []), strict=False)


def _points(series: list[dict[str, Any]], start: int) -> Iterable[float]:
    return (value for epoch, value in _placed(series) if epoch >= start)


def _label(name: str, panel: str, unit: str, grid: list[int], series: list[dict[str, Any]]) -> str:
    lasts = [(s["variant"], [v for v in s["mean"] if v is not None][-1]) for s in series]
    ends = ", ".join(f"{letter(i)} {short(value)}" for i, value in lasts)
    what = " ".join(w for w in (term(name), panel and f"on the {panel} split") if w)
    return (
        f"Line chart: {what}{f' in {unit}' if unit else ''} over epochs {grid[0]} to {grid[-1]}; "
        f"mean over seeds at the end: {ends}"
    )
