"""torch's distributions of tensors that have one shape already.

torch brings arguments into one shape and checks them whenever a distribution is made, and values
whenever they are scored. In a training step that happens three times, and of a small model it takes as
long as a layer. These are the same distributions without that, for parts that know their shapes.
"""

from __future__ import annotations

from typing import Any, final

from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal
from torch.nn.functional import binary_cross_entropy_with_logits


@final
class ShapedNormal(Normal):
    """A normal :class:`torch.distributions.Normal` of a mean and a deviation of one shape.

    Args:
        loc: Mean, of any shape.
        scale: Standard deviation, of that shape.
    """

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = loc, scale
        Distribution.__init__(self, loc.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Normal:
        """The distribution of another shape; torch's own."""
        made: Normal = Normal(self.loc, self.scale, validate_args=False).expand(batch_shape)
        return made


@final
class ShapedBernoulli(Bernoulli):
    """A :class:`torch.distributions.Bernoulli` of logits; values of their shape are scored as they are.

    Args:
        logits: Log-odds of 1, of any shape.
    """

    def __init__(self, logits: Tensor) -> None:
        self.is_scalar = False
        self.logits = self._param = logits
        Distribution.__init__(self, logits.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of values 0 and 1, of their shape and that of the logits."""
        if value.shape != self.logits.shape:
            broadcast: Tensor = super().log_prob(value)  # type: ignore[no-untyped-call]
            return broadcast
        return -binary_cross_entropy_with_logits(self.logits, value, reduction="none")

    def expand(self, batch_shape: Any, _instance: Any = None) -> Bernoulli:
        """The distribution of another shape; torch's own."""
        made: Bernoulli = Bernoulli(logits=self.logits, validate_args=False).expand(batch_shape)
        return made
