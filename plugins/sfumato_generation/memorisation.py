"""Whether generated items are nearer to the training items than new ones are, and how many are copies."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato import DataError, Features, Figure, Incompatible, Subject
from sfumato_generation.compared import (
    Figures,
    Measure,
    Samples,
    as_space,
    compared,
    equal_count,
    features_of,
    reason,
    said,
    splits_agree,
)
from sfumato_generation.distances import nearest

_MEEHAN = (
    "Meehan, Chaudhuri & Dasgupta, 2020, A Non-Parametric Test to Detect Data-Copying in "
    "Generative Models, https://arxiv.org/abs/2004.05675"
)
_YOON = (
    "Yoon et al., 2023, Diffusion Probabilistic Models Generalize when They Fail to Memorize, "
    "https://openreview.net/forum?id=shciCbSk9h"
)
_MEMORISATION = (
    "probability that a generated item is nearer to its nearest training item than a held-out item "
    "is to its own, ties count half: 0.5 without copying, towards 1 if training items are copied, "
    "towards 0 if generated items are far from the data; of {}, and {} training items; the standard "
    "error is DeLong's, over items of both sides for the training items at hand"
)
_COPIES = (
    "share of generated items that are at distance 0 from a training item, or at less than a third "
    "of their distance to the second nearest one; of {}, and {} training items; the floor is this "
    "share of held-out items; the standard error is over generated items"
)
_HALF, _RATIO = 0.5, 1 / 3
_ROUNDING = 1e-5
"""Of the data's spread: features in single precision differ by less where data are equal."""
_CLEARLY = 3


def memorisation(
    *,
    features: Features = "pca",  # type: ignore[assignment]  # core makes the space of that name
    samples: Samples = 10_000,
) -> Measure:
    r"""Whether generated items lie nearer to training items than held-out ones do: ``memorisation_SPACE``.

    With :math:`d(x)` the distance of :math:`x` to the nearest of all training items, generated
    items :math:`y` and held-out ones :math:`x`,

    .. math:: P\bigl(d(y) < d(x)\bigr) + \frac12 P\bigl(d(y) = d(x)\bigr),

    the Mann-Whitney statistic, scaled: 0.5 without copying, 1 if every generated item is a copy, 0
    if all are far from the data. A blurred picture is near to many others, so a number above 0.5
    alone is no proof of copying. ``copies_SPACE`` is more specific: the share of generated items
    that are much nearer to one training item than to the next. Where it is clearly above the share
    of held-out items, by three standard errors, there is a warning: at ``memorisation_SPACE`` if
    that is clearly above 0.5 too, else at ``copies_SPACE``.

    Not defined on the training items themselves.

    References:
        | A Non-Parametric Test to Detect Data-Copying in Generative Models (Meehan, Chaudhuri &
          Dasgupta, 2020)
        | https://arxiv.org/abs/2004.05675
        | Diffusion Probabilistic Models Generalize when They Fail to Memorize (Yoon et al., 2023)
        | https://openreview.net/forum?id=shciCbSk9h
        | Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves
          (DeLong, DeLong & Clarke-Pearson, 1988)
        | https://doi.org/10.2307/2531595

    Args:
        features: The space, of which the figures have the name.
        samples: Most generated and most held-out items; fewer where the split or the training
            items are fewer. All training items are searched.
    """
    space = as_space(features)

    def measure(subject: Subject) -> Figures:
        blank = _blank(subject, space, samples)
        found = _distances(subject, space, samples)
        if isinstance(found, str):
            made = {kind: figure.undefined_because(found) for kind, figure in blank.items()}
        else:
            made = _figures(found, blank)
        return {f"{kind}_{space.name}": figure for kind, figure in made.items()}

    return measure


def _blank(subject: Subject, space: Features, samples: int) -> Figures:
    all_ = "the" if subject.train is None else f"{len(subject.train)}"
    about = said(subject, space, equal_count(subject, samples))
    return {
        "memorisation": Figure(
            None, "probability", None, definition=_MEMORISATION.format(about, all_), source=_MEEHAN
        ),
        "copies": Figure(
            None,
            "share of generated items",
            "lower",
            definition=_COPIES.format(about, all_),
            source=_YOON,
        ),
    }


@dataclass(frozen=True)
class Nearest:
    """Distances to the nearest and the second nearest training item, ``(n, 2)`` each.

    Args:
        generated: Of generated items.
        held_out: Of held-out items.
    """

    generated: Tensor
    held_out: Tensor


def _distances(subject: Subject, space: Features, samples: int) -> Nearest | str:
    if splits_agree(subject):
        return "the items are the training items themselves, so none is held out"
    sides = compared(subject, space, samples, floor=False)
    if isinstance(sides, str):
        return sides
    try:
        training = features_of(subject, space, "train", len(subject.items("train")))
    except (Incompatible, DataError) as error:
        return reason(error)
    origin = training.mean(0)
    training -= origin
    rounding = _ROUNDING * float(training.square().sum(1).mean().sqrt())
    found = (nearest(x - origin, training, 2) for x in (sides.generated, sides.real))
    return Nearest(*(torch.where(d > rounding, d, 0.0) for d in found))


def _figures(found: Nearest, blank: Figures) -> Figures:
    value, error = probability_less(found.generated[:, 0], found.held_out[:, 0])
    copied, usual = are_copies(found.generated), are_copies(found.held_out)
    share, floor = float(copied.mean()), float(usual.mean())
    said = _warning(share, floor, len(copied))
    nearer = value > _HALF + _CLEARLY * error
    if said and nearer:
        said = f"generated items are nearer to training items than new ones are, and {said}"
    return {
        "memorisation": replace(
            blank["memorisation"],
            value=value,
            standard_error=error,
            floor=_HALF,
            warning=said if nearer else None,
        ),
        "copies": Figure.of_items(
            copied,
            blank["copies"].unit,
            blank["copies"].better,
            blank["copies"].definition,
            source=_YOON,
            floor=floor,
            # One warning is enough.
            warning=None if nearer else said,
        ),
    }


def _warning(share: float, usual: float, n: int) -> str | None:
    """What is to be said of a share of copies that is clearly above the usual one, each of ``n`` items."""
    doubt = math.sqrt((share * (1 - share) + usual * (1 - usual)) / n)
    if share <= usual + _CLEARLY * doubt:
        return None
    return (
        f"{share:.1%} of generated items are copies of training items, where {usual:.1%} of held-out "
        "ones would be: look at them beside their nearest training items; more data, a smaller "
        "model or an earlier stop copy less"
    )


def probability_less(one: Tensor, other: Tensor) -> tuple[float, float]:
    """``P(one < other)`` of two samples, ties counted half, with DeLong's standard error.

    Args:
        one: ``(n,)``.
        other: ``(m,)``.
    """
    wins = 1 - _placements(one, other)
    losses = _placements(other, one)
    variance = float(wins.var() / len(one) + losses.var() / len(other))
    return float(wins.mean()), math.sqrt(variance)


def _placements(values: Tensor, among: Tensor) -> Tensor:
    """The share of ``among`` below each value, with half of what equals it."""
    ordered, values = among.sort().values, values.contiguous()
    below = torch.searchsorted(ordered, values, side="left")
    up_to = torch.searchsorted(ordered, values, side="right")
    return (below + up_to).double() / (2 * len(ordered))


def are_copies(distances: Tensor) -> Tensor:
    """1 for an item that is a copy, by its two least distances ``(n, 2)``, else 0."""
    first, second = distances.unbind(1)
    return ((first == 0) | (first < _RATIO * second)).double()
