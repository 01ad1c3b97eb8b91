"""Codes beside the known factors of their items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato import Factor, Subject
from sfumato_representation.codes import Array, Undefined, codes_of

MOST_CLASSES, CUT_INTO, LEAST_ITEMS = 100, 20, 5
CUT = (
    f"a factor of over {MOST_CLASSES} values, or under {LEAST_ITEMS} items a value, is cut into "
    f"at most {CUT_INTO} classes of equally many items"
)

ONE_CODE = "codes have one dimension, and it compares several"
ONE_FACTOR = "one factor alone varies over the items, and it compares several"


@dataclass(frozen=True)
class Known:
    """Codes, and the factors that vary over their items.

    Args:
        codes: ``(n, D)``, modes of ``q(z|x)``.
        values: ``(n, F)``, the factors as numbers.
        classes: ``(n, F)``, the factors as classes, numbered from 0 in the order of their values.
        factors: Their names, and whether they are ordered.
    """

    codes: Array
    values: Array
    classes: Array
    factors: tuple[Factor, ...]

    def need_two_codes(self) -> None:
        """Raise :class:`Undefined` if codes have one dimension."""
        if self.codes.shape[1] < 2:  # noqa: PLR2004 - two are compared
            raise Undefined(ONE_CODE)

    def need_two_factors(self) -> None:
        """Raise :class:`Undefined` if one factor alone varies."""
        if len(self.factors) < 2:  # noqa: PLR2004 - two are compared
            raise Undefined(ONE_FACTOR)

    def take(self, rows: Array) -> Known:
        """Some of the items."""
        return Known(self.codes[rows], self.values[rows], self.classes[rows], self.factors)


def known(subject: Subject) -> Known:
    """Codes and varying factors of the split.

    Raises:
        Undefined: There are no factors, none that varies, or none that can be told from so few items.
    """
    made = subject.once(("representation", "factors"), lambda: _known(subject))
    if isinstance(made, str):
        raise Undefined(made)
    return made


def _known(subject: Subject) -> Known | str:
    """The factors, or why there are none: what is computed once is also refused once."""
    if subject.split.factors is None:
        return "the items have no known factors"
    n = len(subject.split)
    values = subject.split.factors.reshape(n, -1).double().cpu().numpy()
    if not np.isfinite(values).all():
        return "some factors of the items are not finite"
    named = subject.model.contract.factors or tuple(
        Factor(name=str(number)) for number in range(values.shape[1])
    )
    varying = [i for i, column in enumerate(values.T) if column.min() < column.max()]
    if not varying:
        return "no factor varies over the items"
    try:
        classes = [classes_of(values[:, i], named[i]) for i in varying]
        codes = codes_of(subject)
    except Undefined as why:
        return str(why)
    return Known(codes, values[:, varying], np.stack(classes, 1), tuple(named[i] for i in varying))


def classes_of(values: Array, factor: Factor) -> Array:
    """The classes ``(n,)`` of a factor: its values, or few classes of equally many items.

    Measures of information need several items a class: with as many values as items every code,
    noise as well, would seem to tell them all.

    Raises:
        Undefined: There are too many values without an order, or too few items.
    """
    n = len(values)
    distinct, classes, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(distinct) <= MOST_CLASSES and n >= LEAST_ITEMS * len(distinct):
        return np.asarray(classes)
    if not factor.ordered:
        msg = f"factor {factor.name!r} has {len(distinct)} values without an order, for {n} items"
        raise Undefined(msg)
    most = min(CUT_INTO, n // LEAST_ITEMS)
    if most < 2:  # noqa: PLR2004 - one class says nothing
        msg = f"{n} items are too few for factor {factor.name!r} of {len(distinct)} values"
        raise Undefined(msg)
    # By the middle of the ranks that share a value, so that equal values stay together.
    below = np.cumsum(counts) - counts
    cut = ((below + counts / 2) / n * most).astype(np.int64)
    found: Array = np.unique(cut, return_inverse=True)[1]
    return found[classes]
