r"""Densities against their samples, in any number of dimensions, by importance weights.

Let :math:`q` be any density, :math:`M` a number and :math:`A = \{z : p(z) \le M q(z)\}`. For every
event :math:`B`

.. math:: E_q\bigl[1_{A \cap B} \, p / q\bigr] = P(A \cap B) = E_p\bigl[1_{A \cap B}\bigr],

and the values on both sides are bounded. So draws of :math:`q` and samples of :math:`p` are
compared without a grid, and a :math:`q` that misses something of :math:`p` costs power and no
soundness. Here it is a :class:`Cloud` about other samples of :math:`p`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.randomness import keyed_generator
from sfumato.testing.bounds import bernstein, off_by
from sfumato.testing.rules import Fault, Inapplicable

DRAWS = 50_000
_CENTRES, _MANY_CENTRES = 64, 300
_LEVELS, _OBLIQUE = 5, 4
_BROAD = 1.2
_FLAT, _ROUND = 1e-10, 1e-6
_USEFUL = 0.25
_WIDER, _LEAK = 1.5, 0.98
_NOTHING = -600.0
_CHUNK = 1 << 17
_CONSTANT = "add the normalising constant, Jacobians included; terms are nats"
_MATCH = "draw from the very distribution that log_prob scores"
_OWN = "log q has to be the density of the very z that is returned, constants included"

Generator = torch.Generator


class Frame:
    """Coordinates in which samples have about the unit covariance.

    Args:
        samples: ``(n, d)``.

    Raises:
        Fault: They are not finite, or all equal.
        Inapplicable: They lie on a surface, so that no density integrates over the space around it.
    """

    def __init__(self, samples: Tensor, name: str) -> None:
        if not bool(samples.isfinite().all()):
            raise Fault(f"its samples of {name} are not finite")
        ends = samples.quantile(torch.tensor([0.01, 0.99], dtype=samples.dtype), 0)
        held = samples.clamp(*ends)
        self.middle, size = held.mean(0), held.std(0)
        if not bool((size > 0).all()):
            raise Fault(f"its samples of {name} are all equal")
        dims, length = samples.shape[1], samples.norm(dim=1)
        correlation = torch.corrcoef(held.T).view(dims, dims)
        flat = float(torch.linalg.eigvalsh(correlation)[0]) < _FLAT
        if flat or (dims > 1 and float(length.std() / length.mean()) < _ROUND):
            msg = "its codes lie on a surface, over which nothing is integrated here"
            raise Inapplicable(msg)
        self.scale = size[:, None] * torch.linalg.cholesky(correlation)
        self.log_volume = float(self.scale.diagonal().log().sum())

    def inside(self, z: Tensor) -> Tensor:
        """Codes to coordinates."""
        found: Tensor = torch.linalg.solve_triangular(self.scale, (z - self.middle).T, upper=False)
        return found.T

    def outside(self, u: Tensor) -> Tensor:
        """Coordinates to codes."""
        found: Tensor = u @ self.scale.T + self.middle
        return found


class Cloud:
    """A mixture: normals about points, each as wide as its neighbours are far, and a broad one.

    Args:
        points: ``(m, d)``.
        broad: Share of the broad one.
    """

    def __init__(self, points: Tensor, broad: float) -> None:
        self.points, self.broad, self.dims = points, broad, points.shape[1]
        apart = (points[:, None] - points).norm(dim=-1).sort(1).values
        near = apart[:, round(math.sqrt(len(points)))]
        self.width = near.clamp(min=1e-9) / (1 + math.sqrt(self.dims))

    def sample(self, count: int, generator: Generator) -> Tensor:
        """``(n, d)``."""
        which = torch.randint(len(self.points), (count,), generator=generator)
        noise = torch.randn(count, self.dims, generator=generator, dtype=self.points.dtype)
        wide = torch.rand(count, 1, generator=generator) < self.broad
        near = self.points[which] + self.width[which, None] * noise
        return torch.where(wide, _BROAD * noise, near)

    def log_prob(self, u: Tensor) -> Tensor:
        """``(n, d)`` to ``(n,)``."""
        made = [
            _log_mean(self.kernels(part)) for part in u.split(max(1, _CHUNK // len(self.points)))
        ]
        wide = -0.5 * (u / _BROAD).square().sum(1) - self.dims * self._log_unit(_BROAD)
        share = math.log(self.broad), math.log1p(-self.broad)
        return torch.logaddexp(wide + share[0], torch.cat(made) + share[1])

    def kernels(self, u: Tensor, factor: float = 1.0) -> Tensor:
        """The log-density of each normal, ``(n, m)``, at so many times its width."""
        apart = torch.zeros(len(u), len(self.points), dtype=u.dtype)
        for mine, theirs in zip(u.unbind(1), self.points.unbind(1), strict=True):
            apart += (mine[:, None] - theirs).square_()
        width = factor * self.width
        apart.mul_(-0.5 / width.square())
        return apart.sub_(self.dims * (width.log() + self._log_unit(1.0)))

    def weights(self, u: Tensor, log_q: Tensor, groups: Tensor, factor: float) -> Tensor:
        """The density of groups of normals ``(m, J)`` against another at ``(n, d)``: ``(n, J)``."""
        rows = max(1, _CHUNK // len(self.points))
        parts = zip(u.split(rows), log_q.split(rows), strict=True)
        made = [
            _exp(self.kernels(at, factor).sub_(log_at[:, None])) @ groups for at, log_at in parts
        ]
        return torch.cat(made)

    @staticmethod
    def _log_unit(width: float) -> float:
        return math.log(width) + 0.5 * math.log(2 * math.pi)


def _exp(logs: Tensor) -> Tensor:
    """The exponential; where it is next to nothing, not less: denormal numbers are slow."""
    return logs.clamp_(min=_NOTHING).exp_()


def _log_mean(logs: Tensor) -> Tensor:
    most = logs.amax(1, keepdim=True)
    return _exp(logs - most).mean(1).log() + most[:, 0]


def check_samples(name: str, log_prob: Callable[[Tensor], Tensor], samples: Tensor) -> bool:
    """Raise a :class:`Fault` unless a density is the density of its samples.

    Args:
        name: What messages call it.
        log_prob: ``(n, d) -> (n,)``, minus infinity outside its support.
        samples: ``(n, d)``.

    Returns:
        Whether the comparison had any power.
    """
    samples = samples.double()
    pilot, tested = samples[: len(samples) // 5], samples[len(samples) // 5 :]
    frame, generator = Frame(pilot, name), keyed_generator("cpu", 0, "proposal")
    pilot, found = frame.inside(pilot), frame.inside(tested)
    cloud = Cloud(pilot[:_CENTRES], 0.5)
    proposed = cloud.sample(len(tested), generator)

    def log_density(u: Tensor) -> Tensor:
        return log_prob(frame.outside(u)).double() + frame.log_volume

    few = pilot[_CENTRES : _CENTRES + 2000]
    ratios = log_density(few) - cloud.log_prob(few)
    median, most = ratios.quantile(torch.tensor([0.5, 0.99], dtype=ratios.dtype)).tolist()
    if not math.isfinite(median):
        raise Fault(
            f"the density of {name} is {'0' if median < 0 else median} at its samples", _MATCH
        )
    limit = min(most, median + math.log(8))
    log_p, log_found = log_density(proposed), log_density(found)
    log_weight = log_p - cloud.log_prob(proposed)
    kept = log_found - cloud.log_prob(found) <= limit
    # In units of 1 + M, so that a density which is off by hundreds of nats does not overflow.
    unit = float(torch.nn.functional.softplus(torch.tensor(limit, dtype=torch.float64)))
    weight = torch.where(log_weight <= limit, (log_weight - unit).exp(), 0.0)
    share = kept.double() * math.exp(-unit)
    views = _Views(pilot, log_density(few), generator)
    off, mass, held = views.compare((proposed, log_p, weight), (found, log_found, share))
    if off > 1:
        factor = float(weight.sum() / share.sum()) if float(share.sum()) else math.inf
        again = views.compare((proposed, log_p, weight / factor), (found, log_found, share))[0]
        if again < 1:
            msg = f"{name} is not normalised: it integrates to {factor:.3g} instead of 1"
            raise Fault(msg, _CONSTANT)
        held, mass = (v * math.exp(unit) for v in (held, mass))
        msg = f"samples of {name} do not match its density: {held:.3f} of them lie"
        raise Fault(f"{msg} where it puts {mass:.3f}", _MATCH)
    unsure = float(bernstein((weight - share)[:, None], 1.0)) * math.exp(unit)
    return unsure < _USEFUL


class _Views:
    """Events: half-spaces in several directions, balls, and where the density is low.

    Args:
        pilot: ``(n, d)``, which place the edges.
        log_p: Log-densities at some of them.
    """

    def __init__(self, pilot: Tensor, log_p: Tensor, generator: Generator) -> None:
        dims = pilot.shape[1]
        oblique = torch.randn(_OBLIQUE if dims > 1 else 0, dims, generator=generator)
        self._ways = torch.cat([torch.eye(dims), oblique]).double().T
        levels = torch.linspace(0, 1, _LEVELS + 2, dtype=torch.float64)[1:-1]
        edges = [t.quantile(levels) for t in (*self._seen(pilot), log_p)]
        self._edges = torch.stack([torch.full((1,), torch.inf).expand(_LEVELS), *edges])

    def _seen(self, u: Tensor) -> tuple[Tensor, ...]:
        return (*(u @ self._ways).unbind(1), u.norm(dim=1))

    def compare(
        self, one: tuple[Tensor, Tensor, Tensor], other: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[float, float, float]:
        """By how much the worst event exceeds its bound, and its mass on either side.

        Args:
            one: Coordinates ``(n, d)``, log-densities ``(n,)`` and values ``(n,)``.
            other: Likewise.
        """
        inside = [self._shares(*side) for side in (one, other)]
        off = off_by(inside[0] - inside[1], 0.0, 1.0)
        worst = int(off.argmax())
        mass, held = (float(v[:, worst].mean()) for v in inside)
        return float(off[worst]), mass, held

    def _shares(self, u: Tensor, log_p: Tensor, values: Tensor) -> Tensor:
        seen = (torch.zeros_like(log_p), *self._seen(u), log_p)
        made = [
            (t[:, None] <= edges) * values[:, None]
            for t, edges in zip(seen, self._edges, strict=True)
        ]
        return torch.cat([made[0][:, :1], *made[1:]], 1)


def check_own_weights(name: str, samples: Tensor, log_q: Tensor) -> bool:
    r"""Raise a :class:`Fault` unless log-densities at samples are those of the samples.

    Where :math:`r` is the density of a :class:`Cloud` inside the samples, :math:`E_q[r / q] = 1`,
    which needs :math:`q` at its samples alone. What of :math:`r` falls where there are no samples
    is estimated from a wider one.

    Args:
        name: What messages call it.
        samples: ``(n, d)``.
        log_q: ``(n,)``.

    Returns:
        Whether the comparison had any power.
    """
    if not bool(log_q.isfinite().all()):
        raise Fault(f"log q of {name} is not finite at its samples", _OWN)
    samples, log_q = samples.double(), log_q.double()
    first = len(samples) // 10
    frame = Frame(samples[:first], name)
    u = frame.inside(samples)
    # Where samples are dense, so that next to nothing of r lies where there are none.
    dense = log_q[:first] >= log_q[:first].quantile(0.1)
    cloud = Cloud(u[:first][dense][:_MANY_CENTRES], 0.0)
    u, log_q = u[first:], log_q[first:] + frame.log_volume
    every, right = torch.ones(len(cloud.points), 1, dtype=u.dtype), (cloud.points > 0).to(u)
    groups = torch.cat([every, right, 1 - right], 1)
    groups /= groups.sum(0).clamp(min=1)
    log_r = _log_mean(cloud.kernels(u[:1000]))
    # In units of the weights themselves, so that what is off by hundreds of nats does not overflow.
    unit = max(0.0, float((log_r - log_q[:1000]).quantile(0.9)))
    narrow, wide = (cloud.weights(u, log_q + unit, groups, factor) for factor in (1.0, _WIDER))
    slack = 4 * (wide.mean(0) - narrow.mean(0)).abs()
    most, expected = narrow.amax(0), math.exp(-unit)
    # If r leaks out of q, at an edge or along a thin sheet, a wider one leaks far more; what is
    # too high can be told even then.
    leaks = wide.mean(0) < _LEAK * narrow.mean(0)
    low = leaks & (narrow.mean(0) < expected)
    off = torch.where(low, 0.0, off_by(narrow, expected, most, slack))
    if float(off.max()) > 1:
        found = float(narrow[:, int(off.argmax())].mean())
        worst = found / expected if expected else math.inf
        msg = f"log q of {name} does not match its samples: their weights average {worst:.3g}"
        raise Fault(f"{msg} instead of 1", _OWN)
    unsure = (bernstein(narrow, most) + slack) / max(expected, 1e-300)
    return not bool(leaks[0]) and float(unsure[0]) < _USEFUL
