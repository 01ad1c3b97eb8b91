"""Codes as arrays, and figures that say why where they have no value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from sfumato import Figure, Subject, key

Array = np.ndarray[Any, Any]
Measure = Callable[[Subject], dict[str, Figure]]
Fields = Mapping[str, Any]

SHARE_OF_ITEMS = "share of items"
UNIT_INTERVAL = "from 0 to 1"
_SEEDS = 1 << 32


class Undefined(Exception):  # noqa: N818 - a reason, not a mistake
    """Why figures have no value for these data or this model."""


def filled(
    bare: Mapping[str, Figure], make: Callable[[], Mapping[str, Fields]]
) -> dict[str, Figure]:
    """Figures with the fields that ``make`` finds, or with its reason.

    Args:
        bare: Figures without a value, by name.
        make: Returns the missing fields of each, or raises :class:`Undefined`.
    """
    try:
        made = make()
    except Undefined as why:
        return {name: figure.undefined_because(str(why)) for name, figure in bare.items()}
    return {name: replace(figure, **made[name]) for name, figure in bare.items()}


def codes_of(subject: Subject, of: Literal["split", "train"] = "split") -> Array:
    """The mode of every item's code, flattened, ``(n, D)`` in float64.

    Raises:
        Undefined: Some are not finite.
    """
    modes = subject.modes(of)
    codes: Array = modes.reshape(len(modes), -1).double().cpu().numpy()
    if not np.isfinite(codes).all():
        bad = int((~np.isfinite(codes)).any(1).sum())
        msg = f"the codes of {bad} of {len(codes)} items are not finite"
        raise Undefined(msg)
    return codes


def standardised(codes: Array, like: Array | None = None) -> Array:
    """Codes less their mean, by their deviation; those that never change are only centred.

    Args:
        codes: ``(n, D)``.
        like: Where mean and deviation are taken from; the codes themselves by default.
    """
    like = codes if like is None else like
    # Moved and scaled first, so that a constant is exactly 0 and no square is too large or small.
    origin = like[0]
    span = np.abs(like - origin).max(0)
    span = np.where(span > 0, span, 1.0)
    codes, like = ((side - origin) / span for side in (codes, like))
    deviation = like.std(0)
    scaled: Array = (codes - like.mean(0)) / np.where(deviation > 0, deviation, 1.0)
    return scaled


def random_state(subject: Subject, purpose: str, *steps: int) -> int:
    """A seed for scikit-learn, keyed."""
    return key(subject.seed, purpose, *steps) % _SEEDS
