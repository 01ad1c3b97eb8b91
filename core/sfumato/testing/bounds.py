r"""Comparing draws with probabilities, with a bound on how often sound parts are blamed.

Every demand on a density ends in one of two comparisons: of shares with known probabilities
(:func:`surprise`), or of a mean of bounded values with what it should be (:func:`off_by`). Both
bounds are exact for every number of draws. Events are chosen before the draws that are compared, so
one comparison blames a sound density with a probability of at most :data:`ALPHA`.

What the bounds rest on, and what is not covered:

- *A density that can be asked anywhere* (:func:`~sfumato.testing.weights.check_samples`): they rest
  on nothing else. Mass of a density where none of its samples come near is not seen.
- *A density that is known at its own samples alone*
  (:func:`~sfumato.testing.weights.check_own_weights`): that it has no holes finer than the distance
  between neighbouring samples, for no number of samples tells such a density from one that is too
  high. Constants below about 0.02 nats (0.1 in three dimensions) pass.
- *Likelihoods* (:func:`~sfumato.testing.quadrature.check_line`): that quadrature resolves them.
  Where a fiftieth of the draws lies between two nodes nothing is said; a spike of less mass than
  that, and narrower than the nodes are apart, could be blamed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ALPHA = 1e-10
"""Probability of blaming a sound density, in one comparison."""
_LEAST = 1e-12


def surprise(share: Tensor, probability: Tensor, draws: int, slack: Tensor | float = 0.0) -> float:
    r"""By how much the least likely event exceeds its bound: above 1, the draws do not match.

    Of :math:`n` independent draws a share :math:`\hat p` falls into an event of probability
    :math:`p`. By Chernoff's bound

    .. math:: P\bigl(n \, \mathrm{kl}(\hat p, p) \ge t \text{ on one side}\bigr) \le e^{-t},
              \qquad \mathrm{kl}(a, b) = a \log \frac{a}{b} + (1 - a) \log \frac{1 - a}{1 - b},

    here with :math:`t = \log(2 J / \alpha)` over :math:`J` events.

    Args:
        share: Shares of the draws in each event.
        probability: Their probabilities, in the same shape.
        draws: How many draws.
        slack: How far the probabilities may be off, from quadrature.
    """
    nearest = torch.minimum(torch.maximum(share, probability - slack), probability + slack)
    p = nearest.clamp(_LEAST, 1 - _LEAST)
    q = share.clamp(0, 1)
    kl = torch.special.xlogy(q, q / p) + torch.special.xlogy(1 - q, (1 - q) / (1 - p))
    limit = math.log(2 * max(1, share.numel()) / ALPHA)
    return float((draws * kl).max()) / limit


def off_by(
    values: Tensor, expected: float, width: Tensor | float, slack: Tensor | float = 0.0
) -> Tensor:
    """By how much means of bounded values exceed their bound, ``(J,)``: above 1, one does not match.

    Args:
        values: ``(n, J)``.
        expected: What each mean should be.
        width: How long the interval is that the values lie in.
        slack: How far the expectations may be off.
    """
    far = ((values.mean(0) - expected).abs() - slack).clamp(min=0)
    return far / bernstein(values, width)


def bernstein(values: Tensor, width: Tensor | float) -> Tensor:
    r"""How far the means of values in an interval of width :math:`M` may be off, ``(J,)``.

    The empirical Bernstein bound: with probability :math:`1 - \alpha` for all :math:`J` at once,
    :math:`|\bar v - E v| \le \sqrt{2 \hat\sigma^2 l / n} + 7 M l / (3 (n - 1))`,
    :math:`l = \log(4 J / \alpha)`.

    References:
        | Empirical Bernstein Bounds and Sample Variance Penalization (Maurer and Pontil, 2009)
        | https://arxiv.org/abs/0907.3740
    """
    n, log = len(values), math.log(4 * values[0].numel() / ALPHA)
    return (2 * values.var(0) * log / n).sqrt() + 7 * width * log / (3 * (n - 1))
