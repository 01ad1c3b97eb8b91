r"""How much each code tells of each factor, and of how many.

Codes are cut into bins of equal width between their least and their largest value, as by Locatello
et al. (2019). With the joint histogram :math:`n_{bv}` of a code's bin and a factor's value, the
mutual information is that of the histogram,

.. math:: I(z_i; v_j) = \sum_{b, v} \frac{n_{bv}}{n} \log \frac{n_{bv} \, n}{n_b \, n_v}

in nats. It is never below 0, and a little above it for independent codes: by about
:math:`(B - 1)(V - 1) / 2n` with ``B`` bins and ``V`` values. Codes of ``B`` bins tell at most
:math:`\log B`, so a factor of more values than bins is never told altogether.

References:
    | Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations
      (Locatello et al., 2019)
    | https://arxiv.org/abs/1811.12359
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from sfumato import Figure, Subject, keyed_generator
from sfumato_representation.codes import UNIT_INTERVAL, Array, Fields, Measure, Undefined, filled
from sfumato_representation.factors import CUT, Known, known
from sfumato_representation.jackknife import GROUPS, groups_of, standard_error

Bins = Annotated[int, Field(ge=2, le=1000, description="Bins that every code is cut into.")]

_SHUFFLES, _DEVIATIONS, _BY_CHANCE = 20, 5, 0.05
_ERROR = f"error over items, by the jackknife over {GROUPS} groups"
_MIG = (
    "gap between the two codes that tell most of a factor, in mutual information by the factor's "
    "entropy, averaged over the factors that vary; codes in {} bins of equal width; {}; {}"
)
_MODULARITY = (
    "one less the squared mutual information of a code with other factors than its first, by that "
    "of its first and the number of others, averaged over codes that tell more of a factor than "
    "shuffled items do; codes in {} bins of equal width; {}; {}"
)


def mig(*, bins: Bins = 20) -> Measure:
    r"""Mutual information gap: whether every factor has a code of its own.

    .. math:: \frac{1}{F} \sum_j \frac{1}{H(v_j)}
              \Bigl( I(z_{i^\star}; v_j) - \max_{i \neq i^\star} I(z_i; v_j) \Bigr),
              \qquad i^\star = \arg\max_i I(z_i; v_j)

    1 where one code tells a factor and no other code tells of it, 0 where two codes tell of it
    equally: of codes that are rotated or duplicated. A factor of more values than bins cannot
    reach 1. Codes are modes of ``q(z|x)``, as by Locatello et al. (2019), not draws of it.

    References:
        | Isolating Sources of Disentanglement in VAEs (Chen et al., 2018)
        | https://arxiv.org/abs/1802.04942

    Args:
        bins: Bins that every code is cut into.
    """
    definition, source = _MIG.format(bins, CUT, _ERROR), "Chen et al., 2018, arXiv:1802.04942"
    bare = Figure(
        None, "share of a factor's entropy", "higher", definition=definition, source=source
    )

    def measure(subject: Subject) -> dict[str, Figure]:
        return filled({"mig": bare}, lambda: {"mig": _mig(subject, bins)})

    return measure


def _mig(subject: Subject, bins: int) -> Fields:
    found = known(subject)
    found.need_two_codes()
    told, entropies = _told(subject, found, bins)
    second, first = np.moveaxis(np.sort(told, axis=1)[:, -2:], 1, 0)
    gaps = _ratio(first - second, entropies)
    return {
        "value": float(gaps[0].mean()),
        "standard_error": standard_error(gaps[1:].mean(1)),
        "each": tuple(gaps[0].tolist()),
        "warning": _few_items(found, entropies[0], bins),
    }


def modularity(*, bins: Bins = 20) -> Measure:
    r"""Whether every code tells of one factor alone, whatever other codes tell.

    .. math:: \frac{1}{D} \sum_i \biggl( 1 - \frac{1}{F - 1}
              \sum_{j \neq j^\star} \frac{I(z_i; v_j)^2}{I(z_i; v_{j^\star})^2} \biggr),
              \qquad j^\star = \arg\max_j I(z_i; v_j)

    It does not ask that all factors be told, nor that each be told once: duplicated codes are
    modular. A code that tells of nothing is left out, where averages over all codes would call it
    modular, or not, by chance: its information about every factor lies within five deviations of
    that about shuffled items.

    References:
        | Learning Deep Disentangled Embeddings with the F-Statistic Loss (Ridgeway & Mozer, 2018)
        | https://arxiv.org/abs/1802.05312

    Args:
        bins: Bins that every code is cut into.
    """
    definition = _MODULARITY.format(bins, CUT, _ERROR)
    source = "Ridgeway & Mozer, 2018, arXiv:1802.05312"
    bare = Figure(None, UNIT_INTERVAL, "higher", definition=definition, source=source)

    def measure(subject: Subject) -> dict[str, Figure]:
        return filled({"modularity": bare}, lambda: {"modularity": _modularity(subject, bins)})

    return measure


def _modularity(subject: Subject, bins: int) -> Fields:
    found = known(subject)
    found.need_two_factors()
    told, entropies = _told(subject, found, bins)
    telling = (told[0] > _by_chance(subject, found, bins)).any(1)
    if not telling.any():
        msg = "no code tells more of a factor than of shuffled items"
        raise Undefined(msg)
    squared = np.square(told[:, telling])
    first = squared.max(2)
    others = (squared.sum(2) - first) / (squared.shape[2] - 1)
    modular = (1 - _ratio(others, first)).mean(1)
    return {
        "value": float(modular[0]),
        "standard_error": standard_error(modular[1:]),
        "warning": _few_items(found, entropies[0], bins),
    }


def _told(subject: Subject, found: Known, bins: int) -> tuple[Array, Array]:
    """Information ``(1 + G, D, F)`` and entropies ``(1 + G, F)``: of all items, and without each group."""
    made: tuple[Array, Array] = subject.once(
        ("representation", "information", bins), lambda: _leaving_groups_out(subject, found, bins)
    )
    return made


def _leaving_groups_out(subject: Subject, found: Known, bins: int) -> tuple[Array, Array]:
    groups = groups_of(subject, len(found.codes))
    count = groups.max() + 1
    told = np.zeros((1 + count, found.codes.shape[1], found.classes.shape[1]))
    entropies = np.zeros((1 + count, found.classes.shape[1]))
    for i, j, joint in _histograms(binned(found.codes, bins), found.classes, groups):
        together = joint.sum(0)
        counts = np.concatenate([together[None], together - joint])
        told[:, i, j] = mutual_information(counts)
        entropies[:, j] = entropy(counts.sum(1))
    return told, entropies


def _few_items(found: Known, entropies: Array, bins: int) -> str | None:
    """A warning where codes that tell nothing seem to tell much."""
    n, values = len(found.codes), found.classes.max(0) + 1
    share = float(((bins - 1) * (values - 1) / (2 * n * entropies)).mean())
    if share <= _BY_CHANCE:
        return None
    return (
        f"with {n} items in {bins} bins, a code that tells nothing seems to tell {100 * share:.0f} % of "
        "a factor: take more items or fewer bins"
    )


def _by_chance(subject: Subject, found: Known, bins: int) -> Array:
    """What a code may tell of a factor ``(D, F)`` by chance: five deviations over shuffled items."""
    n, (cut, classes) = len(found.codes), (binned(found.codes, bins), found.classes)
    told = np.zeros((_SHUFFLES, cut.shape[1], classes.shape[1]))
    whole = np.zeros(n, np.int64)
    for number in range(_SHUFFLES):
        keyed = keyed_generator("cpu", subject.seed, "modularity by chance", number)
        shuffled = classes[torch.randperm(n, generator=keyed).numpy()]
        for i, j, joint in _histograms(cut, shuffled, whole):
            told[number, i, j] = mutual_information(joint[0])
    limit: Array = told.mean(0) + _DEVIATIONS * told.std(0, ddof=1)
    return limit


def binned(codes: Array, bins: int) -> Array:
    """The bin of every code ``(n, D)``, of equal width from its least value to its largest."""
    low, high = codes.min(0), codes.max(0)
    position = (codes - low) / np.where(high > low, high - low, 1.0)
    cut: Array = np.minimum((position * bins).astype(np.int64), bins - 1)
    return cut


def _histograms(cut: Array, classes: Array, groups: Array) -> Iterator[tuple[int, int, Array]]:
    """Code, factor, and their joint histogram in every group, ``(G, B, V)``."""
    bins, count = cut.max() + 1, groups.max() + 1
    for j, column in enumerate(classes.T):
        values = column.max() + 1
        rest = groups * bins * values + column
        for i, code in enumerate(cut.T):
            joint = np.bincount(rest + code * values, minlength=count * bins * values)
            yield i, j, joint.reshape(count, bins, values)


def mutual_information(counts: Array) -> Array:
    """Of joint histograms ``(..., B, V)``, in nats, ``(...)``."""
    together = counts.reshape(*counts.shape[:-2], -1)
    told = entropy(counts.sum(-1)) + entropy(counts.sum(-2)) - entropy(together)
    # What rounding leaves below 0 is 0.
    above: Array = np.maximum(told, 0.0)
    return above


def entropy(counts: Array) -> Array:
    """Of histograms ``(..., B)``, in nats, ``(...)``."""
    share = counts / counts.sum(-1, keepdims=True)
    made: Array = -(share * np.log(np.where(share > 0, share, 1.0))).sum(-1)
    return made


def _ratio(above: Array, below: Array) -> Array:
    """A quotient, 0 where there is nothing to divide by: a factor that is constant without a group."""
    made: Array = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return made
