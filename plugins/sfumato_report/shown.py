"""The pictures of a page: what each model makes of the same items, and of codes."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from sfumato import Comparison, Variant
from sfumato_report.pictures import Image, Painter
from sfumato_report.text import listed

_ORIGINALS, _SAMPLES, _ROWS = 16, 64, 6
_PAGE, _CARD = 640, 330  # Widths of pictures, in pixels.


@dataclass(frozen=True)
class Shown:
    """A picture of one variant.

    Args:
        variant: Its index.
        image: The picture.
        source: Where its codes come from, or which units are walked.
        note: What to bear in mind, in a sentence.
    """

    variant: int
    image: Image
    source: str = ""
    note: str = ""


@dataclass
class Pictures:
    """All pictures of a comparison.

    Args:
        painter: Who drew them.
        seeds: Whose they are.
        count: How many originals.
        of: Of how many.
        undrawn: Why there are none.
    """

    painter: Painter
    seeds: str
    count: int
    of: int
    undrawn: str
    originals: Image | None = None
    reconstructions: list[Shown] = field(default_factory=list)
    samples: list[Shown] = field(default_factory=list)
    linear: list[Shown] = field(default_factory=list)
    spherical: list[Shown] = field(default_factory=list)
    traversals: list[Shown] = field(default_factory=list)

    @property
    def unwalked(self) -> str:
        """Why there are no interpolations."""
        return self.undrawn or "It takes two items to walk between."

    @property
    def drawable(self) -> bool:
        """Whether there are any."""
        return self.originals is not None


def pictures(comparison: Comparison) -> Pictures:
    """Draw everything on one scale."""
    painter, n = Painter.of(comparison), len(comparison.originals)
    made = Pictures(painter, _seeds(comparison), min(_ORIGINALS, n), n, _undrawn(comparison))
    if not painter.drawable or not n:
        return made
    made.originals = painter.grid(comparison.originals[:_ORIGINALS], _ORIGINALS, _PAGE)
    for index, variant in enumerate(comparison.variants):
        _of_variant(made, index, variant)
    return made


def _of_variant(made: Pictures, index: int, variant: Variant) -> None:
    drawn, painter = variant.pictures, made.painter
    if drawn is None:
        return
    if len(drawn.samples):
        image = painter.grid(drawn.samples[:_SAMPLES], 8, _CARD)
        made.samples.append(Shown(index, image, *_source(variant)))
    if variant.trained_as is not None:
        return  # the rest is that of another column
    if len(drawn.reconstructions):
        image = painter.grid(drawn.reconstructions[:_ORIGINALS], _ORIGINALS, _PAGE)
        made.reconstructions.append(Shown(index, image))
    walks = (
        (made.linear, drawn.interpolations, ""),
        (made.spherical, drawn.spherical, ""),
        (made.traversals, drawn.traversals, _units(drawn.traversed)),
    )
    for shown, rows, source in walks:
        if rows is not None and rows.numel():
            shown.append(Shown(index, _walks(painter, rows), source))


def _walks(painter: Painter, rows: Tensor) -> Image:
    return painter.grid(rows[:_ROWS].flatten(0, 1), rows.shape[1], _CARD)


def _units(traversed: tuple[int, ...]) -> str:
    numbers = [str(unit) for unit in traversed[:_ROWS]]
    return f"unit{'s' if len(numbers) > 1 else ''} {listed(numbers)}" if numbers else ""


def _source(variant: Variant) -> tuple[str, str]:
    """Where the codes of samples come from, and what to bear in mind."""
    if variant.sampler is None:
        return "its prior", ""
    kind = str(variant.sampler.get("type"))
    note = {
        "aggregate_posterior": "Codes of training items: close to the data because it replays them.",
        "gmm": "A mixture fitted to the codes of training items, after training.",
    }.get(kind, "")
    return kind, note


def _seeds(comparison: Comparison) -> str:
    seeds = sorted({v.pictures.seed for v in comparison.variants if v.pictures is not None})
    return (
        f"seed{'s' if len(seeds) > 1 else ''} {listed([str(s) for s in seeds])}" if seeds else ""
    )


def is_drawable(comparison: Comparison) -> bool:
    """Whether items have a shape that can be drawn."""
    return Painter.of(comparison).drawable


def _undrawn(comparison: Comparison) -> str:
    shape = " \u00d7 ".join(str(n) for n in comparison.contract.shape)
    if not len(comparison.originals):
        return "There are no items to draw."
    if is_drawable(comparison):
        none = all(v.pictures is None for v in comparison.variants)
        return "Of no model there is anything to draw." if none else ""
    return (
        f"Items of shape {shape} are not drawn: pictures are of shape (H, W), (1, H, W), (3, H, W) "
        "or, as strips, (D,)."
    )
