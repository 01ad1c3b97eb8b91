r"""Sprites: black and white images of one shape each, of which all causes are known.

An image is a point of a grid of 3 shapes, 6 scales :math:`s`, 40 orientations :math:`\alpha` and 32 x
32 positions :math:`c`: 737,280 images in all, in the order and with the factors of dSprites. A
pixel :math:`p` is 1 where it lies in the shape after that was scaled, turned and moved,

.. math::
    \frac{1}{s} \begin{pmatrix} \cos\alpha & -\sin\alpha \\ \sin\alpha & \cos\alpha \end{pmatrix}
    (p - c) \in \text{shape}.

The shapes were fitted to frames of dSprites, and differ from them in few pixels. They are drawn
when they are asked for; nothing is stored but the outline of the heart.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sfumato import (
    Contract,
    DataError,
    Factor,
    Split,
    Splits,
    conditioned_on_labels,
    key,
    permuted,
)
from sfumato_data.columns import Condition

Array = np.ndarray[Any, Any]

SIZES = (3, 6, 40, 32, 32)
CLASSES = ("square", "ellipse", "heart")
FACTORS = (
    Factor(name="shape", ordered=False),
    Factor(name="scale"),
    Factor(name="orientation"),
    Factor(name="x"),
    Factor(name="y"),
)
TOTAL = 737_280
_SIDE, _WINDOW = 64, 32
_HALF_SIDE = 9.6
_HALF_AXES = 12.755, 7.215
_FIRST_CENTRE, _STEP = 15.5, 32.0 / 31.0
_ROWS = 512
_SCALES = np.linspace(0.5, 1.0, SIZES[1])
# Both ends of the circle, so that the first and the last orientation coincide, as in dSprites.
_ANGLES = np.linspace(0.0, 2.0 * np.pi, SIZES[2])


def sprites(
    *,
    train: Annotated[int, Field(ge=1, le=TOTAL)] = 10_000,
    valid: Annotated[int, Field(ge=0, le=TOTAL)] = 1_000,
    test: Annotated[int, Field(ge=0, le=TOTAL)] = 5_000,
    split_seed: int = 0,
    condition: Condition = "none",
) -> Splits:
    """Draws images ``(1, 64, 64)`` of 0 and 1 with their factors: shape, scale, orientation, x and y.

    A re-creation of the grid of dSprites: figures should be close to those on dSprites, but are
    not figures on dSprites. The items are taken from a keyed order of the grid, so no two splits
    share a point of it. Yet images may be equal: orientations run over the whole circle, both ends
    included, and squares and ellipses look the same after part of a turn, as in the original.

    References:
        | dSprites: Disentanglement testing Sprites dataset (Matthey et al., 2017)
        | https://github.com/deepmind/dsprites-dataset

    Args:
        train: Items to learn from; more of them begin with the fewer.
        valid: Items that choose the epoch to keep; 0 leaves them out.
        test: Items that are looked at last; 0 leaves them out.
        split_seed: Seed of the order.
        condition: Condition models on the shape: ``"label"`` gives them a one-hot vector.
    """
    if train + valid + test > TOTAL:
        msg = f"{train:,} + {valid:,} + {test:,} items are asked for, and there are {TOTAL:,}"
        raise DataError(msg, hint="ask for fewer")
    order = key(split_seed, "sprites")
    # Test items are counted from the end, so that they stay while there are more to learn from.
    first = {"train": 0, "valid": TOTAL - test - valid, "test": TOTAL - test}
    made = {
        name: _split(permuted(torch.arange(first[name], first[name] + count), TOTAL, order))
        for name, count in (("train", train), ("valid", valid), ("test", test))
        if count
    }
    contract = Contract(
        shape=(1, _SIDE, _SIDE), support="binary", classes=CLASSES, factors=FACTORS
    )
    splits = Splits(made["train"], contract, made.get("valid"), made.get("test"))
    return conditioned_on_labels(splits) if condition == "label" else splits


def _split(indices: Tensor) -> Split:
    classes = np.stack(np.unravel_index(indices.numpy(), SIZES), 1)
    factors = torch.from_numpy(classes)
    return Split(torch.from_numpy(drawn(classes))[:, None], factors[:, 0].clone(), factors=factors)


def drawn(classes: Array) -> Array:
    """The images ``(n, 64, 64)`` of rows of classes ``(n, 5)``, as bytes."""
    images = np.zeros((len(classes), _SIDE, _SIDE), np.uint8)
    for shape, inside in enumerate((_in_square, _in_ellipse, _in_heart)):
        rows = np.flatnonzero(classes[:, 0] == shape)
        for start in range(0, len(rows), _ROWS):
            chunk = rows[start : start + _ROWS]
            _draw(images, chunk, classes[chunk], inside)
    return images


def _draw(images: Array, rows: Array, classes: Array, inside: Callable[..., Array]) -> None:
    """Draw one shape into its images, in a window that is a little larger than the shape."""
    scale, angle = _SCALES[classes[:, 1]], _ANGLES[classes[:, 2]]
    centre = _FIRST_CENTRE + classes[:, 3:] * _STEP
    corner = np.floor(centre).astype(int) - (_WINDOW // 2 - 1)
    across, down = (corner[:, i, None] + np.arange(_WINDOW) for i in (0, 1))
    dx, dy = (across - centre[:, :1])[:, None], (down - centre[:, 1:])[:, :, None]
    cos, sin, s = (row[:, None, None] for row in (np.cos(angle), np.sin(angle), scale))
    window = inside((cos * dx - sin * dy) / s, (sin * dx + cos * dy) / s)
    images[rows[:, None, None], down[:, :, None], across[:, None]] = window


def _in_square(u: Array, v: Array) -> Array:
    within: Array = (np.abs(u) <= _HALF_SIDE) & (np.abs(v) <= _HALF_SIDE)
    return within


def _in_ellipse(u: Array, v: Array) -> Array:
    within: Array = (u / _HALF_AXES[0]) ** 2 + (v / _HALF_AXES[1]) ** 2 <= 1.0
    return within


def _in_heart(u: Array, v: Array) -> Array:
    degrees, radii = _outline()
    within = np.zeros(u.shape, np.bool_)
    # Beyond its largest radius no pixel needs the angle, which costs most.
    near = np.hypot(u, v) <= radii.max()
    u, v = u[near], v[near]
    angle = np.degrees(np.arctan2(v, np.abs(u)))
    within[near] = np.hypot(u, v) <= np.interp(angle, degrees, radii)
    return within


@cache
def _outline() -> tuple[Array, Array]:
    """The heart's radius in pixels against the angle in degrees; it is its own mirror image."""
    text = resources.files(__package__).joinpath("heart_profile.json").read_text("utf-8")
    found = json.loads(text)
    return np.array(found["degrees"]), np.array(found["radius"])
