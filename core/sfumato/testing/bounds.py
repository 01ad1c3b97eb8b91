r"""Comparing draws with probabilities, with a bound on how often sound parts are blamed.

Of :math:`n` independent draws a share :math:`\hat p` falls into an event of probability :math:`p`.
By Chernoff's bound

.. math:: P\bigl(n \, \mathrm{kl}(\hat p, p) \ge t \text{ on one side}\bigr) \le e^{-t},
          \qquad \mathrm{kl}(a, b) = a \log \frac{a}{b} + (1 - a) \log \frac{1 - a}{1 - b},

exactly and for every :math:`n`. With :math:`t = \log(2 J / \alpha)` over :math:`J` events that were
chosen before the draws, a sound part is blamed with a probability of at most :math:`\alpha`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ALPHA = 1e-10
"""Probability of blaming a sound density, in one comparison."""
_LEAST = 1e-12


def surprise(share: Tensor, probability: Tensor, draws: int, slack: Tensor | float = 0.0) -> float:
    """By how much the least likely event exceeds its bound: above 1, the draws do not match.

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


def off_by(values: Tensor, expected: float, largest: Tensor | float) -> float:
    r"""By how much a mean of values in :math:`[0, M]` exceeds its bound: above 1, it does not match.

    The empirical Bernstein bound: with probability :math:`1 - \alpha`,
    :math:`|\bar v - E v| \le \sqrt{2 \hat\sigma^2 l / n} + 7 M l / (3 (n - 1))`,
    :math:`l = \log(4 / \alpha)`.

    References:
        | Empirical Bernstein Bounds and Sample Variance Penalization (Maurer and Pontil, 2009)
        | https://arxiv.org/abs/0907.3740

    Args:
        values: ``(n,)``.
        expected: What their mean should be.
        largest: :math:`M`.
    """
    n, log = len(values), math.log(4 / ALPHA)
    bound = math.sqrt(2 * float(values.var()) * log / n) + 7 * float(largest) * log / (3 * (n - 1))
    return abs(float(values.mean()) - expected) / bound
