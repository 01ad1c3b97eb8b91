"""The latent explorer: what a page needs to show codes, move through them and decode them live.

A decoder that is a chain of layers goes into the page with its weights and runs there; another one
is seen through data decoded over a lattice beforehand. With a server behind the page, neither is
needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sfumato import CodeSpace, Comparison, Contract, Split
from sfumato_report import packed
from sfumato_report.explored import NUMBERS, Explored, Shown, told
from sfumato_report.labels import classes
from sfumato_report.pictures import Painter
from sfumato_report.text import integer

STYLES = ("explorer.css",)
SCRIPTS = (
    "decoder.js", "latent.js", "latent_plane.js",
    "explorer_space.js", "explorer_decoding.js", "explorer_words.js", "explorer.js",
)  # fmt: skip
BLOCK = "explorer"
_PLANE = 2
_WORK = 10_000_000  # Products of one decoding, some ten milliseconds of a page's time.
_CONDITION = 64  # Numbers of a condition of which a page takes one an item.
_UNDER = {
    "label": "the class that is chosen",
    "item": "the condition of the item that was last gone to",
    "fixed": "the condition of the first item",
}


class Headed(Protocol):
    """How a model is told apart on the page."""

    @property
    def letter(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def hue(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class Explorer:
    """The section ``explorer`` of a page.

    Args:
        block: Data of the block ``explorer``; None if the data cannot be drawn.
        models: The models.
        count: How many items are shown.
        split: Of which split.
        classes: Names of the classes that a model can be asked for.
        condition: What conditional models are decoded under, in words; else empty.
        wide: Whether directions can be chosen for some model.
        deep: Whether some model has more dimensions than a plane.
        scale: What black and white mean.
        live: Whether a server decodes.
    """

    block: dict[str, Any] | None
    models: tuple[Shown, ...]
    count: int
    split: str
    classes: tuple[str, ...]
    condition: str
    wide: bool
    deep: bool
    scale: str
    live: bool


def of_comparison(
    comparison: Comparison,
    heads: Sequence[Headed],
    *,
    weights: int,
    live: str | None = None,
) -> Explorer | None:
    """The explorer of a comparison's trained models; None where no model has codes.

    Args:
        comparison: The comparison.
        heads: How its variants are told apart, one a variant.
        weights: Bytes of weights that all decoders together may take.
        live: The token of the server that decodes, if there is one.
    """
    found = [
        Explored(h.name, h.letter, h.hue, v.codes, 0 if v.pictures is None else v.pictures.seed)
        for v, h in zip(comparison.variants, heads, strict=True)
        if v.codes is not None and v.trained_as is None
    ]
    if comparison.items is None or not found or not len(comparison.items):
        return None
    painter = Painter.of(comparison)
    return explorer(
        found, comparison.items, comparison.contract, painter,
        split=comparison.split, weights=weights, live=live,
    )  # fmt: skip


def explorer(
    models: Sequence[Explored],
    items: Split,
    contract: Contract,
    painter: Painter,
    *,
    split: str,
    weights: int,
    live: str | None = None,
) -> Explorer:
    """The explorer of some models.

    Args:
        models: The models, all of the same data.
        items: The items that their codes are of.
        contract: What the data keep to.
        painter: The scale of pictures.
        split: The split that the items are of.
        weights: Bytes of weights that all decoders together may take.
        live: The token of the server that decodes, if there is one.
    """
    fitting = set(range(len(models))) if live else _fitting(models, weights)
    shown = tuple(
        Shown(m, "" if i in fitting else _why(m.space, weights)) for i, m in enumerate(models)
    )
    width = max(s.width for s in shown)
    count = max(1, min(len(items), NUMBERS // width, *(len(m.space.modes) for m in models)))
    # What is baked was decoded under one condition, and for ever.
    kind = _kind(contract) if any(s.conditional and not s.baked for s in shown) else None
    block = None
    if painter.drawable:
        block = {
            "shape": list(contract.shape),
            "low": painter.low,
            "high": painter.high,
            "items": _items(items.take(slice(0, count)), contract, painter),
            "condition": kind and _conditions(kind, items, contract, count),
            "models": _once([told(s, len(items), count, painter, live=bool(live)) for s in shown]),
            "live": live,
        }
    return Explorer(
        block=block,
        models=shown,
        count=count,
        split=split,
        classes=contract.classes if kind == "label" else (),
        condition=_UNDER[kind] if kind else "",
        wide=any(s.directions and not s.baked for s in shown),
        deep=width > _PLANE,
        scale=painter.note,
        live=bool(live),
    )


def _fitting(models: Sequence[Explored], weights: int) -> set[int]:
    """Which decoders go into the page: small ones first, as long as there is room."""
    sizes = {
        i: 4 * m.space.decoder.size
        for i, m in enumerate(models)
        if m.space.decoder is not None and m.space.decoder.work <= _WORK
    }
    kept: set[int] = set()
    for index in sorted(sizes, key=lambda i: (sizes[i], i)):
        if sum(sizes[i] for i in kept) + sizes[index] <= weights:
            kept.add(index)
    return kept


def _why(space: CodeSpace, weights: int) -> str:
    if space.decoder is None:
        return "its decoder is no chain of layers that a page can run"
    if space.decoder.work > _WORK:
        return (
            f"its decoder takes {integer(space.decoder.work)} products an item, too many for a page "
            "that decodes as one moves"
        )
    return (
        f"its decoder has {integer(space.decoder.size)} weights, and this page keeps to "
        f"{integer(weights // 4)} for all models"
    )


# ---- the block ---------------------------------------------------------------------------------


def _once(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with draws of one prior written once: others have the number of the model that has them."""
    first: dict[str, int] = {}
    for index, model in enumerate(models):
        owner = first.setdefault(model["prior"], index)
        model["prior"] = model["prior"] if owner == index else owner
    return models


def _items(items: Split, contract: Contract, painter: Painter) -> dict[str, Any]:
    names, numbers = classes(items.label, contract)
    return {
        "count": len(items),
        "labels": [] if numbers is None else numbers.tolist(),
        "names": names,
        "pictures": packed.atlas(items.x, painter, 25),
    }


def _kind(contract: Contract) -> str:
    if contract.condition == "label":
        return "label"
    return "item" if contract.condition_dim <= _CONDITION else "fixed"


def _conditions(kind: str, items: Split, contract: Contract, count: int) -> dict[str, Any] | None:
    """Classes as a number an item, other conditions as their rows."""
    rows = items.condition
    if rows is None:
        return None
    if kind == "label":
        return {"kind": kind, "width": contract.condition_dim, "of": rows.argmax(1).tolist()}
    rows = rows[: count if kind == "item" else 1]
    return {"kind": kind, "width": contract.condition_dim, "rows": packed.numbers(rows)}
