r"""The β-VAE: a weight on the divergence, its warm-up, and the capacity schedule of Burgess et al.

References:
    | beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins et
      al., 2017)
    | https://openreview.net/forum?id=Sy2fzU9gl
    | Understanding disentangling in beta-VAE (Burgess et al., 2018)
    | https://arxiv.org/abs/1804.03599
"""

from __future__ import annotations

from typing import Annotated, Any, final

import torch
from pydantic import Field
from torch import Tensor

from sfumato import Context, Incompatible, Loss, LossOut, Pass

Weight = Annotated[float, Field(ge=0, description="Weight of the divergence; 1 gives the ELBO.")]
_COUNTABLE = 2**53  # Steps are counted in floating-point numbers.
WarmUp = Annotated[
    int, Field(ge=0, lt=_COUNTABLE, description="Steps over which the weight rises from 0.")
]
Capacity = Annotated[
    float | None, Field(ge=0, description="Divergence to aim at after the schedule, in nats.")
]
CapacitySteps = Annotated[
    int | None, Field(ge=1, lt=_COUNTABLE, description="Steps over which the capacity rises.")
]
# Resolved specs say null where they mean this, so it cannot change within format 1.
DEFAULT_CAPACITY_STEPS = 10_000


@final
class BetaElbo(Loss):
    r"""Negative evidence lower bound with a weight on its divergence.

    .. math::
        -\log p_\theta(x \mid z) + \beta_t \, \mathrm{KL}(q_\phi(z \mid x) \,\|\, p(z)),
        \qquad z \sim q_\phi(z \mid x)

    with :math:`\beta_t = \beta \min(1, t / \text{warm\_up})` at step :math:`t`; or, with a
    capacity,

    .. math::
        -\log p_\theta(x \mid z)
          + \beta \, \bigl|\mathrm{KL}(q_\phi(z \mid x) \,\|\, p(z)) - C_t\bigr|,
        \qquad C_t = C \min(1, t / \text{capacity\_steps})

    for each item, as equation 8 of Burgess et al. writes it. At :math:`\beta = 1`, warmed up and
    without a capacity, its expectation bounds :math:`-\log p_\theta(x)` from above. Terms are in
    nats per item; the reported ``kl`` carries no weight.

    References:
        | beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework
          (Higgins et al., 2017)
        | https://openreview.net/forum?id=Sy2fzU9gl
        | Understanding disentangling in beta-VAE (Burgess et al., 2018)
        | https://arxiv.org/abs/1804.03599

    Args:
        beta: Weight :math:`\beta` of the divergence; 1 gives the ELBO.
        warm_up: Steps over which the weight rises linearly from 0; 0 starts at :math:`\beta`.
        capacity: Divergence :math:`C` to aim at, in nats; None penalises all of it.
        capacity_steps: Steps over which the capacity rises linearly from 0; None: 10,000. Of no
            use without a capacity, and refused.

    Shape:
        every term ``(B,)``, core averages.
    """

    beta: Tensor
    capacity: Tensor

    def __init__(
        self,
        context: Context,  # noqa: ARG002 - every part is offered it
        *,
        beta: Weight = 4.0,
        warm_up: WarmUp = 0,
        capacity: Capacity = None,
        capacity_steps: CapacitySteps = None,
    ) -> None:
        super().__init__()
        if warm_up and capacity is not None:
            msg = "warm_up and capacity are both given, and both schedule the same weight"
            raise Incompatible(msg, hint='set "warm_up": 0 or "capacity": null')
        if capacity_steps is not None and capacity is None:
            msg = "capacity_steps is given without a capacity, so it would change nothing"
            raise Incompatible(msg, hint='give a "capacity", or set "capacity_steps": null')
        # Buffers, not floats: a stacked sweep and a CUDA graph would freeze a Python number.
        # In full precision, for core casts them to the model's: a float32 0.1 is not 0.1 in float64.
        weight = torch.tensor(beta, dtype=torch.float64)
        aim = torch.tensor(capacity or 0.0, dtype=torch.float64)
        self.register_buffer("beta", weight, persistent=False)
        self.register_buffer("capacity", aim, persistent=False)
        self.has_capacity = capacity is not None
        self.warm_up = warm_up
        self.capacity_steps = capacity_steps or DEFAULT_CAPACITY_STEPS
        self.schedule_steps = self.capacity_steps if self.has_capacity else warm_up

    def forward(self, pass_: Pass) -> LossOut:
        """The objective of one pass."""
        # The closed-form KL is preferred to a sampled one: it adds no gradient noise.
        reconstruction, kl = pass_.reconstruction(), pass_.kl()
        step = pass_.scope.step.to(self.beta.dtype)
        weight, excess = self.beta, kl
        if self.warm_up:
            weight = weight * (step / self.warm_up).clamp(max=1)
        if self.has_capacity:
            excess = (kl - self.capacity * (step / self.capacity_steps).clamp(max=1)).abs()
        return LossOut(reconstruction + weight * excess, reconstruction=reconstruction, kl=kl)


def beta_vae(
    *,
    beta: Weight = 4.0,
    warm_up: WarmUp = 0,
    capacity: Capacity = None,
    capacity_steps: CapacitySteps = None,
) -> dict[str, Any]:
    """β-VAE: a variational autoencoder with loss ``beta_elbo``.

    Args:
        beta: Weight of the divergence; 1 gives the ELBO.
        warm_up: Steps over which the weight rises linearly from 0.
        capacity: Divergence to aim at, in nats; None penalises all of it.
        capacity_steps: Steps over which the capacity rises linearly from 0; None: 10,000.
    """
    loss = {
        "type": "beta_elbo",
        "beta": beta,
        "warm_up": warm_up,
        "capacity": capacity,
        "capacity_steps": capacity_steps,
    }
    return {"posterior": "gaussian", "prior": "standard_normal", "loss": loss}
