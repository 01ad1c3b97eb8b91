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
from sfumato.testing.rules import Fault, Inapplicable

_NODES, _FINER = 4001, 40_001
_REACH = 12.0
_CHUNK = 1 << 15
_EVENTS = 32
_MASS = 2e-3
_COUNTS = 4096
_RESOLVED = 0.02
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
        inside = line.inside or check_of(line.support)
        found = density(line.log_prob, nodes.x, inside, pilot[:1], line.name)
        mass = found.exp() * nodes.weight
        total = mass.sum(0)
        rough = total if line.atoms is not None else 2 * mass[::2].sum(0)
        unsure = (total - rough).abs()
        resolved = line.atoms is not None or _resolves(nodes.x, pilot)
        if line.atoms is not None or (resolved and float(unsure.max()) < _MASS / 2):
            break
    if not resolved:
        msg = f"{line.name} is too narrow to be integrated here"
        raise Inapplicable(msg)
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
        worst = int((share - cdf.gather(0, at)).abs().argmax())
        msg = (
            f"samples of {line.name} do not match its density: {float(share.flatten()[worst]):.3f} of them "
            f"lie where it puts {float(cdf.gather(0, at).flatten()[worst]):.3f}"
        )
        raise Fault(msg, _MATCH)
    return (mass * nodes.x).sum(0)


def _divided(draws: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """A tenth that places nodes and events, and the rest that is tested: so these stay independent."""
    if not bool(draws.isfinite().all()):
        raise Fault(f"its samples of {name} are not finite")
    draws = draws.double()
    return draws[: len(draws) // 10], draws[len(draws) // 10 :]


def _resolves(x: Tensor, draws: Tensor) -> bool:
    """Whether there is a node among any fiftieth of the draws: a spike between two is not seen."""
    draws = draws.sort(0).values.T.contiguous()
    before = torch.searchsorted(x.T.contiguous(), draws)
    apart = max(1, int(_RESOLVED * draws.shape[1]))
    return bool((before[:, apart:] > before[:, :-apart]).all())


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
    columns = draws.shape[1]
    place, slope, wide = _substitution(line.support, draws)
    t = torch.linspace(-_REACH * wide, _REACH * wide, count, dtype=torch.float64)[:, None]
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


def density(
    log_prob: Callable[[Tensor], Tensor],
    x: Tensor,
    inside: Callable[[Tensor], Tensor] | None,
    within: Tensor,
    name: str,
) -> Tensor:
    """Log-densities at points ``x``; minus infinity outside the support, where they may refuse to look.

    Args:
        log_prob: ``(n, E)`` to ``(n, E)`` or ``(n,)``.
        x: ``(G, E)``.
        inside: Whether the support holds points, with a result as of ``log_prob``; None: it does.
        within: ``(1, E)`` that it holds.
        name: What messages call it.

    Raises:
        Fault: It is not a number somewhere, or has another shape.
    """
    made = []
    for part in x.split(_CHUNK):
        held = torch.ones(part.shape, dtype=torch.bool) if inside is None else inside(part)
        asked = torch.where(held.view(len(part), -1), part, within.to(part))
        found = log_prob(asked).double()
        if found.shape not in (part.shape, part.shape[:1]):
            shape = tuple(found.shape)
            raise Fault(f"log_prob of {name} has shape {shape} for {tuple(part.shape)}")
        rows = found.dim() < part.dim()
        held = held.view(len(part), -1).all(1) if rows else held.expand_as(part)
        # Far out a formula may overflow where there is next to nothing.
        far = part.abs().amax(1) > _FAR if rows else part.abs() > _FAR
        made.append(torch.where(held & ~(far & found.isnan()), found, -torch.inf))
    found = torch.cat(made)
    if bool(found.isnan().any()):
        raise Fault(
            f"log_prob of {name} is not a number at {x[found.isnan()].flatten()[0].item():.4g}"
        )
    return found


_FAR = 1e3


def check_of(support: Any) -> Callable[[Tensor], Tensor] | None:
    """Whether a support holds points; None where it is not known."""
    return None if support is None else support.check
