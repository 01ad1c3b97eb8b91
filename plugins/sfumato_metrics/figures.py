"""Filling figures in: what a number is stands once, whether it has a value or not."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sfumato import Figure


class Undefined(Exception):  # noqa: N818 - a reason, not a fault
    """Why a figure has no value for these data or this model."""


def over_items(blank: Figure, values: Tensor, **more: Any) -> Figure:
    """A figure as the mean of one value an item ``(n,)``."""
    more = {"source": blank.source, **more}
    return Figure.of_items(values, blank.unit, blank.better, blank.definition, **more)


def without_value(blanks: dict[str, Figure], why: Undefined | str) -> dict[str, Figure]:
    """The same figures, none of them with a value."""
    return {name: blank.undefined_because(str(why)) for name, blank in blanks.items()}
