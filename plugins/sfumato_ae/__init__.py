r"""The plain autoencoder: a point for a code, and reconstruction alone as its objective.

.. math:: \min \; E_x\left[-\log p(x \mid z = f(x))\right]

A point has no density, so this objective bounds nothing and there is no divergence. The family
still names a prior, from which :meth:`sfumato.Model.sample` draws: nothing in training made the
codes resemble it, and a picture of such samples shows why an autoencoder does not generate.
"""

from __future__ import annotations

import math
from typing import Any, final

from torch import Tensor, nn

from sfumato import Context, Loss, LossOut, Pass, Point, Posterior, Scope


@final
class Delta(Posterior):
    """Creates a code that is a point, a linear function of the features.

    Shape:
        ``(B, *F) -> Point`` of ``(B, latent_dim)``.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.head = nn.Linear(math.prod(context.feature_shape), context.latent_dim)

    def forward(self, features: Tensor, scope: Scope) -> Point:
        """Make the code of ``(B, *F)`` features."""
        del scope
        return Point(self.head(features.flatten(1)))


@final
class Reconstruction(Loss):
    r"""Negative log-likelihood of a datum given its code.

    .. math:: -\log p_\theta(x \mid z)

    In nats per item, constants included: on equal outputs it equals the reconstruction term of the
    ELBO.

    Shape:
        every term ``(B,)``, core averages.
    """

    def __init__(self, context: Context) -> None:  # noqa: ARG002 - every part is offered it
        super().__init__()

    def forward(self, pass_: Pass) -> LossOut:
        """The objective of one pass."""
        reconstruction = pass_.reconstruction()
        return LossOut(reconstruction, reconstruction=reconstruction)


def ae() -> dict[str, Any]:
    """Plain autoencoder: posterior ``delta``, loss ``reconstruction``.

    Samples from a standard normal.
    """
    return {"posterior": "delta", "prior": "standard_normal", "loss": "reconstruction"}
