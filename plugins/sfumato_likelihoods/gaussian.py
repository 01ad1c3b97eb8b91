"""The normal likelihood and the four ways to choose its scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal, final

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Normal

from sfumato import Context, Incompatible, Likelihood, Scope, ShapedNormal

Positive = Annotated[float, Field(gt=0)]
Scale = Literal["learned", "learned_per_dimension", "optimal"]
# Resolved specs say null where they mean this, so it cannot change within format 1.
DEFAULT_SIGMA_MIN = 1e-3
_AT_MINIMUM = 1.05
# Adam moves a parameter by about its learning rate a step, whatever the gradient. At 1e-3 a bare
# log-scale would need thousands of steps to follow the residuals, and a model whose scale lags
# behind them collapses.
_GAIN = 10.0
# Of more data a learned scale need not start at the residual of all.
_ENOUGH = 65_536


@final
class GaussianLikelihood(Likelihood):
    r"""Creates independent normals; the decoder gives their means.

    .. math:: \log p(x \mid \theta) = -\frac12 \sum_i \left[
                \frac{(x_i - \theta_i)^2}{\sigma_i^2} + \log(2 \pi \sigma_i^2) \right]

    The scale :math:`\sigma` is one of

    * a number: fixed;
    * ``"learned"``: one parameter, :math:`\sigma = \sigma_{\min} e^{\mathrm{softplus}(10 r)}`,
      which starts at the root mean squared residual of the untrained model;
    * ``"learned_per_dimension"``: likewise, one parameter a value of the datum;
    * ``"optimal"``: :math:`\sigma^2` = the mean squared residual over the training set, in closed
      form before the first epoch and after each one, a buffer that is frozen in between (Rybkin et
      al., 2021).

    A value that never changes would buy unbounded density, so :math:`\sigma \ge \sigma_{\min}`,
    and a scale within 5 % of that bound is reported.

    References:
        | Simple and Effective VAE Training with Calibrated Decoders (Rybkin et al., 2021)
        | https://arxiv.org/abs/2006.13202

    Args:
        sigma: The scale, or how it is found.
        sigma_min: Least scale :math:`\sigma_{\min}` of one that is found, in units of the data;
            None: 0.001. Of no use beside a fixed scale, and refused.

    Shape:
        ``(N, *X) -> `` batch ``(N, *X)``.
    """

    def __init__(
        self,
        context: Context,
        *,
        sigma: Positive | Scale = "learned",
        sigma_min: Positive | None = None,
    ) -> None:
        super().__init__()
        self.how = sigma if isinstance(sigma, str) else "fixed"
        if self.how == "fixed" and sigma_min is not None:
            msg = "sigma_min is given beside a fixed sigma, so it would change nothing"
            raise Incompatible(msg, hint='set "sigma_min": null, or "sigma": "learned"')
        least = DEFAULT_SIGMA_MIN if sigma_min is None else sigma_min
        self.sigma_min = 0.0 if self.how == "fixed" else least
        # sigma = 1 until the residuals of the untrained model are known: see fit.
        start = _inverse_softplus(max(-math.log(least), 1e-3))
        if self.how in ("learned", "learned_per_dimension"):
            shape = () if self.how == "learned" else context.data_shape
            self.raw = nn.Parameter(torch.full(shape, start / _GAIN))
        else:
            value = 1.0 if isinstance(sigma, str) else sigma
            # In full precision, for core casts it to the model's: a float32 0.3 is not 0.3 in float64.
            scale = torch.tensor(value, dtype=torch.float64)
            # Fitted scales are state; a fixed one stands in the spec.
            self.register_buffer("fixed_sigma", scale, persistent=self.how == "optimal")

    fixed_sigma: Tensor

    @property
    def sigma(self) -> Tensor:
        """The scale, ``()`` or ``X``."""
        if self.how in ("learned", "learned_per_dimension"):
            return self.sigma_min * F.softplus(_GAIN * self.raw).exp()
        return self.fixed_sigma

    def forward(self, parameters: Tensor, scope: Scope) -> Normal:
        """Make the distribution of means ``(N, *X)``."""
        del scope
        sigma = self.sigma.to(parameters.dtype).expand_as(parameters)
        return ShapedNormal(parameters, sigma)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor, Tensor | None]], epoch: int) -> None:
        r"""Set the scale to the root of the mean squared residual over ``(means, x, mask)``.

        An optimal scale after every epoch; a learned one before the first, where it starts, from the
        first 65,536 items.
        """
        if self.how == "fixed" or (epoch > 0 and self.how != "optimal"):
            return
        total = torch.zeros((), dtype=torch.float64)
        count = torch.zeros((), dtype=torch.float64)
        seen = 0
        for means, x, mask in batches:
            seen += len(x)
            squared = (x - means).square()
            if mask is not None:
                squared = squared * mask
            total += squared.sum().cpu().double()
            count += squared.numel() if mask is None else mask.sum().cpu().double()
            if self.how != "optimal" and seen >= _ENOUGH:
                break
        sigma = float((total / count.clamp(min=1)).sqrt().clamp(min=self.sigma_min))
        if self.how == "optimal":
            self.fixed_sigma.fill_(sigma)
        else:
            # The inverse of what `sigma` computes, kept off the flat end of the softplus.
            above = max(math.log(sigma / self.sigma_min), 1e-2)
            self.raw.data.fill_(_inverse_softplus(above) / _GAIN)

    def report(self) -> dict[str, Tensor]:
        """``sigma``: the scale, its mean over values where there are several."""
        return {"sigma": self.sigma.detach().mean()}

    def warnings(self) -> list[str]:
        """A sentence if the least scale binds."""
        if self.how == "fixed":
            return []
        low = int((self.sigma.detach() < _AT_MINIMUM * self.sigma_min).sum())
        if not low:
            return []
        said = (
            f"sigma is at its minimum {self.sigma_min:g} in {low} of {self.sigma.numel()} scales: "
            "the density is as high as this bound lets it be, so it says little about the model"
        )
        return [said]


def _inverse_softplus(value: float) -> float:
    """The number whose softplus is ``value``, without the exponential of a large one."""
    return value + math.log(-math.expm1(-value))
