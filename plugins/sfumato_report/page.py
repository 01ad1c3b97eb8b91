"""The report's page: a view of the comparison, poured into one template, section by section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfumato import Comparison
from sfumato_report import codes, curves, explorer, tables, trainings
from sfumato_report.findings import findings
from sfumato_report.plane import plane
from sfumato_report.shell import page
from sfumato_report.shown import pictures
from sfumato_report.text import integer, letter, listed
from sfumato_report.units import spectra

_STYLES = ("uPlot.min.css", "report.css", *explorer.STYLES)
_SCRIPTS = (
    "uPlot.iife.min.js", "theme.js", *explorer.SCRIPTS, "curves.js", "panels.js", "print.js",
)  # fmt: skip
_HUES, _DASHES = 6, 3
_VARIANTS_NAMED = 4
_CONTENTS = {
    "findings": "Findings",
    "figures": "Figures",
    "specs": "Specs",
    "curves": "Curves",
    "reconstructions": "Reconstructions",
    "samples": "Samples",
    "interpolations": "Interpolations",
    "codes": "Codes",
    "explorer": "Explorer",
    "aggregate": "Aggregate and prior",
    "units": "Units",
    "plane": "Rate and distortion",
    "cost": "Cost",
    "provenance": "Provenance",
}
"""Sections in reading order; the name of each is that of its template."""


@dataclass(frozen=True)
class Head:
    """How a variant is told apart: a letter, a colour and a dash, the same all over the page.

    Args:
        index: Which variant.
        letter: Its letter.
        name: Its name.
        hue: Number of its colour.
        dash: Number of its dash.
        own: Whether its trainings are its own, not those of another column.
    """

    index: int
    letter: str
    name: str
    hue: int
    dash: int
    own: bool = True


def heads_of(comparison: Comparison) -> list[Head]:
    """The heads of all variants."""
    return [
        Head(i, letter(i), v.name, i % _HUES, i // _HUES % _DASHES, v.trained_as is None)
        for i, v in enumerate(comparison.variants)
    ]


def render(comparison: Comparison, title: str, weights: int) -> str:
    """The report as HTML, with at most so many bytes of decoders' weights."""
    heads = heads_of(comparison)
    view: dict[str, Any] = {
        "title": title or _title(comparison),
        "heads": heads,
        "comparison": comparison,
        "splits": [(name, integer(n)) for name, n in comparison.counts.items()],
        "seeds": ", ".join(str(s) for s in comparison.seeds),
        "shape": " \u00d7 ".join(str(n) for n in comparison.contract.shape),
        "findings": findings(comparison),
        "metrics": tables.metrics(comparison),
        "differences": tables.differences(comparison),
        "terms": curves.terms(comparison),
        "stride": curves.stride(comparison),
        "uneven": _uneven(comparison),
        "kept_terms": tables.kept_terms(comparison),
        "pictures": pictures(comparison),
        "codes": _codes(comparison),
        "explorer": explorer.of_comparison(comparison, heads, weights=weights),
        "aggregates": codes.aggregates(comparison),
        "spectra": spectra(comparison),
        "plane": plane(comparison),
        "budget": trainings.budget(comparison),
        "records": trainings.records(comparison),
        "provenance": tables.provenance(comparison),
        "environment": tables.flat(comparison.environment),
    }
    view["contents"] = _contents(view)
    return page("report.html.j2", view, _blocks(heads, view), styles=_STYLES, scripts=_SCRIPTS)


def _contents(view: dict[str, Any]) -> list[tuple[str, str]]:
    """The sections that have content."""
    empty = {
        "curves": not view["terms"],
        "codes": view["codes"] is None,
        "explorer": view["explorer"] is None,
        "aggregate": not view["aggregates"],
        "units": not view["spectra"],
        "plane": view["plane"] is None,
    }
    return [(name, title) for name, title in _CONTENTS.items() if not empty.get(name, False)]


def _blocks(heads: list[Head], view: dict[str, Any]) -> dict[str, Any]:
    """What the scripts draw."""
    variants = [{"letter": h.letter, "hue": h.hue, "dash": h.dash} for h in heads]
    lines = [chart for term in view["terms"] for chart in term.charts]
    lines += [chart for *_, chart in view["spectra"]]
    panels = [] if view["codes"] is None else list(view["codes"]["scatters"])
    panels += [chart for _, charts in view["aggregates"] for chart in charts]
    if view["plane"] is not None and not isinstance(view["plane"], str):
        panels.append(view["plane"])
    explored = view["explorer"]
    return {
        "curves": {"variants": variants, "charts": [c.data for c in lines]},
        "panels": {"variants": variants, "charts": [c.data for c in panels]},
        **({} if explored is None or explored.block is None else {explorer.BLOCK: explored.block}),
    }


def _title(comparison: Comparison) -> str:
    names = [v.name for v in comparison.variants]
    if len(names) > _VARIANTS_NAMED:
        return f"{len(names)} models on {comparison.data_name}"
    return f"{listed(names)} on {comparison.data_name}"


def _uneven(comparison: Comparison) -> bool:
    """Whether some seeds of a variant trained longer than others."""
    return any(len({len(run.history) for run in v.runs}) > 1 for v in comparison.variants)


def _codes(comparison: Comparison) -> dict[str, Any] | None:
    spaces = [space for _, _, space in codes.trained(comparison)]
    if not spaces:
        return None
    return {
        "scatters": codes.scatters(comparison),
        "shown": integer(max(len(s.modes) for s in spaces)),
        "draws": integer(max(len(s.draws) for s in spaces)),
        "units": codes.UNITS,
        "hidden": any(s.modes.shape[1] > codes.UNITS for s in spaces),
        "classes": bool(codes.told_apart(comparison, len(spaces[0].modes))[0]),
        "many": comparison.items is not None and comparison.items.label is not None,
    }
