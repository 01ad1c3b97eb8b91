"""Codes: what a posterior returns."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from sfumato.interfaces import Scope


class Density:
    r"""A code that is a torch distribution.

    Independent normals are reparameterised by the scope's keyed noise,
    :math:`z = \mu + \sigma \epsilon`; any other distribution by its own ``rsample``, under
    torch's global generator.

    Args:
        dist: Batch ``(B,)``, event ``Z``.
        scope: The scope handed to the posterior.
        aux: Further training terms, each ``(B,)``.
    """

    def __init__(
        self, dist: Distribution, scope: Scope, aux: Mapping[str, Tensor] | None = None
    ) -> None:
        self.dist: Distribution | None = dist
        self.aux: Mapping[str, Tensor] = aux or {}
        self._dist, self._scope = dist, scope

    @property
    def mode(self) -> Tensor:
        """``(B, *Z)``."""
        return self._dist.mode

    def rsample(self, k: int = 1) -> tuple[Tensor, Tensor | None]:
        """``z`` ``(K, B, *Z)`` and ``log q(z|x)`` ``(K, B)``."""
        z = self.draw(k)
        return z, self._dist.log_prob(z)

    def draw(self, k: int) -> Tensor:
        """``z`` alone: most losses never ask for its density."""
        base = self._dist.base_dist if isinstance(self._dist, Independent) else self._dist
        if isinstance(base, Normal):
            return base.loc + base.scale * self._scope.noise((k, *base.loc.shape))
        return self._dist.rsample(torch.Size((k,)))


class Point:
    """A code that is a point and has no density.

    Args:
        mode: ``(B, *Z)``.
        aux: Further training terms, each ``(B,)``.
        codes: ``(B, ...)`` symbols, where the point was chosen from a finite set.
    """

    dist: Distribution | None = None

    def __init__(
        self,
        mode: Tensor,
        aux: Mapping[str, Tensor] | None = None,
        codes: Tensor | None = None,
    ) -> None:
        self.mode, self.aux, self.codes = mode, aux or {}, codes

    def rsample(self, k: int = 1) -> tuple[Tensor, Tensor | None]:
        """``k`` copies of the point, ``(K, B, *Z)``, and None."""
        return self.mode.expand(k, *self.mode.shape), None
