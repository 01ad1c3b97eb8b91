r"""The Fréchet distance between normals that are fitted to features of generated and of real items.

.. math::
    |m_1 - m_2|^2
      + \mathrm{tr}\bigl(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2}\bigr)

It is the squared 2-Wasserstein distance of the two normals (Dowson & Landau, 1982), and what
Heusel et al. (2017) call FID where features are those of one Inception network. Other features
give other numbers, so it is never called FID here: a figure has the name of its space.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

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
from sfumato_generation.spaces import Digits, Mnist

_SOURCE = (
    "Heusel et al., 2017, GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash "
    "Equilibrium, https://arxiv.org/abs/1706.08500; Dowson & Landau, 1982, "
    "https://doi.org/10.1016/0047-259X(82)90077-X"
)
_DEFINITION = (
    "Fréchet distance between normals fitted to {}; biased upwards, the more the fewer items, so "
    "comparable at equal numbers of items only; {}"
)


def fd(
    *,
    features: Features = "pca",  # type: ignore[assignment]  # core makes the space of that name
    samples: Samples = 10_000,
) -> Measure:
    r"""Fréchet distance between normals fitted to features of generated and real items: ``fd_SPACE``.

    .. math::
        |m_1 - m_2|^2 + \mathrm{tr}\bigl(
          \Sigma_1 + \Sigma_2 - 2 (\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2}\bigr)

    with as many generated as real items. It is biased upwards, the more the fewer items there are;
    its floor, the distance of as many training items from the same real ones, has the same bias.
    Near the floor the standard error is up to 1.4 times too large, for the distance is quadratic in
    the data there. The number depends on the features, so it is not called FID, which is that of
    one Inception network.

    References:
        | GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel
          et al., 2017)
        | https://arxiv.org/abs/1706.08500

    Args:
        features: The space, of which the figure has the name.
        samples: Most items of each side; fewer where the split or the training items are fewer.
    """
    space = as_space(features)
    return lambda subject: _measured(subject, space, samples)


def fd_digits(*, samples: Samples = 10_000) -> Measure:
    """Fréchet distance in the fixed features ``digits``, for pictures of 8 x 8; see metric ``fd``.

    Args:
        samples: Most items of each side; fewer where the split or the training items are fewer.
    """
    space = _digits()
    return lambda subject: _measured(subject, space, samples)


def fd_mnist(*, samples: Samples = 10_000) -> Measure:
    """Fréchet distance in the fixed features ``mnist``, for pictures of 28 x 28; see metric ``fd``.

    Args:
        samples: Most items of each side; fewer where the split or the training items are fewer.
    """
    space = _mnist()
    return lambda subject: _measured(subject, space, samples)


# One object a process: a subject computes the features of a space once.
@functools.cache
def _digits() -> Digits:
    return Digits()


@functools.cache
def _mnist() -> Mnist:
    return Mnist()


def _measured(subject: Subject, space: Features, samples: int) -> Figures:
    n, name = equal_count(subject, samples), f"fd_{space.name}"
    definition = _DEFINITION.format(said(subject, space, n), SAID)
    blank = Figure(None, "squared feature units", "lower", definition=definition, source=_SOURCE)
    sides = compared(subject, space, samples)
    if isinstance(sides, str):
        return {name: blank.undefined_because(sides)}
    return {name: _figure(sides, blank)}


def _figure(sides: Compared, blank: Figure) -> Figure:
    n, width = sides.real.shape
    floor = None if sides.training is None else distance(sides.training, sides.real)
    warning = None
    if n <= width:
        warning = (
            f"{n} items cannot fix a covariance of {width} features, so it is singular and the bias "
            "large: compare more items, or choose a space of fewer features"
        )
    return Figure(
        distance(sides.generated, sides.real),
        blank.unit,
        blank.better,
        standard_error(list(_left_out(sides.generated, sides.real))),
        definition=blank.definition,
        source=blank.source,
        floor=floor,
        warning=warning,
    )


def distance(one: Tensor, other: Tensor) -> float:
    """The Fréchet distance between normals fitted to two sets of features, each ``(n, F)``."""
    return _between(*(Sums.of(x, other.mean(0)) for x in (one, other)))


def _left_out(one: Tensor, other: Tensor) -> Iterator[float]:
    """The distance without each group of both sets."""
    origin = other.mean(0)
    sums = [Sums.of(x, origin) for x in (one, other)]
    for rows in groups(len(other)):
        fewer = (
            s.without(Sums.of(x[rows], origin)) for s, x in zip(sums, (one, other), strict=True)
        )
        yield _between(*fewer)


@dataclass(frozen=True)
class Sums:
    """What mean and covariance of some rows are made of, about an origin.

    Args:
        count: How many rows.
        total: Their sum, ``(F,)``.
        products: The sum of their outer products, ``(F, F)``.
    """

    count: int
    total: Tensor
    products: Tensor

    @classmethod
    def of(cls, x: Tensor, origin: Tensor) -> Sums:
        """Of rows ``(n, F)``. An origin amid them keeps differences of large numbers out."""
        moved = x - origin
        return cls(len(x), moved.sum(0), moved.T @ moved)

    def without(self, part: Sums) -> Sums:
        """Of all rows but some."""
        return Sums(
            self.count - part.count, self.total - part.total, self.products - part.products
        )

    def mean(self) -> Tensor:
        """``(F,)``."""
        return self.total / self.count

    def covariance(self) -> Tensor:
        """``(F, F)``, unbiased."""
        mean = self.mean()
        return (self.products - self.count * torch.outer(mean, mean)) / (self.count - 1)


def _between(one: Sums, other: Sums) -> float:
    """Squared 2-Wasserstein distance of two normals.

    The trace of the root is the nuclear norm of the product of the roots. Singular values are
    accurate to rounding, where roots of the eigenvalues of ``S1^½ S2 S1^½`` are to its root.
    """
    first, second = one.covariance(), other.covariance()
    shared = torch.linalg.svdvals(_root(first) @ _root(second)).sum()
    apart = (one.mean() - other.mean()).square().sum()
    return float((apart + first.trace() + second.trace() - 2 * shared).clamp(min=0))


def _root(covariance: Tensor) -> Tensor:
    """The symmetric root of a covariance, without the noise of its null space."""
    values, vectors = torch.linalg.eigh(covariance)
    noise = len(values) * torch.finfo(values.dtype).eps * values[-1]
    values = torch.where(values > noise, values, 0.0)
    root: Tensor = (vectors * values.sqrt()) @ vectors.T
    return root
