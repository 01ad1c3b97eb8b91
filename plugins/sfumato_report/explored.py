"""One model to explore, and what a page is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sfumato import CodeSpace, visible_text
from sfumato_report import packed
from sfumato_report.pictures import Painter

NUMBERS = 24_000
"""Of the codes of one model, at most; wide codes are shown of fewer items."""
_PLANE, _DIRECTIONS, _DRAWS, _PROBED = 2, 8, 200, 16_384
_SILENT = 0.05  # Share of a unit's variance.
_SQUARE = 32  # Width of the widest covariance that a page takes.
_LATTICE = 110_000  # Bytes of a PNG, a third more in the page.


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
    """

    model: Explored
    baked: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of its lattice."""
        rows, columns = self.model.space.lattice.means.shape[:2]
        return rows, columns

    @property
    def width(self) -> int:
        """How many numbers make a code."""
        return self.model.space.modes.shape[1]

    @property
    def directions(self) -> int:
        """How many directions beyond the plane it can be moved along."""
        return max(0, min(_DIRECTIONS, len(self.model.space.axes)) - _PLANE)

    @property
    def conditional(self) -> bool:
        """Whether it decodes under a condition."""
        return self.model.space.condition is not None


def told(shown: Shown, of: int, count: int, painter: Painter, *, live: bool) -> dict[str, Any]:
    """A model as JSON data.

    Args:
        shown: The model.
        of: How many items its draws of the prior took their conditions from, in turn.
        count: How many items are shown.
        painter: The scale of pictures.
        live: Whether a server decodes, so that neither weights nor a lattice are needed.
    """
    model, space = shown.model, shown.model.space
    draws = space.draws[:count]
    probes = max(1, _PROBED // max(1, space.decoded[0].numel()))
    drawn = min(_DRAWS, max(1, NUMBERS // shown.width))
    lattice, inside = space.lattice, not (live or shown.baked)
    return {
        "letter": model.letter,
        "name": visible_text(model.name),
        "hue": model.hue,
        "width": shown.width,
        "kind": space.kind,
        "shares": [round(s, 4) for s in space.shares[:_DIRECTIONS].tolist()],
        "centre": packed.numbers(space.centre),
        "axes": packed.numbers(space.axes[:_DIRECTIONS]),
        "modes": packed.numbers(space.modes[:count]),
        "scales": None if space.scales is None else packed.numbers(space.scales[:count]),
        # A point is its own draw.
        "point": space.point,
        "draws": None if space.point else packed.numbers(draws),
        "prior": packed.numbers(space.prior[:drawn]),
        # Of all draws, for these few would move its rings.
        "prior_moments": _moments(space.prior) if shown.width <= _SQUARE else None,
        # Which item's condition a draw of the prior was made under: they were taken in turn.
        "drawn_under": [i % of for i in range(min(drawn, len(space.prior)))],
        "silent": silent(space),
        "conditional": shown.conditional,
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


def silent(space: CodeSpace) -> bool:
    """Whether the modes of a density hardly differ between items, for how its draws do."""
    if space.scales is None or len(space.modes) < 2:  # noqa: PLR2004 - one does not differ
        return False
    same = space.draws[: len(space.modes)].var(0)
    return bool((space.modes.var(0) < _SILENT * same).all())


def _moments(draws: Tensor) -> dict[str, str]:
    """Mean ``(D,)`` and covariance ``(D, D)``."""
    mean = draws.double().mean(0)
    spread = draws.double() - mean
    covariance = spread.T @ spread / max(1, len(draws) - 1)
    return {"mean": packed.numbers(mean), "covariance": packed.numbers(covariance)}
