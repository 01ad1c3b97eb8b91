r"""From densities of what a model sees to densities of raw values.

A model sees :math:`x = a \cdot \mathrm{raw} + b`, so :math:`p(\mathrm{raw}) = |a| \, p(x)`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato import Contract, Split, Subject
from sfumato_metrics.figures import Undefined

CONTINUOUS = ("unit", "real")
_LOOKED_AT = 20_000
_ROWS, _PLACES = 4_000, 5
_REPEATED = 0.1


def bits_of(nats: Tensor, subject: Subject) -> Tensor:
    """Negative log-densities ``(n,)`` in nats, as bits per raw value of each item that has one.

    Raises:
        Undefined: No item has a value, or a scale is 0.
    """
    contract, mask = subject.model.contract, subject.split.mask
    counts = torch.ones(len(nats), math.prod(contract.shape), dtype=torch.float64)
    if mask is not None:
        counts = mask.flatten(1).bool().to(counts)
    log_scale = log_scales(contract)
    if not bool(log_scale.isfinite().all()):
        msg = "a value of the data is scaled by 0, so raw values have no density"
        raise Undefined(msg)
    values = counts.sum(1)
    some = values > 0
    if not bool(some.any()):
        msg = "no item has a value that is not missing"
        raise Undefined(msg)
    raw = nats.double().cpu() - counts @ log_scale
    return raw[some] / (values[some] * math.log(2))


def log_scales(contract: Contract) -> Tensor:
    """``log |a|`` of every value of a datum, ``(D,)``; 0 where values are not continuous."""
    size = math.prod(contract.shape)
    if contract.support not in CONTINUOUS:
        return torch.zeros(size, dtype=torch.float64)
    scale = torch.tensor(contract.scale, dtype=torch.float64).expand(size)
    return (scale * contract.raw_scale).abs().log()


def warn_of_levels(subject: Subject) -> str | None:
    """A sentence if values that a density is asked for are few levels, such as the bytes of pixels.

    A density has no bound at values that come back exactly (Theis et al., 2016).
    """
    if subject.model.contract.support not in CONTINUOUS:
        return None
    values = _some_values(subject.split, subject.model.contract)
    seen, levels = len(values), len(values.unique())
    if not 0 < levels <= _REPEATED * seen:
        return None
    return (
        f"{seen:,} of the values take only {levels:,} levels, and a density can grow without bound "
        "at levels: compare it among models of these very data alone, and not with the bits of "
        "discrete models. For a bound on those, add uniform noise of one level's width to the raw "
        "values before they are stored"
    )


def _some_values(split: Split, contract: Contract) -> Tensor:
    """Some values that are not missing, of few places where every place has a scale of its own."""
    size = math.prod(contract.shape)
    apart = not isinstance(contract.scale, float)
    rows, places = (_ROWS, _PLACES) if apart else (-(-_LOOKED_AT // size), size)
    at = torch.linspace(0, size - 1, min(places, size)).long()
    x, mask = split.x[:rows].flatten(1)[:, at], split.mask
    values = x.flatten() if mask is None else x[mask[:rows].flatten(1)[:, at].bool()]
    return values[:_LOOKED_AT]
