"""Where a trained model puts items, and how it decodes, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sfumato.unrolled import Unrolled

Directions = Literal["units", "components"]


@dataclass(frozen=True)
class Lattice:
    """Data decoded over a rectangle of a plane of codes.

    Args:
        low: Where it starts, along each direction of the plane.
        high: Where it ends.
        means: ``(rows, columns, *X)``: rows go along the second direction, from low to high.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    means: Tensor


@dataclass(frozen=True)
class CodeSpace:
    """Where one run puts the first items of the split, and how it decodes. Float32 on the CPU.

    ``D`` numbers make a code, flattened; a code's coordinates are
    ``(code - centre) @ axes.T``.

    Args:
        modes: ``(n, D)``, the modes of ``q(z|x)``, in the order of the items.
        scales: ``(n, D)``, its standard deviations; None of points.
        draws: ``(m, D)``, one draw of ``q(z|x)`` an item, of more items: the aggregate posterior.
        prior: ``(k, D)``, draws of the prior.
        kind: What the directions are: the ``units`` of the code where it has one or two, else
            principal ``components`` of the modes.
        centre: ``(D,)``.
        axes: ``(A, D)``, orthonormal, by decreasing share.
        shares: ``(A,)``, of the variance of the modes.
        decoder: The mean of ``p(x|z)`` as a chain of layers, where it is one.
        lattice: Data decoded over the first two directions.
        probes: ``(p, D)``, some codes.
        decoded: ``(p, *X)``, what torch makes of them.
        condition: ``(1, C)``, what all of these are decoded under in a conditional model.
    """

    modes: Tensor
    scales: Tensor | None
    draws: Tensor
    prior: Tensor
    kind: Directions
    centre: Tensor
    axes: Tensor
    shares: Tensor
    decoder: Unrolled | None
    lattice: Lattice
    probes: Tensor
    decoded: Tensor
    condition: Tensor | None = None

    @property
    def point(self) -> bool:
        """Whether codes are points: each is its own draw."""
        same = self.draws[: len(self.modes)]
        return self.scales is None and same.equal(self.modes[: len(same)])

    @property
    def ranked(self) -> tuple[int, ...]:
        """The units, those first that tell items apart.

        Of a density these are units whose modes vary most for how their draws do; a point has no
        draws beside it, and its units come by their variance.
        """
        told = self.modes.var(0, correction=0)
        if not self.point:
            same = self.draws[: len(self.modes)]  # of the same items
            told = told / same.var(0, correction=0).clamp(min=1e-12)
        return tuple(told.argsort(descending=True, stable=True).tolist())
