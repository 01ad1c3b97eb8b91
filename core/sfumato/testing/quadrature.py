r"""Densities against quadrature: do they integrate to one, and do their samples follow them?

Nodes are equally spaced in :math:`t` after a substitution that reaches far into the tails,
:math:`x = m + s \sinh t` on the line, :math:`a + s e^t` on a half-line and
:math:`a + (b - a) / (1 + e^{-t})` on an interval; for smooth densities the sum then converges
exponentially. The error that remains is measured against every second node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from sfumato.testing.bounds import surprise
from sfumato.testing.rules import Fault

DRAWS = 60_000
_NODES, _FINER = 4001, 40_001
_REACH = 12.0
_PLANE, _FINER_PLANE = 401, 1201
_CHUNK = 1 << 15
_EVENTS = 32
_MASS, _PLANE_MASS = 2e-3, 1e-2
_COUNTS = 4096
_OBLIQUE = 0.1
_PLANE_REACH = 9.0
_ABOVE = 1e-6
_FEW = 64
_CONSTANT = "add the normalising constant, Jacobians included; terms are nats"
_MATCH = "draw from the very distribution that log_prob scores"


@dataclass
class Nodes:
    """Points with their weights and, for each, the right edge of its cell; all ``(G, E)``."""

    x: Tensor
    weight: Tensor
    edge: Tensor


@dataclass
class Line:
    """``E`` densities on the line, or on a discrete set of numbers.

    Args:
        name: What messages call it.
        log_prob: ``(G, E) -> (G, E)``.
        draws: ``(n, E)``.
        support: Where they are.
        atoms: The numbers, if there are finitely many.
        inside: ``(G, E) -> (G, E)``, where the support holds points; its own check by default.
    """

    name: str
    log_prob: Callable[[Tensor], Tensor]
    draws: Tensor
    support: Constraint | None = None
    atoms: Tensor | None = None
    inside: Callable[[Tensor], Tensor] | None = None


def check_line(line: Line) -> Tensor:
    """Raise a :class:`Fault` unless densities integrate to one and match their draws.

    Returns:
        Their means ``(E,)`` by quadrature.
    """
    pilot, draws = _divided(line.draws, line.name)
    for count in (_NODES, _FINER):
        nodes = _nodes(line, pilot, count)
        inside = line.inside or _check_of(line.support)
        density = _density(line.log_prob, nodes.x, inside, pilot[:1], line.name)
        mass = density * nodes.weight
        total = mass.sum(0)
        rough = total if line.atoms is not None else 2 * mass[::2].sum(0)
        unsure = (total - rough).abs()
        if float(unsure.max()) < _MASS / 2 or line.atoms is not None:
            break
    off = (total - 1).abs() - 2 * unsure
    if float(off.max()) > _MASS:
        worst = int(off.argmax())
        how = "sums" if line.atoms is not None else "integrates"
        msg = f"{line.name} is not normalised: it {how} to {float(total[worst]):.4g} instead of 1"
        raise Fault(msg, _CONSTANT)
    cdf = mass.cumsum(0)
    at = _events(cdf, nodes.x.shape[0])
    share = torch.stack(
        [(draws <= nodes.edge.gather(0, row[None])).double().mean(0) for row in at]
    )
    slack = 1e-4 + unsure
    if surprise(share, cdf.gather(0, at), len(draws), slack) > 1:
        found = int((share - cdf.gather(0, at)).abs().argmax())
        msg = (
            f"samples of {line.name} do not match its density: {float(share.flatten()[found]):.3f} of them "
            f"lie where it puts {float(cdf.gather(0, at).flatten()[found]):.3f}"
        )
        raise Fault(msg, _MATCH)
    return (mass * nodes.x).sum(0)


def _divided(draws: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """A tenth that places nodes and events, and the rest that is tested: so these stay independent."""
    if not bool(draws.isfinite().all()):
        raise Fault(f"its samples of {name} are not finite")
    draws = draws.double()
    return draws[: len(draws) // 10], draws[len(draws) // 10 :]


def _events(cdf: Tensor, count: int) -> Tensor:
    """Indices ``(J, E)`` of the nodes at which the distribution functions are compared."""
    if count <= _FEW:
        return torch.arange(count)[:, None].expand(count, cdf.shape[1])
    levels = torch.linspace(0, 1, _EVENTS + 2, dtype=cdf.dtype)[1:-1]
    found = torch.searchsorted(cdf.T.contiguous(), levels.expand(cdf.shape[1], -1).contiguous())
    return found.T.clamp(max=count - 1)


def _nodes(line: Line, draws: Tensor, count: int) -> Nodes:
    if line.atoms is not None:
        x = line.atoms.double()[:, None].expand(-1, draws.shape[1])
        return Nodes(x, torch.ones_like(x), x + _ABOVE)
    return _spaced(line.support, draws, count, _REACH)


def _spaced(support: Constraint | None, draws: Tensor, count: int, reach: float) -> Nodes:
    """Equally spaced in t, from one end of the support to the other."""
    columns = draws.shape[1]
    place, slope, wide = _substitution(support, draws)
    t = torch.linspace(-reach * wide, reach * wide, count, dtype=torch.float64)[:, None]
    step = float(t[1] - t[0])
    x, edge = place(t).expand(-1, columns), place(t + step / 2).expand(-1, columns)
    weight = (slope(t) * step).expand(-1, columns)
    if bool((x[-1] < x[0]).any()):
        return Nodes(x.flip(0), weight.flip(0), place(t - step / 2).expand(-1, columns).flip(0))
    return Nodes(x, weight, edge)


_Map = Callable[[Tensor], Tensor]


def _substitution(support: Constraint | None, draws: Tensor) -> tuple[_Map, _Map, float]:
    """A map from t to the support, its slope, and how much farther than on the line t has to go."""
    low, high = bounds_of(support)
    if low is not None and high is not None:
        first, width = low, high - low
        return (
            lambda t: first + width * t.sigmoid(),
            lambda t: width * t.sigmoid() * (-t).sigmoid(),
            3.0,
        )
    if low is not None:
        below, size = low, (draws - low).abs().median(0).values.clamp(min=_ABOVE)
        return lambda t: below + size * t.exp(), lambda t: size * t.exp(), 1.0
    if high is not None:
        above, size = high, (high - draws).abs().median(0).values.clamp(min=_ABOVE)
        return lambda t: above - size * t.exp(), lambda t: size * t.exp(), 1.0
    middle, size = _scale(draws)
    return lambda t: middle + size * t.sinh(), lambda t: size * t.cosh(), 1.0


def _scale(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and size of draws ``(n, E)``; the integral is the same for any."""
    sorted_ = draws.sort(0).values
    n = len(draws)
    middle, size = sorted_[n // 2], (sorted_[3 * n // 4] - sorted_[n // 4]) / 1.35
    return middle, torch.where(size > 0, size, draws.std(0).clamp(min=1e-3))


def base_of(support: Any) -> Any:
    """The constraint on each number of a vector."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def bounds_of(support: Constraint | None) -> tuple[Tensor | None, Tensor | None]:
    """Ends of a support on the line, one number or one an entry, None where it has none."""
    if support is None or support.is_discrete:
        return None, None
    found = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    low, high = (None if b is None else torch.as_tensor(b).double().flatten() for b in found)
    return low, high


def atoms_of(support: Constraint | None, vocabulary: int | None = None) -> Tensor | None:
    """The numbers of a discrete support, as far as they matter, or None."""
    if vocabulary is not None:
        return torch.arange(vocabulary)
    if support is None or not support.is_discrete:
        return None
    if support is constraints.boolean:
        return torch.arange(2)
    first = int(torch.as_tensor(getattr(support, "lower_bound", 0)).min())
    last = getattr(support, "upper_bound", None)
    end = first + _COUNTS if last is None else int(torch.as_tensor(last).max()) + 1
    return torch.arange(first, end)


def _density(
    log_prob: Callable[[Tensor], Tensor],
    x: Tensor,
    check: Callable[[Tensor], Tensor] | None,
    within: Tensor,
    name: str,
) -> Tensor:
    """Densities at points ``x``; 0 outside the support, where distributions may refuse to look."""
    made = []
    for part in x.split(_CHUNK):
        inside = torch.ones_like(part, dtype=torch.bool) if check is None else check(part)
        inside = inside.expand_as(part) if inside.dim() == part.dim() else inside
        held = inside if inside.dim() == part.dim() else inside[:, None]
        found = log_prob(torch.where(held, part, within.to(part))).double()
        if found.shape not in (part.shape, part.shape[:1]):
            raise Fault(
                f"log_prob of {name} has shape {tuple(found.shape)} for {tuple(part.shape)}"
            )
        rows = found.dim() < part.dim()
        inside = held.all(1) if rows else held
        # Far out a formula may overflow where there is next to nothing.
        far = part.abs().amax(1) > _FAR if rows else part.abs() > _FAR
        made.append(torch.where(inside & ~(far & found.isnan()), found, -torch.inf))
    found = torch.cat(made)
    if bool(found.isnan().any()):
        raise Fault(
            f"log_prob of {name} is not a number at {x[found.isnan()].flatten()[0].item():.4g}"
        )
    return found.exp()


_FAR = 1e3


def _check_of(support: Any) -> Callable[[Tensor], Tensor] | None:
    return None if support is None else support.check


# ---- the plane ----------------------------------------------------------------------------------


@dataclass
class Plane:
    """A density on the plane, or on its unit circle.

    Args:
        name: What messages call it.
        log_prob: ``(G, 2) -> (G,)``.
        draws: ``(n, 2)``.
        support: Where it is.
    """

    name: str
    log_prob: Callable[[Tensor], Tensor]
    draws: Tensor
    support: Constraint | None = None


def check_plane(plane: Plane) -> None:
    """Raise a :class:`Fault` unless the density integrates to one and matches its draws."""
    pilot, draws = _divided(plane.draws, plane.name)
    for count in (_PLANE, _FINER_PLANE):
        points, cell, weight, every_second = _grid(pilot, count, plane.support)
        inside = _check_of(plane.support)
        mass = _density(plane.log_prob, points, inside, pilot[:1], plane.name) * weight
        total = float(mass.sum())
        coarser = 2 if _on_circle(pilot) else 4
        unsure = abs(total - coarser * float(mass[every_second].sum()))
        if unsure < _PLANE_MASS / 4:
            break
    if abs(total - 1) - 2 * unsure > _PLANE_MASS:
        msg = f"{plane.name} is not normalised: it integrates to {total:.4g} instead of 1"
        raise Fault(msg, _CONSTANT)
    middle = pilot.median(0).values
    events = _Events(points, mass, middle)
    probability, share = events.probabilities(points, cell, mass), events.shares(draws)
    rougher = 2 if _on_circle(pilot) else 4
    rough = events.probabilities(
        points[every_second],
        cell[every_second] * 2,
        mass[every_second] * rougher,
    )
    slack = 1e-3 + 2 * (probability - rough).abs()
    if surprise(share, probability, len(draws), slack) > 1:
        found = int((share - probability).abs().argmax())
        msg = (
            f"samples of {plane.name} do not match its density: {float(share[found]):.3f} of them "
            f"lie where it puts {float(probability[found]):.3f}"
        )
        raise Fault(msg, _MATCH)


def _on_circle(draws: Tensor) -> bool:
    return bool(((draws.norm(dim=1) - 1).abs() < 1e-4).all())  # noqa: PLR2004 - rounding


def _grid(
    draws: Tensor, count: int, support: Constraint | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points and sizes of their cells ``(G, 2)``, weights ``(G,)``, and which make a rougher grid."""
    if _on_circle(draws):
        step = 2 * torch.pi / (count - 1)
        angle = torch.arange(count - 1, dtype=torch.float64) * step
        points = torch.stack([angle.cos(), angle.sin()], 1)
        cell = step * torch.stack([angle.sin().abs(), angle.cos().abs()], 1)
        return points, cell, torch.full_like(angle, step), torch.arange(count - 1) % 2 == 0
    axes = _spaced(base_of(support), draws, count, _PLANE_REACH)
    points = torch.cartesian_prod(*axes.x.unbind(1))
    cell = torch.cartesian_prod(*axes.weight.unbind(1))
    even = torch.arange(count) % 2 == 0
    return points, cell, cell.prod(1), torch.cartesian_prod(even, even).all(1)


class _Events:
    """Half-planes in eight directions, and two pairs of opposite quadrants.

    Args:
        points: ``(G, 2)``, which place the half-planes.
        mass: ``(G,)``.
        middle: Where the quadrants meet.
    """

    def __init__(self, points: Tensor, mass: Tensor, middle: Tensor) -> None:
        angles = _OBLIQUE + torch.arange(8, dtype=torch.float64) * (torch.pi / 8)
        self._ways = torch.stack([angles.cos(), angles.sin()], 1)
        self._middle = middle
        self._edges = []
        for way in self._ways:
            along, order = (points @ way).sort()
            levels = torch.linspace(0.1, 0.9, 9, dtype=mass.dtype)
            at = torch.searchsorted(mass[order].cumsum(0), levels)
            self._edges.append(along[at.clamp(max=len(along) - 1)])

    def probabilities(self, points: Tensor, cell: Tensor, mass: Tensor) -> Tensor:
        """Of each event; a cell that an edge cuts counts in part."""
        made = []
        for way, edges in zip(self._ways, self._edges, strict=True):
            along, width = points @ way, cell @ way.abs()
            made += [(mass * ((e - along) / width + 0.5).clamp(0, 1)).sum() for e in edges]
        right = ((points - self._middle) / cell + 0.5).clamp(0, 1)
        same = right.prod(1) + (1 - right).prod(1)
        return torch.stack([*made, (mass * same).sum(), (mass * (1 - same)).sum()])

    def shares(self, draws: Tensor) -> Tensor:
        """Of the draws in each event."""
        made = []
        for way, edges in zip(self._ways, self._edges, strict=True):
            along = draws @ way
            made += [(along <= edge).double().mean() for edge in edges]
        same = ((draws - self._middle).prod(1) >= 0).double().mean()
        return torch.stack([*made, same, 1 - same])
