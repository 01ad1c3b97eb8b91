"""The pictures of a comparison for a notebook: PNG files that live inside the page."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.pictures import is_picture, picture_grid

if TYPE_CHECKING:
    from sfumato.results import Comparison

_SHOWN, _SIDE = 8, 48  # items of a picture, and the side of one in pixels


def picture_rows(comparison: Comparison) -> list[tuple[str, str, str]]:
    """A row each for the data and the models: name, (reconstructed) items, samples, as addresses."""
    if not is_picture(comparison.contract.shape) or not len(comparison.originals):
        return []
    paint = partial(_source, *_range(comparison))
    rows = [("data", paint(comparison.originals), "")]
    for variant in comparison.variants:
        if (drawn := variant.pictures) is not None:
            same = variant.trained_as is not None  # whose reconstructions are those above
            rows.append(
                (variant.name, "" if same else paint(drawn.reconstructions), paint(drawn.samples))
            )
    return rows


def _range(comparison: Comparison) -> tuple[float, float]:
    if comparison.contract.support in ("binary", "unit"):
        return 0.0, 1.0
    values = comparison.originals.double()
    values = values[values.isfinite()]
    return (float(values.min()), float(values.max())) if values.numel() else (0.0, 1.0)


def _source(low: float, high: float, items: Tensor) -> str:
    """The first items as a ``data:`` address; empty without any."""
    if not len(items):
        return ""
    # What a mask hides may be anything, and an untrained decoder may overflow.
    items = torch.nan_to_num(items[:_SHOWN].detach().float().cpu(), low, high, low)
    strips = items.dim() == 2  # noqa: PLR2004 - vectors, one below the other
    png = picture_grid(
        items,
        columns=1 if strips else len(items),
        low=low,
        high=high,
        pixel=max(1, _SIDE // max(items.shape[-2 + strips :])),
        gap=0 if strips else 1,
        longest=_SIDE,
    )
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
