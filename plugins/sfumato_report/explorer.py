"""The latent explorer: what a page needs to show codes, move through them and decode them live.

A decoder that is a chain of layers goes into the page with its weights and runs there; another one
is seen through data decoded over a lattice beforehand. With a server behind the page, neither is
needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sfumato import CodeSpace, Comparison, Contract, Split
from sfumato_report import packed
from sfumato_report.pictures import Painter
from sfumato_report.text import integer, visible

STYLES = ("explorer.css",)
SCRIPTS = (
    "decoder.js", "latent.js", "latent_plane.js",
    "explorer_space.js", "explorer_decoding.js", "explorer_words.js", "explorer.js",
)  # fmt: skip
BLOCK = "explorer-data"
REPORT_WEIGHTS = 4 * 2**20
"""Bytes of weights that a report's explorer keeps to."""
_DIRECTIONS, _DRAWS, _PROBED = 8, 200, 16_384
_NUMBERS = 24_000  # Of the codes of one model; wide codes are shown of fewer items.
_LATTICE = 110_000  # Bytes of a PNG, a third more in the page.
_CONDITION = 64


class Headed(Protocol):
    """How a model is told apart on the page."""

    @property
    def letter(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def hue(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class Explored:
    """One model to explore.

    Args:
        name: Its name.
        letter: What it is called where its name has no room.
        hue: Its colour, by index.
        space: Its codes.
        seed: The seed it was trained with.
    """

    name: str
    letter: str
    hue: int
    space: CodeSpace
    seed: int


@dataclass(frozen=True)
class Shown:
    """One model as the template shows it.

    Args:
        model: The model.
        baked: Why it is seen through a lattice; empty if it is not.
        size: Of its lattice: rows and columns.
        directions: How many directions beyond the plane can be moved along.
    """

    model: Explored
    baked: str
    size: tuple[int, int]
    directions: int


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
        wide: Whether some model has directions beyond a plane.
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
    scale: str
    live: bool


def of_comparison(
    comparison: Comparison,
    heads: Sequence[Headed],
    *,
    weights: int = REPORT_WEIGHTS,
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
    width = max(m.space.modes.shape[1] for m in models)
    count = max(1, min(len(items), _NUMBERS // width, *(len(m.space.modes) for m in models)))
    fitting = set() if live else _fitting(models, weights)
    baked = [
        "" if live or i in fitting else _why(m.space, weights) for i, m in enumerate(models)
    ]
    shown = tuple(
        Shown(m, why, _size(m.space), _beyond(m.space)) for m, why in zip(models, baked, strict=True)
    )
    kind, condition, classes = _condition(contract, models)
    block = {
        "shape": list(contract.shape),
        "low": painter.low,
        "high": painter.high,
        "items": _items(items.take(slice(0, count)), contract, painter),
        "condition": kind and _conditions(kind, items, contract, models, count),
        "models": [
            _model(s, len(items), count, painter, live=bool(live)) for s in shown
        ],
        "live": live,
    } if painter.drawable else None  # fmt: skip
    wide = any(s.directions and not s.baked for s in shown)
    return Explorer(
        block, shown, count, split, classes, condition, wide, painter.note, bool(live)
    )


def _fitting(models: Sequence[Explored], weights: int) -> set[int]:
    """Which decoders go into the page: small ones first, as long as there is room."""
    sizes = {
        i: 4 * m.space.decoder.size for i, m in enumerate(models) if m.space.decoder is not None
    }
    kept: set[int] = set()
    for index in sorted(sizes, key=lambda i: (sizes[i], i)):
        if sum(sizes[i] for i in kept) + sizes[index] <= weights:
            kept.add(index)
    return kept


def _why(space: CodeSpace, weights: int) -> str:
    if space.decoder is None:
        return "its decoder is no chain of layers that a page can run"
    return (
        f"its decoder has {integer(space.decoder.size)} weights, and this page keeps to "
        f"{integer(weights // 4)} for all models"
    )


def _size(space: CodeSpace) -> tuple[int, int]:
    rows, columns = space.lattice.means.shape[:2]
    return rows, columns


def _beyond(space: CodeSpace) -> int:
    return max(0, min(_DIRECTIONS, len(space.axes)) - 2)


# ---- the block ---------------------------------------------------------------------------------


def _items(items: Split, contract: Contract, painter: Painter) -> dict[str, Any]:
    found, labels = _classes(items.label, contract)
    return {
        "count": len(items),
        "labels": labels,
        "names": found,
        "pictures": packed.atlas(items.x, painter, 25),
    }


def _classes(label: Tensor | None, contract: Contract) -> tuple[list[str], list[int]]:
    """Names of the classes that occur, and for each item the number of its name."""
    if label is None:
        return [], []
    found, numbers = label.unique(return_inverse=True)
    names = contract.classes
    told = [names[i] if 0 <= i < len(names) else str(i) for i in found.tolist()]
    return [visible(name) for name in told], numbers.tolist()


def _condition(
    contract: Contract, models: Sequence[Explored]
) -> tuple[str, str, tuple[str, ...]]:
    """Of conditional models: what kind of condition, how it is told, and classes to choose from."""
    if not contract.condition_dim or all(m.space.condition is None for m in models):
        return "", "", ()
    if contract.condition == "label":
        return "label", "the class that is chosen", contract.classes
    if contract.condition_dim <= _CONDITION:
        return "item", "the condition of the item that was last gone to", ()
    return "fixed", "the condition of the first item", ()


def _conditions(
    kind: str, items: Split, contract: Contract, models: Sequence[Explored], count: int
) -> dict[str, Any]:
    """Classes as a number an item, other conditions as their rows."""
    fixed = next(m.space.condition for m in models if m.space.condition is not None)
    rows = fixed if items.condition is None or kind == "fixed" else items.condition
    if kind == "label":
        return {"kind": kind, "width": contract.condition_dim, "of": rows.argmax(1).tolist()}
    return {"kind": kind, "width": contract.condition_dim, "rows": packed.numbers(rows[:count])}


def _model(shown: Shown, of: int, count: int, painter: Painter, *, live: bool) -> dict[str, Any]:
    model, space = shown.model, shown.model.space
    width = space.modes.shape[1]
    draws = space.draws[:count]
    point = space.scales is None and torch.equal(draws, space.modes[: len(draws)])
    probes = max(1, _PROBED // max(1, space.decoded[0].numel()))
    lattice, inside = space.lattice, not (live or shown.baked)
    return {
        "letter": model.letter,
        "name": visible(model.name),
        "hue": model.hue,
        "width": width,
        "kind": space.kind,
        "shares": [round(s, 4) for s in space.shares[:_DIRECTIONS].tolist()],
        "centre": packed.numbers(space.centre),
        "axes": packed.numbers(space.axes[:_DIRECTIONS]),
        "modes": packed.numbers(space.modes[:count]),
        "scales": None if space.scales is None else packed.numbers(space.scales[:count]),
        # A point is its own draw.
        "point": point,
        "draws": None if point else packed.numbers(draws),
        "prior": packed.numbers(space.prior[:_DRAWS]),
        # Which item's condition a draw of the prior was made under: they were taken in turn.
        "drawn_under": [i % of for i in range(min(_DRAWS, len(space.prior)))],
        "conditional": space.condition is not None,
        "decoder": None if space.decoder is None or not inside else packed.decoder(space.decoder),
        "lattice": {
            "low": list(lattice.low),
            "high": list(lattice.high),
            "size": list(shown.size),
            "pictures": packed.atlas(
                lattice.means.flatten(0, 1), painter, shown.size[1], _LATTICE
            ),
        } if shown.baked else None,
        "probes": packed.numbers(space.probes[:probes]) if inside else None,
        "decoded": packed.numbers(space.decoded[:probes]) if inside else None,
        "fixed": None if space.condition is None else packed.numbers(space.condition),
    }  # fmt: skip
