"""Tensors as pictures that live inside the page."""

from __future__ import annotations

import base64
import math
import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato import Comparison, picture_grid
from sfumato_report.text import short

_SIDE = 96  # Longest side of a picture, in its own pixels.
_STRIP = 256  # Longest strip of a vector.
_PIXEL = 16  # Largest side of one value, in pixels.


@dataclass(frozen=True)
class Image:
    """A PNG for an ``img`` element.

    Args:
        source: A ``data:`` address.
        width: In pixels.
        height: In pixels.
    """

    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Painter:
    """Draws the items of one comparison, all on one scale.

    Args:
        low: Value that is drawn black.
        high: Value that is drawn white.
        note: The scale, in a sentence.
        strips: Whether items are vectors, drawn one below the other.
        drawable: Whether items have a shape that can be drawn.
    """

    low: float
    high: float
    note: str
    strips: bool
    drawable: bool

    @classmethod
    def of(cls, comparison: Comparison) -> Painter:
        """Creates the painter for the comparison's data."""
        shape = comparison.contract.shape
        match shape:
            case (_,) | (_, _) | (1 | 3, _, _):
                drawable = True
            case _:
                drawable = False
        strips = len(shape) == 1
        note = "Each row is one item and each cell one of its values. " if strips else ""
        if comparison.contract.support in {"binary", "unit"}:
            note += "Black is 0, white is 1."
            return cls(0.0, 1.0, note, strips, drawable)
        known = comparison.originals.double()
        known = known[torch.isfinite(known)]
        low, high = (float(known.min()), float(known.max())) if known.numel() else (0.0, 1.0)
        note += (
            f"Black is {short(low)}, white is {short(high)}: the range of the originals; values "
            "outside it are drawn as its ends."
        )
        return cls(low, high if high > low else low + 1, note, strips, drawable)

    def grid(self, items: Tensor, columns: int, width: int) -> Image:
        """The items ``(n, *X)`` in rows of ``columns``, about ``width`` wide.

        Vectors stand one below the other, whatever the number of columns.
        """
        # What a mask hides may be anything, and an untrained decoder may overflow.
        items = torch.nan_to_num(items.detach().float(), self.low, self.high, self.low)
        across = 1 if self.strips else min(columns, len(items))
        # Enlarged here, not by the browser, which would blur; it may still shrink them.
        longest = _STRIP if self.strips else _SIDE
        shown = items.shape[-1] * min(1.0, longest / max(items.shape[-1 if self.strips else -2 :]))
        pixel = min(_PIXEL, math.ceil(width / (across * max(1, round(shown)))))
        png = picture_grid(
            items,
            columns=across,
            low=self.low,
            high=self.high,
            pixel=max(1, pixel),
            gap=0 if self.strips else 1,
            longest=longest,
        )
        size = struct.unpack(">II", png[16:24])
        return Image(f"data:image/png;base64,{base64.b64encode(png).decode()}", *size)
