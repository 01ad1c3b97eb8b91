"""The Bernoulli likelihood."""

from __future__ import annotations

from typing import final

from torch import Tensor
from torch.distributions import Bernoulli

from sfumato import Context, Incompatible, Likelihood, Scope, ShapedBernoulli


@final
class BernoulliLikelihood(Likelihood):
    r"""Creates independent coin tosses; the decoder gives their logits.

    .. math:: \log p(x \mid \theta) = \sum_i x_i \log s(\theta_i) + (1 - x_i) \log s(-\theta_i),
              \qquad s(\theta) = 1 / (1 + e^{-\theta})

    A density for values 0 and 1 alone. On grey values the same formula is no density (it does not
    sum to one; see Loaiza-Ganem and Cunningham, 2019), so such data are refused: binarize them.

    References:
        | The continuous Bernoulli (Loaiza-Ganem and Cunningham, 2019)
        | https://arxiv.org/abs/1907.06845

    Shape:
        ``(N, *X) -> `` batch ``(N, *X)``.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        if context.support == "token":
            msg = "tokens are no coin tosses"
            raise Incompatible(msg, hint="use a likelihood of symbols")

    def forward(self, parameters: Tensor, scope: Scope) -> Bernoulli:
        """Make the distribution of logits ``(N, *X)``."""
        del scope
        return ShapedBernoulli(parameters)
