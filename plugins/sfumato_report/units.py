"""How much each unit of a code carries: spectra of divergence and activity over seeds."""

from __future__ import annotations

import statistics
from typing import Any

from sfumato import Comparison, Variant
from sfumato_report.charts import Chart, padded, rounded
from sfumato_report.text import letter, short

_SHOWN = 64
_KL = (
    "What a unit tells about its item, at most; the units of each seed sorted, the largest first. "
    "All units add up to the KL of the table."
)
_ACTIVITY = (
    "Variance over items of E[z|x], sorted likewise (Burda et al., 2016); the definition of active "
    "units says from where on one counts. A point code has no noise to compare with, so its scale "
    "is arbitrary."
)
_SPECTRA = {
    "kl_per_dimension": ("KL of each unit", "nats per item", _KL),
    "active_units": ("Activity of each unit", "variance over items", _ACTIVITY),
}


def spectra(comparison: Comparison) -> list[tuple[str, str, str, Chart]]:
    """Title, unit, definition and chart of each spectrum that some model has."""
    made = []
    for name, (title, unit, definition) in _SPECTRA.items():
        series = [
            found
            for i, v in enumerate(comparison.variants)
            if v.trained_as is None and (found := _series(i, v, name))
        ]
        if series:
            said = f"{definition}{_left_out(comparison, name)}"
            made.append((title, unit, said, _chart(name, title, unit, series)))
    return made


def _left_out(comparison: Comparison, name: str) -> str:
    figures = (run.figures.get(name) for v in comparison.variants for run in v.runs)
    most = max(len(f.each) for f in figures if f is not None)
    return f" Of {most} units the {_SHOWN} largest are drawn." if most > _SHOWN else ""


def _series(index: int, variant: Variant, name: str) -> dict[str, Any] | None:
    figures = [run.figures.get(name) for run in variant.runs]
    seeds = [sorted(f.each, reverse=True)[:_SHOWN] for f in figures if f is not None and f.each]
    if not seeds:
        return None
    ranks = list(zip(*seeds, strict=True))  # one specification, so one number of units
    made = {
        "variant": index,
        "mean": [rounded(statistics.fmean(r)) for r in ranks],
        "kept": [],
        "points": True,
    }
    if len(seeds) > 1:
        made |= {
            "low": [rounded(min(r)) for r in ranks],
            "high": [rounded(max(r)) for r in ranks],
        }
    return made


def _chart(name: str, title: str, unit: str, series: list[dict[str, Any]]) -> Chart:
    longest = max(len(s["mean"]) for s in series)
    for s in series:
        for row in ("mean", "low", "high"):
            if row in s:
                s[row] += [None] * (longest - len(s[row]))
    known = [
        v
        for s in series
        for row in ("mean", "low", "high")
        for v in s.get(row, [])
        if v is not None
    ]
    logarithmic = name == "active_units"
    positive = [v for v in known if v > 0]
    data = {
        "id": f"spectrum-{name}",
        "group": "spectra",
        "unit": unit,
        "over": "rank of the unit",
        "said": "unit of rank",
        "x": list(range(1, longest + 1)),
        "range": padded(0.0, max(known))
        if not logarithmic or not positive
        else _decades(positive),
        "log": logarithmic and bool(positive),
        "series": series,
    }
    ends = "; ".join(map(_ends, series))
    label = f"Line chart: {title}, sorted, mean over seeds: {ends}"
    return Chart(f"spectrum-{name}", label, "", data)


def _ends(series: dict[str, Any]) -> str:
    known = [v for v in series["mean"] if v is not None]
    return f"{letter(series['variant'])} from {short(known[0])} to {short(known[-1])}"


def _decades(values: list[float]) -> list[float]:
    """Whole decades around the values, no more than eight below the largest."""
    top = 10 ** (len(f"{max(values):.0f}") if max(values) >= 1 else 0)
    low = max(min(values), top * 1e-8)
    bottom = 1.0
    while bottom > low:
        bottom /= 10
    return [rounded(min(bottom, 0.001)), float(top)]
