r"""The aggregate posterior as a mixture: :math:`\log \frac1N \sum_j q(z_i \mid x_j)` of every ``i``.

For normal factors the exponents of all pairs are two matrix products,

.. math::
    \sum_d \frac{(z_{id} - \mu_{jd})^2}{\sigma_{jd}^2}
      = \sum_d z_{id}^2 \, \sigma_{jd}^{-2} - 2 \sum_d z_{id} \, \mu_{jd} \sigma_{jd}^{-2}
      + \sum_d \mu_{jd}^2 \sigma_{jd}^{-2},

which cancel: pairs are taken one by one where a code is too many :math:`\sigma` from the origin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from sfumato import key, permuted
from sfumato_metrics.draws import Draws, factor
from sfumato_metrics.figures import Undefined

_AT_ONCE = 2**22
# Terms of this size are rounded by 1e-6 in float64.
_CANCELS = 1e10


@dataclass(frozen=True)
class Densities:
    r"""Log-densities of each item's draw ``z_i``, float64.

    Args:
        own: :math:`\log q(z_i \mid x_i)`, ``(n,)``.
        mixture: :math:`\log \frac1N \sum_j q(z_i \mid x_j)`, ``(n,)``.
        growth: By how much the mixture of half of the items is denser at their draws than that of
            all: nats that endlessly many items would still take off, if what is missing falls as 1/N.
    """

    own: Tensor
    mixture: Tensor
    growth: float


def log_densities(draws: Draws) -> Densities:
    """The densities of draws under their own codes, and under all of them.

    Raises:
        Undefined: ``q(z|x)`` has no closed form.
    """
    q = [dist for dist in draws.q if dist is not None]
    if len(q) < len(draws.q):
        msg = "q(z|x) has no closed form, so its density at the codes of other items is not known"
        raise Undefined(msg)
    z, log_q, normal = draws.z, draws.log_q.double(), _normal(q)
    if normal is not None:
        z, q = z.double(), [normal]
        log_q = normal.log_prob(z)
    n, first = len(z), 0
    chosen = permuted(torch.arange((n + 1) // 2), n, key(0, "half"))
    among = torch.zeros(n, dtype=torch.bool).index_fill(0, chosen, value=True).to(z.device)
    # Filled in place: small results between large blocks would keep the heap from shrinking.
    whole, half = (torch.empty(n, dtype=torch.float64, device=z.device) for _ in range(2))
    for pairs in _log_probs(z, q):
        rows = slice(first, first + len(pairs))
        whole[rows] = pairs.double().logsumexp(1)
        half[rows] = pairs[:, among].double().logsumexp(1)
        first = rows.stop
    mixture = whole - math.log(n)
    growth = half[among] - math.log(len(chosen)) - mixture[among]
    return Densities(log_q, mixture, float(growth.mean()))


def _normal(q: Sequence[Distribution]) -> Distribution | None:
    """Normal factors of all runs as one distribution in float64."""
    factors = [one for dist in q if isinstance(one := factor(dist), Normal)]
    if len(factors) < len(q):
        return None
    mean = torch.cat([one.loc for one in factors]).double()
    sigma = torch.cat([one.scale for one in factors]).double()
    return Independent(
        Normal(mean, sigma, validate_args=False), mean.dim() - 1, validate_args=False
    )


def _log_probs(z: Tensor, q: Sequence[Distribution]) -> Iterator[Tensor]:
    """``log q(z_i|x_j)`` of runs of ``i``, each ``(b, N)``."""
    normal = factor(q[0]) if len(q) == 1 else None
    if isinstance(normal, Normal):
        mean, sigma, rows = normal.loc.flatten(1), normal.scale.flatten(1), z.flatten(1)
        farthest = torch.maximum(rows.abs().amax(0), mean.abs().amax(0)) / sigma
        if bool(farthest.square().sum(1).max() < _CANCELS):
            yield from _normal_pairs(rows, mean, sigma)
            return
    width = sum(dist.batch_shape[0] for dist in q) * z[0].numel()
    for some in z.split(max(1, _AT_ONCE // width)):
        yield torch.cat([dist.log_prob(some.unsqueeze(1)) for dist in q], 1)


def _normal_pairs(z: Tensor, mean: Tensor, sigma: Tensor) -> Iterator[Tensor]:
    precision = sigma.square().reciprocal()
    factors = torch.cat([precision, -2 * mean * precision], 1).T
    constant = (mean.square() * precision + 2 * sigma.log() + math.log(2 * math.pi)).sum(1)
    for some in z.split(max(1, _AT_ONCE // len(mean))):
        yield -0.5 * (torch.cat([some.square(), some], 1) @ factors + constant)
