"""The page: a view of the comparison, poured into one template without any outside reference.

The policy in the page's head allows ``data:`` images and exactly the styles and scripts that are
here, by their SHA-256. Whatever a name, a command or a warning contains stays text: autoescaping
writes it, and :func:`~sfumato_report.text.visible` shows what it would hide.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sfumato import Comparison
from sfumato_report import curves, tables
from sfumato_report.findings import findings
from sfumato_report.pictures import Image, Painter
from sfumato_report.text import integer, letter, listed, plural, visible

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
    styles = [_asset("uPlot.min.css"), _asset("report.css")]
    scripts = [_asset("uPlot.iife.min.js"), _asset("report.js")]
    heads = [
        Head(letter(i), v.name, i % _HUES, i // _HUES % _DASHES)
        for i, v in enumerate(comparison.variants)
    ]
    found = curves.terms(comparison)
    view = {
        "policy": policy(styles, scripts),
        "styles": [Markup(s) for s in styles],  # noqa: S704 - our own files, not input
        "scripts": [Markup(s) for s in scripts],  # noqa: S704 - our own files, not input
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
        "curves": Markup(data_block(_curve_data(heads, found))),  # noqa: S704 - escaped there
        "kept_terms": tables.kept_terms(comparison),
        "records": tables.records(comparison),
        "pictures": _pictures(comparison),
        "differences": tables.differences(comparison),
        "provenance": tables.provenance(comparison),
        "environment": tables.flat(comparison.environment),
    }
    return _environment().get_template("report.html.j2").render(view)


def data_block(value: Any) -> str:
    """JSON that may stand in a ``script`` element: nothing in it can end the element or a line."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def policy(styles: list[str], scripts: list[str]) -> str:
    """The content security policy that lets in these texts and ``data:`` images only."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {' '.join(map(_digest, styles))}",
            f"script-src {' '.join(map(_digest, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    # The hash is of what a browser reads, and browsers read "\n" for every line end.
    return files(__package__).joinpath("assets", name).read_text("utf-8").replace("\r\n", "\n")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sfumato_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every value passes here, so no line of the template can forget it.
        finalize=_final,
    )
    environment.globals.update(letter=letter, plural=plural)
    return environment


def _final(value: object) -> object:
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return visible(str(value)) if plain else value


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
