"""Precision, recall, density and coverage: whose neighbourhoods items of the other side fall into."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sfumato import Features, Figure, Subject
from sfumato_generation.compared import (
    Compared,
    Figures,
    Measure,
    Samples,
    as_space,
    compared,
    equal_count,
    said,
)
from sfumato_generation.distances import radii, tiles

_KYNKAANNIEMI = (
    "Kynkäänniemi et al., 2019, Improved Precision and Recall Metric for Assessing Generative "
    "Models, https://arxiv.org/abs/1904.06991"
)
_NAEEM = (
    "Naeem et al., 2020, Reliable Fidelity and Diversity Metrics for Generative Models, "
    "https://arxiv.org/abs/2002.09797"
)
_FIGURES = {
    "precision": (
        "share of generated items within the ball of some real item",
        "generated items, for the real ones at hand",
        "share of generated items",
        _KYNKAANNIEMI,
    ),
    "recall": (
        "share of real items within the ball of some generated item",
        "real items, for the generated ones at hand",
        "share of real items",
        _KYNKAANNIEMI,
    ),
    "density": (
        (
            "in how many balls of real items a generated item lies, over k: 1 on average where both "
            "are draws of one distribution"
        ),
        "generated items, for the real ones at hand",
        "balls over k",
        _NAEEM,
    ),
    "coverage": (
        "share of real items whose own ball holds a generated item",
        "real items, for the generated ones at hand",
        "share of real items",
        _NAEEM,
    ),
}


def prdc(
    *,
    features: Features = "pca",  # type: ignore[assignment]  # core makes the space of that name
    samples: Samples = 10_000,
    k: Annotated[int, Field(ge=1)] = 5,
) -> Measure:
    r"""Precision, recall, density and coverage of generated items: ``precision_SPACE`` and so on.

    With the closed ball :math:`B_k(x)` whose radius is the distance of :math:`x` to the
    :math:`k`-th nearest of the other items of its own side, real items :math:`x_i` and as many
    generated items :math:`y_j`,

    .. math::
        \text{precision} &= \frac{1}{n} \sum_j 1[\exists i: y_j \in B_k(x_i)], &
        \text{recall} &= \frac{1}{n} \sum_i 1[\exists j: x_i \in B_k(y_j)], \\
        \text{density} &= \frac{1}{kn} \sum_{i,j} 1[y_j \in B_k(x_i)], &
        \text{coverage} &= \frac{1}{n} \sum_i 1[\exists j: y_j \in B_k(x_i)].

    None of them is 1 where the distributions agree, but density on average; the floor says what
    real data reach. Equal numbers of items are compared, for all of them depend on it. A standard
    error is over the items that are counted, for the balls at hand; with fresh balls too, figures
    spread up to twice as much.

    References:
        | Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et
          al., 2019)
        | https://arxiv.org/abs/1904.06991
        | Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020)
        | https://arxiv.org/abs/2002.09797

    Args:
        features: The space, of which the figures have the name.
        samples: Most items of each side; fewer where the split or the training items are fewer.
        k: The neighbour that a ball reaches to.
    """
    space = as_space(features)

    def measure(subject: Subject) -> Figures:
        n = equal_count(subject, samples)
        blank = _blank(f"{said(subject, space, n)}; balls reach to neighbour {k}")
        sides = compared(subject, space, samples, least=k + 1)
        if isinstance(sides, str):
            made = {kind: figure.undefined_because(sides) for kind, figure in blank.items()}
        else:
            made = _figures(sides, k, blank)
        return {f"{kind}_{space.name}": figure for kind, figure in made.items()}

    return measure


def _blank(which: str) -> Figures:
    return {
        kind: Figure(
            None,
            unit,
            "higher",
            definition=f"{what}, of {which}; the standard error is over {over}",
            source=source,
        )
        for kind, (what, over, unit, source) in _FIGURES.items()
    }


def _figures(sides: Compared, k: int, blank: Figures) -> Figures:
    reach = radii(sides.real - sides.real.mean(0), k)
    each = inside(sides.generated, sides.real, k, reach)
    floor: dict[str, float] = {}
    if sides.training is not None:
        counts = inside(sides.training, sides.real, k, reach)
        floor = {kind: float(values.mean()) for kind, values in counts.items()}
    return {
        kind: Figure.of_items(
            values,
            blank[kind].unit,
            blank[kind].better,
            blank[kind].definition,
            source=blank[kind].source,
            floor=floor.get(kind),
        )
        for kind, values in each.items()
    }


def inside(generated: Tensor, real: Tensor, k: int, reach: Tensor) -> dict[str, Tensor]:
    """One number an item, whose means are the four figures, each ``(n,)``.

    Args:
        generated: ``(n, F)``.
        real: ``(n, F)``.
        k: The neighbour that a ball reaches to.
        reach: Squared radii of the real items' balls, ``(n,)``.
    """
    origin = real.mean(0)
    generated, real = generated - origin, real - origin
    own = radii(generated, k)
    balls = torch.zeros(len(generated), dtype=torch.float64)
    recalled, covered = torch.zeros(2, len(real), dtype=torch.bool)
    for at, tile in tiles(generated, real):
        within = tile <= reach
        balls[at] = within.sum(1).double()
        covered |= within.any(0)
        recalled |= (tile <= own[at, None]).any(0)
    return {
        "precision": (balls > 0).double(),
        "recall": recalled.double(),
        "density": balls / k,
        "coverage": covered.double(),
    }
