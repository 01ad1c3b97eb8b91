r"""Standard errors of what is no mean over items, by deleting groups of them.

.. math::
    \hat{s}^2 = \frac{G - 1}{G} \sum_{g=1}^{G} \bigl(\hat\theta_{(g)} - \bar\theta\bigr)^2

with :math:`\hat\theta_{(g)}` computed without group :math:`g`: of generated and real items alike,
so that two sides that depend on each other, as by their conditions, are treated as such.

References:
    | The Jackknife and Bootstrap (Shao & Tu, 1995), section 2.3
    | https://doi.org/10.1007/978-1-4612-0795-5
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

GROUPS = 20
_LEAST = 3
SAID = "the standard error is over items of both sides, by the delete-a-group jackknife"


def groups(n: int) -> list[slice]:
    """The rows of ``n`` items in 20 runs, which differ by one item at most; few items are deleted singly.

    Rows are in a random order already. Of fewer than three items none can be spared.
    """
    if n < _LEAST:
        return []
    count = GROUPS if n >= 2 * GROUPS else n
    edges = [n * g // count for g in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def standard_error(left_out: Sequence[float]) -> float | None:
    """The standard error of a statistic from its values without each group."""
    if not left_out:
        return None
    values = torch.tensor(left_out, dtype=torch.float64)
    count = len(values)
    return math.sqrt((count - 1) / count * float((values - values.mean()).square().sum()))
