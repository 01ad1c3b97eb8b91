r"""How two clouds of codes differ: maximum mean discrepancy and moments, with jackknifed standard errors.

.. math::
    \mathrm{MMD}^2 = \frac{1}{n(n-1)} \sum_{i \ne j} \bigl[k(z_i, z_j) + k(z'_i, z'_j)\bigr]
      - \frac{2}{n^2} \sum_{i, j} k(z_i, z'_j),
    \qquad k(z, z') = \frac{C}{C + \lVert z - z' \rVert^2}

A standard error comes from leaving out one group of items after another (delete-a-group
jackknife; Kott, 2001): with :math:`G` groups,
:math:`\frac{G - 1}{G} \sum_g (\hat\theta_{(g)} - \bar\theta)^2`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

GROUPS = 20
_AT_ONCE = 2**22


def groups_of(n: int) -> list[slice]:
    """``n`` items in at most :data:`GROUPS` runs of nearly equal length, each of 2 or more."""
    count = max(1, min(GROUPS, n // 2))
    edges = [n * g // count for g in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def jackknifed(
    estimate: Callable[[Sequence[int]], float], groups: int
) -> tuple[float, float | None]:
    """An estimate from the groups of given numbers: from all of them, with its standard error.

    The error is None with fewer than two groups.
    """
    every = range(groups)
    value = estimate(every)
    if groups < 2:  # noqa: PLR2004 - nothing would be left
        return value, None
    left = torch.tensor(
        [estimate([h for h in every if h != g]) for g in every], dtype=torch.float64
    )
    return value, float(((groups - 1) * (left - left.mean()).square().mean()).sqrt())


def mmd(codes: Tensor, prior: Tensor, scale: float) -> tuple[float, float | None]:
    """Unbiased squared discrepancy of two clouds ``(n, d)`` of equally many, with its standard error.

    Args:
        codes: One cloud.
        prior: The other.
        scale: ``C`` of the kernel.
    """
    groups = groups_of(len(codes))
    sizes = torch.tensor([g.stop - g.start for g in groups], dtype=torch.float64)
    within = [_kernel_sums(z, z, groups, scale) - torch.diag(sizes) for z in (codes, prior)]
    across = _kernel_sums(codes, prior, groups, scale)

    def estimate(kept: Sequence[int]) -> float:
        at = torch.tensor(kept)
        n = float(sizes[at].sum())
        same, other = (float(sums[at][:, at].sum()) for sums in (within[0] + within[1], across))
        return same / (n * (n - 1)) - 2 * other / n**2

    return jackknifed(estimate, len(groups))


def _kernel_sums(a: Tensor, b: Tensor, groups: Sequence[slice], scale: float) -> Tensor:
    """Sums of the kernel over pairs of groups, ``(G, G)``; a point with itself counts 1."""
    sums = torch.zeros(len(groups), len(groups), dtype=torch.float64)
    for row, group in enumerate(groups):
        by_column = torch.zeros(len(b), dtype=torch.float64, device=b.device)
        for some in a[group].split(max(1, _AT_ONCE // len(b))):
            squared = torch.cdist(some, b, compute_mode="donot_use_mm_for_euclid_dist").square()
            by_column += (scale / (scale + squared)).sum(0)
        sums[row] = torch.stack([by_column[g].sum() for g in groups]).cpu()
    return sums


def mean_gap(codes: Tensor, prior: Tensor | None = None) -> tuple[float, float | None]:
    r"""Root mean square of the means of ``(n, d)`` codes, less what sampling adds, with its error.

    .. math:: \bigl(\lVert \bar u \rVert^2 - \operatorname{tr} S_u / n\bigr)^{1/2} / \sqrt d

    Args:
        codes: ``u``, scaled so that every dimension of the prior has mean 0 and variance 1.
        prior: As many draws of the prior, likewise, where its mean is only known from them.
    """

    def square(u: Tensor, p: Tensor | None) -> float:
        (mean, noise), (aim, added) = _mean(u), (0.0, 0.0) if p is None else _mean(p)
        return float((mean - aim).square().sum()) - noise - added

    return _rooted_mean(square, codes, prior)


def covariance_gap(codes: Tensor, prior: Tensor | None = None) -> tuple[float, float | None]:
    r"""Distance of the covariance of ``(n, d)`` codes from a prior's, less what sampling adds, and its error.

    .. math::
        \bigl(\lVert S_u - R \rVert_F^2
          - \tfrac{1}{n - 1} \operatorname{Var}[(u - \bar u)(u - \bar u)^T]\bigr)^{1/2} / \sqrt d

    Args:
        codes: ``u``, scaled so that every dimension of the prior has mean 0 and variance 1.
        prior: As many draws of the prior, likewise, with covariance ``R``; None: ``R`` is the identity.
    """
    one = torch.eye(codes.shape[1]).to(codes)

    def square(u: Tensor, p: Tensor | None) -> float:
        (found, noise), (aim, added) = _covariance(u), (one, 0.0) if p is None else _covariance(p)
        return float((found - aim).square().sum()) - noise - added

    return _rooted_mean(square, codes, prior)


def _rooted_mean(
    square: Callable[[Tensor, Tensor | None], float], codes: Tensor, prior: Tensor | None
) -> tuple[float, float | None]:
    groups = groups_of(len(codes))

    def estimate(kept: Sequence[int]) -> float:
        u = torch.cat([codes[groups[g]] for g in kept])
        p = None if prior is None else torch.cat([prior[groups[g]] for g in kept])
        return square(u, p) / codes.shape[1]

    return rooted(*jackknifed(estimate, len(groups)))


def _mean(rows: Tensor) -> tuple[Tensor, float]:
    """Mean, and expected squared norm of its error."""
    return rows.mean(0), float(rows.var(0).sum()) / len(rows)


def _covariance(rows: Tensor) -> tuple[Tensor, float]:
    """Covariance, and expected squared norm of its error."""
    n, centred = len(rows), rows - rows.mean(0)
    mean = centred.T @ centred / n
    fourth = float(centred.square().sum(1).square().mean())
    return mean * n / (n - 1), (fourth - float(mean.square().sum())) / (n - 1)


def rooted(square: float, error: float | None) -> tuple[float, float | None]:
    """Root of a square that may by chance be below 0, with the error of one from that of the other.

    Where the square is far above its error this is the usual half of their ratio, over the root.
    """
    value = math.sqrt(max(square, 0.0))
    return value, None if error is None else math.sqrt(value**2 + error) - value
