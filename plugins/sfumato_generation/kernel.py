r"""The kernel distance: an unbiased estimate of a squared maximum mean discrepancy.

.. math::
    \widehat{\mathrm{MMD}}{}^2 = \frac{\sum_{i \ne j} k(x_i, x_j) + \sum_{i \ne j} k(y_i, y_j)}{n(n-1)}
      - \frac{2 \sum_{i, j} k(x_i, y_j)}{n^2}, \qquad k(x, y) = \Bigl(\frac{x^T y}{F} + 1\Bigr)^3
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sfumato import Features, Figure, Subject
from sfumato_generation.compared import (
    Compared,
    Figures,
    Measure,
    Samples,
    as_space,
    compared,
    equal_count,
    said,
)
from sfumato_generation.jackknife import SAID, groups, standard_error

_SOURCE = "Bińkowski et al., 2018, Demystifying MMD GANs, https://arxiv.org/abs/1801.01401"
_DEFINITION = (
    "squared maximum mean discrepancy, unbiased, over all pairs, with kernel (x·y/F + 1)³ of F "
    "features, between {}; it can be below 0; {}"
)
_TILE = 512


def kd(
    *,
    features: Features = "pca",  # type: ignore[assignment]  # core makes the space of that name
    samples: Samples = 10_000,
) -> Measure:
    r"""Kernel distance between features of generated and real items: ``kd_SPACE``.

    .. math::
        \mathrm{E}[k(x, x')] + \mathrm{E}[k(y, y')] - 2 \mathrm{E}[k(x, y)],
        \qquad k(x, y) = \Bigl(\frac{x^T y}{F} + 1\Bigr)^3

    an unbiased estimate over all pairs, so it is 0 on average where the distributions agree, with
    any number of items, and may be negative; there its standard error is about 1.4 times too large,
    for the estimate is quadratic in the data. It compares the first three moments. Its size depends
    on the features and on their units. In features of Inception, averaged over random subsets, it
    is known as KID.

    References:
        | Demystifying MMD GANs (Bińkowski et al., 2018)
        | https://arxiv.org/abs/1801.01401
        | A Kernel Two-Sample Test (Gretton et al., 2012)
        | https://jmlr.org/papers/v13/gretton12a.html

    Args:
        features: The space, of which the figure has the name.
        samples: Most items of each side; fewer where the split or the training items are fewer.
    """
    space = as_space(features)

    def measure(subject: Subject) -> Figures:
        n, name = equal_count(subject, samples), f"kd_{space.name}"
        definition = _DEFINITION.format(said(subject, space, n), SAID)
        blank = Figure(None, "kernel units", "lower", definition=definition, source=_SOURCE)
        sides = compared(subject, space, samples)
        if isinstance(sides, str):
            return {name: blank.undefined_because(sides)}
        return {name: _figure(sides, blank)}

    return measure


def _figure(sides: Compared, blank: Figure) -> Figure:
    real = within(sides.real)
    pair = Blocks(within(sides.generated), real, across(sides.generated, sides.real))
    floor = None
    if sides.training is not None:
        trained = Blocks(within(sides.training), real, across(sides.training, sides.real))
        floor = trained.distance(len(sides))
    return Figure(
        pair.distance(len(sides)),
        blank.unit,
        blank.better,
        standard_error(list(pair.left_out(len(sides)))),
        definition=blank.definition,
        source=blank.source,
        floor=floor,
    )


class Blocks:
    """Sums of the kernel over the pairs of two groups, for every two groups: ``(G, G)`` each.

    Args:
        xx: Of one side with itself, without pairs of an item with itself.
        yy: Of the other side likewise.
        xy: Across.
    """

    def __init__(self, xx: Tensor, yy: Tensor, xy: Tensor) -> None:
        self._sums = (xx, yy, xy)

    def distance(self, n: int) -> float:
        """The squared discrepancy of all ``n`` items of each side."""
        return _discrepancy([float(block.sum()) for block in self._sums], n)

    def left_out(self, n: int) -> Iterator[float]:
        """The squared discrepancy without each group of both sides."""
        for g, rows in enumerate(groups(n)):
            sums = [float(b.sum() - b[g].sum() - b[:, g].sum() + b[g, g]) for b in self._sums]
            yield _discrepancy(sums, n - (rows.stop - rows.start))


def _discrepancy(sums: list[float], n: int) -> float:
    xx, yy, xy = sums
    return (xx + yy) / (n * (n - 1)) - 2 * xy / n**2


def within(x: Tensor) -> Tensor:
    """Sums over the pairs of different items of ``(n, F)``, by groups."""
    runs = groups(len(x)) or [slice(0, len(x))]
    sums = x.new_zeros(len(runs), len(runs))
    for g, one in enumerate(runs):
        for h, other in enumerate(runs[: g + 1]):
            sums[g, h] = sums[h, g] = _sum(x[one], x[other])
        sums[g, g] -= _kernel(x[one].square().sum(1), x.shape[1]).sum()
    return sums


def across(x: Tensor, y: Tensor) -> Tensor:
    """Sums over all pairs of an item of ``x`` and one of ``y``, by groups."""
    runs = groups(len(x)) or [slice(0, len(x))]
    return torch.stack([torch.stack([_sum(x[g], y[h]) for h in runs]) for g in runs])


def _sum(x: Tensor, y: Tensor) -> Tensor:
    """The kernel summed over all pairs, in tiles that fit the cache."""
    tiles = (a @ b.T for a in x.split(_TILE) for b in y.split(_TILE))
    return torch.stack([_kernel(tile, x.shape[1]).sum() for tile in tiles]).sum()


def _kernel(products: Tensor, width: int) -> Tensor:
    near = products / width + 1
    return near * near * near
