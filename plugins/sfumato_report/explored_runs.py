"""Runs as something to explore: their models, the data they share, and the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sfumato import Comparison, DataError, Model, Splits, Subject, Variant, open_run, view
from sfumato_report import explorer
from sfumato_report.shell import page
from sfumato_report.text import letter, listed

_STYLES = ("uPlot.min.css", "report.css", *explorer.STYLES)
_SCRIPTS = ("uPlot.iife.min.js", "theme.js", *explorer.SCRIPTS)
_HUES, _ORIGINALS, _SHOWN = 6, 10, 500
Opened = tuple[str, Model, Splits]


@dataclass(frozen=True)
class _Head:
    letter: str
    name: str
    hue: int


def opened(
    runs: Sequence[Path],
    split: str,
    overrides: Sequence[str] = (),
    device: str | None = None,
) -> list[Opened]:
    """The models of runs with their data, which must be the same.

    Args:
        runs: Run folders.
        split: The split whose items are shown.
        overrides: Changes of the specs.
        device: Where the models run.

    Raises:
        DataError: The runs are of different data, or one is named twice.
    """
    if len(set(runs)) < len(runs):
        msg = "a run is named twice"
        raise DataError(msg, hint="name each run once")
    found = [
        (name, *open_run(run, overrides, device))
        for name, run in zip(_names(runs), runs, strict=True)
    ]
    check_same(found, split)
    return found


def check_same(found: Sequence[Opened], split: str) -> None:
    """Raise a :class:`DataError` unless all models are of the same items."""
    first, _, splits = found[0]
    items = splits.get(split).x
    for name, _, others in found[1:]:
        if others.contract != splits.contract or not items.equal(others.get(split).x):
            msg = f"{name} is of other data than {first}"
            raise DataError(msg, hint="runs side by side need the same items")


def _names(runs: Sequence[Path]) -> list[str]:
    """What runs are called: as they were given, but for what all have in common of places on a disk."""
    if not any(run.is_absolute() for run in runs):
        return [str(run) for run in runs]
    base = Path(os.path.commonpath([run.resolve().parent for run in runs]))
    return [str(run.resolve().relative_to(base)) for run in runs]


def explored(found: Sequence[Opened], split: str) -> Comparison:
    """The code spaces of models side by side, as a comparison without figures."""
    splits = found[0][2]
    variants = []
    for name, model, _ in found:
        items = splits.seen(split, model.dtype)
        seen = view(Subject(model, items), items.take(slice(0, _SHOWN)), model.spec.training.seed)
        provenance = {kind: dict(origin) for kind, origin in model.plan.provenance.items()}
        variants.append(
            Variant(
                name, model.spec.to_json(), model.spec.hash, model.plan.parameters, provenance,
                (), seen.pictures, codes=seen.codes,
            )
        )  # fmt: skip
    items = splits.seen(split).take(slice(0, _SHOWN))
    data = found[0][1].spec.data
    return Comparison(
        variants=tuple(variants),
        data_name="own data" if data is None else data.type,
        contract=splits.contract,
        counts={name: len(part) for name, part in splits.named()},
        split=split,
        seeds=tuple(dict.fromkeys(v.pictures.seed for v in variants if v.pictures is not None)),
        originals=items.x[:_ORIGINALS],
        command="",
        environment={},
        items=items,
    )


def rendered(comparison: Comparison, weights: int, live: str | None = None) -> str:
    """The page.

    Args:
        comparison: What to explore.
        weights: Bytes of weights that all decoders together may take.
        live: The token of the server that decodes, if there is one.
    """
    heads = [_Head(letter(i), v.name, i % _HUES) for i, v in enumerate(comparison.variants)]
    made = explorer.of_comparison(comparison, heads, weights=weights, live=live)
    if made is None:
        msg = f"the {comparison.split} split has no items"
        raise DataError(msg)
    names = [v.name for v in comparison.variants]
    shown = {
        "title": f"{listed(names)} on {comparison.data_name}",
        "explorer": made,
        "comparison": comparison,
        "shape": " \u00d7 ".join(str(n) for n in comparison.contract.shape),
    }
    blocks = {} if made.block is None else {explorer.BLOCK: made.block}
    return page(
        "explore.html.j2",
        shown,
        blocks,
        styles=_STYLES,
        scripts=_SCRIPTS,
        connect=live is not None,
    )
