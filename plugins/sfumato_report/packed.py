"""Numbers and pictures as text that a page's scripts read back."""

from __future__ import annotations

import base64
import struct
from typing import Any

import torch
from torch import Tensor

from sfumato import Unrolled, picture_grid
from sfumato_report.pictures import Painter

_LENGTHS = (32, 24, 16, 12, 8, 4)


def numbers(values: Tensor) -> str:
    """Float32 numbers, little-endian, in base64."""
    array = values.detach().float().cpu().numpy().astype("<f4")
    return base64.b64encode(array.tobytes()).decode()


def decoder(made: Unrolled) -> dict[str, Any]:
    """A decoder: what its layers are, and all of their weights one after the other."""
    tensors = [t.flatten() for layer in made.layers for t in layer.tensors.values()]
    return {
        "output": made.output,
        "layers": [
            {
                "kind": layer.kind,
                "takes": list(layer.takes),
                "shape": list(layer.shape),
                "options": dict(layer.options),
                "tensors": {name: list(t.shape) for name, t in layer.tensors.items()},
            }
            for layer in made.layers
        ],
        "weights": numbers(torch.cat(tensors) if tensors else torch.zeros(0)),
    }


def atlas(items: Tensor, painter: Painter, columns: int, most: int = 0) -> dict[str, Any]:
    """Small pictures of items ``(n, *X)`` in one PNG, in rows of ``columns``.

    Args:
        items: The items.
        painter: Their scale.
        columns: Pictures a row.
        most: Bytes of the PNG; pictures are averaged down further until it keeps to them. 0: any.
    """
    items = torch.nan_to_num(items.detach().float(), painter.low, painter.high, painter.low)
    columns = min(columns, len(items))
    lengths = _LENGTHS if most else (28,)
    for longest in lengths:
        png = picture_grid(
            items, columns=columns, low=painter.low, high=painter.high,
            pixel=1, gap=0, longest=longest,
        )  # fmt: skip
        if not most or len(png) <= most:
            break
    width, height = struct.unpack(">II", png[16:24])
    return {
        "source": f"data:image/png;base64,{base64.b64encode(png).decode()}",
        "columns": columns,
        "width": width // columns,
        "height": height // -(-len(items) // columns),
    }
