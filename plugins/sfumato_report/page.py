"""The report's page: a view of the comparison, poured into one template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfumato import Comparison
from sfumato_report import curves, tables
from sfumato_report.findings import findings
from sfumato_report.pictures import Image, Painter
from sfumato_report.shell import page
from sfumato_report.text import integer, letter, listed

_STYLES = ("uPlot.min.css", "report.css")
_SCRIPTS = ("uPlot.iife.min.js", "theme.js", "report.js")
_HUES, _DASHES = 6, 3
_ORIGINALS, _SAMPLES, _ROWS = 16, 64, 6
_PAGE, _CARD = 640, 330  # Widths of pictures, in pixels.
_VARIANTS_NAMED = 4


@dataclass(frozen=True)
class Head:
    """How a variant is told apart: a letter, a colour and a dash, the same all over the page."""

    letter: str
    name: str
    hue: int
    dash: int


@dataclass(frozen=True)
class Shown:
    """A picture of one variant."""

    variant: int
    image: Image
    source: str = ""


def render(comparison: Comparison, title: str = "") -> str:
    """The report as HTML."""
    heads = [
        Head(letter(i), v.name, i % _HUES, i // _HUES % _DASHES)
        for i, v in enumerate(comparison.variants)
    ]
    found = curves.terms(comparison)
    view = {
        "title": title or _title(comparison),
        "heads": heads,
        "comparison": comparison,
        "splits": [(name, integer(n)) for name, n in comparison.counts.items()],
        "seeds": ", ".join(str(s) for s in comparison.seeds),
        "shape": " \u00d7 ".join(str(n) for n in comparison.contract.shape),
        "findings": findings(comparison),
        "metrics": tables.metrics(comparison),
        "budget": tables.budget(comparison),
        "terms": found,
        "stride": curves.stride(comparison),
        "uneven": _uneven(comparison),
        "kept_terms": tables.kept_terms(comparison),
        "records": tables.records(comparison),
        "pictures": _pictures(comparison),
        "differences": tables.differences(comparison),
        "provenance": tables.provenance(comparison),
        "environment": tables.flat(comparison.environment),
    }
    blocks = {"curves": _curve_data(heads, found)}
    return page("report.html.j2", view, blocks, styles=_STYLES, scripts=_SCRIPTS)


def _title(comparison: Comparison) -> str:
    names = [v.name for v in comparison.variants]
    if len(names) > _VARIANTS_NAMED:
        return f"{len(names)} models on {comparison.data_name}"
    return f"{listed(names)} on {comparison.data_name}"


def _uneven(comparison: Comparison) -> bool:
    """Whether some seeds of a variant trained longer than others."""
    return any(len({len(run.history) for run in v.runs}) > 1 for v in comparison.variants)


def _curve_data(heads: list[Head], found: list[curves.Term]) -> dict[str, Any]:
    return {
        "variants": [{"letter": h.letter, "hue": h.hue, "dash": h.dash} for h in heads],
        "charts": [chart.data for t in found for chart in t.charts],
    }


def _seeds(comparison: Comparison) -> str:
    seeds = sorted({v.pictures.seed for v in comparison.variants if v.pictures is not None})
    return (
        f"seed{'s' if len(seeds) > 1 else ''} {listed([str(s) for s in seeds])}" if seeds else ""
    )


def _pictures(comparison: Comparison) -> dict[str, Any]:
    painter = Painter.of(comparison)
    shown: dict[str, Any] = {
        "painter": painter,
        "seeds": _seeds(comparison),
        "count": min(_ORIGINALS, len(comparison.originals)),
        "of": len(comparison.originals),
    }
    if not painter.drawable or not len(comparison.originals):
        return {**shown, "drawable": False}
    originals = painter.grid(comparison.originals[:_ORIGINALS], _ORIGINALS, _PAGE)
    reconstructions, samples, interpolations = [], [], []
    for index, variant in enumerate(comparison.variants):
        drawn = variant.pictures
        if drawn is None:
            continue
        if len(drawn.reconstructions) and variant.trained_as is None:
            image = painter.grid(drawn.reconstructions[:_ORIGINALS], _ORIGINALS, _PAGE)
            reconstructions.append(Shown(index, image))
        if len(drawn.samples):
            image = painter.grid(drawn.samples[:_SAMPLES], 8, _CARD)
            source = "its prior" if variant.sampler is None else f"{variant.sampler['type']}"
            samples.append(Shown(index, image, source))
        if drawn.interpolations.numel() and variant.trained_as is None:
            rows = drawn.interpolations[:_ROWS]
            image = painter.grid(rows.flatten(0, 1), rows.shape[1], _CARD)
            interpolations.append(Shown(index, image))
    return {
        **shown,
        "drawable": True,
        "originals": originals,
        "reconstructions": reconstructions,
        "samples": samples,
        "interpolations": interpolations,
    }
