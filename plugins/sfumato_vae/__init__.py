r"""The variational autoencoder (Kingma and Welling, 2014; Rezende et al., 2014).

.. math::
    \log p_\theta(x) \ge E_{q_\phi(z \mid x)}[\log p_\theta(x \mid z)]
      - \mathrm{KL}(q_\phi(z \mid x) \,\|\, p(z)),
    \qquad q_\phi(z \mid x) = N(\mu_\phi(x), \mathrm{diag}\,\sigma_\phi(x)^2), \quad p(z) = N(0, I)

References:
    | Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
    | https://arxiv.org/abs/1312.6114
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence, register_kl

from sfumato import Context, Density, Loss, LossOut, Pass, Posterior, Prior, Scope, ShapedNormal


@final
class Gaussian(Posterior):
    r"""Creates a normal code with diagonal covariance.

    .. math:: q(z \mid x) = N(\mu, \mathrm{diag}\,\sigma^2), \qquad (\mu, \log \sigma) = W h + b

    Shape:
        ``(B, *F) -> Density`` with batch ``(B,)`` and event ``(latent_dim,)``.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.head = nn.Linear(math.prod(context.feature_shape), 2 * context.latent_dim)

    def forward(self, features: Tensor, scope: Scope) -> Density:
        """Make the code of ``(B, *F)`` features."""
        mean, log_sigma = self.head(features.flatten(1)).chunk(2, -1)
        return Density(_normal(mean, log_sigma.exp()), scope)


@final
class StandardNormal(Prior):
    """Creates :math:`p(z) = N(0, I)` over codes of any shape.

    Shape:
        batch ``()``, event ``Z``.
    """

    zero: Tensor
    one: Tensor

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(context.z_shape), persistent=False)
        self.register_buffer("one", torch.ones(context.z_shape), persistent=False)

    def forward(self, scope: Scope) -> Distribution:
        """Make the prior."""
        del scope
        return _Standard(ShapedNormal(self.zero, self.one), self.zero.dim(), validate_args=False)


class _Standard(Independent):  # type: ignore[type-arg]  # one in torch's stubs alone
    """A standard normal, told apart from other normals by its type."""


@register_kl(Independent, _Standard)  # type: ignore[untyped-decorator]
def _kl_to_standard(q: Independent, p: _Standard) -> Tensor:  # type: ignore[type-arg]
    r""":math:`\frac12 \sum_j (\mu_j^2 + \sigma_j^2 - 1) - \log \sigma_j`, in fewer operations than torch."""
    base = q.base_dist
    if not isinstance(base, Normal) or q.event_shape != p.event_shape:
        plain = Independent(p.base_dist, p.reinterpreted_batch_ndims, validate_args=False)
        return kl_divergence(q, plain)
    mean, sigma = base.loc, base.scale
    each = (mean * mean + sigma * sigma - 1) * 0.5 - sigma.log()
    return each.flatten(-q.reinterpreted_batch_ndims).sum(-1)


@final
class Elbo(Loss):
    r"""Negative evidence lower bound.

    .. math::
        -\log p_\theta(x \mid z) + \mathrm{KL}(q_\phi(z \mid x) \,\|\, p(z)),
        \qquad z \sim q_\phi(z \mid x)

    Its expectation bounds :math:`-\log p_\theta(x)` from above. Terms are in nats per item.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        | https://arxiv.org/abs/1312.6114

    Shape:
        every term ``(B,)``, core averages.
    """

    def __init__(self, context: Context) -> None:  # noqa: ARG002 - every part is offered it
        super().__init__()

    def forward(self, pass_: Pass) -> LossOut:
        """The objective of one pass."""
        reconstruction, kl = pass_.reconstruction(), pass_.kl()
        return LossOut(reconstruction + kl, reconstruction=reconstruction, kl=kl)


def vae() -> dict[str, Any]:
    """Variational autoencoder: posterior ``gaussian``, prior ``standard_normal``, loss ``elbo``."""
    return {"posterior": "gaussian", "prior": "standard_normal", "loss": "elbo"}


def _normal(mean: Tensor, sigma: Tensor, dims: int = 1) -> Distribution:
    return Independent(ShapedNormal(mean, sigma), dims, validate_args=False)
