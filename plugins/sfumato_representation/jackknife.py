r"""Standard errors by the delete-a-group jackknife.

Items are divided into :math:`G` groups at random. With :math:`\hat\theta_{(g)}` the estimate
without group :math:`g`,

.. math:: \mathrm{se}^2 = \frac{G - 1}{G} \sum_g (\hat\theta_{(g)} - \bar\theta)^2.

References:
    | Introduction to Variance Estimation (Wolter, 2007), chapter 4
    | https://doi.org/10.1007/978-0-387-35099-8
"""

from __future__ import annotations

import numpy as np
import torch

from sfumato import Subject, key, permuted
from sfumato_representation.codes import Array

GROUPS = 20


def groups_of(subject: Subject, n: int, groups: int = GROUPS) -> Array:
    """The group of every item ``(n,)``: a keyed order dealt out to equally many, from 0."""
    order = permuted(torch.arange(n), n, key(subject.seed, "groups of items", groups))
    dealt: Array = order.numpy() % min(groups, n)
    return dealt


def standard_error(without: Array) -> float | None:
    """The standard error from the estimates without each group ``(G,)``; None below two groups."""
    groups = len(without)
    if groups < 2:  # noqa: PLR2004 - one group leaves nothing
        return None
    spread = np.square(without - without.mean()).sum()
    return float(np.sqrt((groups - 1) / groups * spread))
