"""Tensors as pictures."""

from __future__ import annotations

import io
import math

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from sfumato.errors import DataError

_SMALL, _SIDE = 64, 112


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether data of this shape can be shown: ``(C, H, W)`` with 1 or 3 channels, ``(H, W)`` or ``(D,)``."""
    return len(shape) in (1, 2) or (len(shape) == 3 and shape[0] in (1, 3))  # noqa: PLR2004


def picture_grid(
    items: Tensor,
    *,
    columns: int,
    low: float = 0.0,
    high: float = 1.0,
    pixel: int | None = None,
    gap: int = 1,
    longest: int | None = None,
) -> bytes:
    """A grid of data as PNG bytes, row by row.

    Args:
        items: ``(n, *X)``: ``X`` is ``(C, H, W)`` with 1 or 3 channels, ``(H, W)``, or ``(D,)``, a
            strip.
        columns: Items a row.
        low: Value shown black; what is below is black too.
        high: Value shown white; what is above is white too.
        pixel: Side of a value in pixels; chosen by the size of an item by default.
        gap: Values of background between items.
        longest: Longest side of an item; a larger one is averaged down to it.

    Raises:
        DataError: Data of this shape have no picture.
    """
    images = _as_images(items)
    images = images if longest is None else _averaged(images, longest)
    n, height, width, channels = images.shape
    span = high - low if high > low else 1.0
    levels = ((images.float() - low) / span).clamp(0, 1).mul(255).round().to(torch.uint8)
    rows = math.ceil(n / columns)
    canvas = torch.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, channels),
        128,
        dtype=torch.uint8,
    )
    for index, level in enumerate(levels):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = level
    side = pixel or (max(1, _SIDE // max(height, width)) if max(height, width) < _SMALL else 1)
    array = canvas.numpy()
    picture = Image.fromarray(array[:, :, 0] if channels == 1 else array)
    size = (picture.width * side, picture.height * side)
    stream = io.BytesIO()
    picture.resize(size, Image.Resampling.NEAREST).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _averaged(images: Tensor, longest: int) -> Tensor:
    """``(n, H, W, C)`` with no side above ``longest``, in proportion."""
    height, width = images.shape[1:3]
    scale = longest / max(height, width)
    if scale >= 1:
        return images
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return adaptive_avg_pool2d(images.float().movedim(3, 1), size).movedim(1, 3)


def _as_images(items: Tensor) -> Tensor:
    """``(n, *X) -> (n, H, W, C)`` on the CPU."""
    shape = tuple(items.shape[1:])
    if not is_picture(shape):
        msg = f"data of shape {shape} have no picture"
        raise DataError(msg, hint="write .npy instead, for example -o samples.npy")
    items = items.detach().cpu()
    if len(shape) == 1:
        items = items[:, None]
    return items[..., None] if len(shape) < 3 else items.permute(0, 2, 3, 1)  # noqa: PLR2004
