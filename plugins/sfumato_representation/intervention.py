r"""Whether a factor that is held still is seen in one code that stands still.

References:
    | Disentangling by Factorising (Kim & Mnih, 2018)
    | https://arxiv.org/abs/1802.05983
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from sfumato import Figure, Subject, keyed_generator
from sfumato_representation.codes import Array, Fields, Measure, Undefined, filled, standardised
from sfumato_representation.factors import CUT, known

_VALUES_AT_ONCE, _RESAMPLED = 1 << 22, 20
_DEFINITION = (
    "how often the code that varies least over {} items that share one factor's value tells which "
    "factor that is, by majority vote; by chance, one in as many as there are factors; codes of whose "
    "variance q(z|x) alone makes over {:g} left out; {}; error over items and {} votes, by the bootstrap"
)


def factor_vae(
    *,
    batch: Annotated[
        int, Field(ge=2, le=10_000, examples=[2, 100], description="Items of a vote.")
    ] = 64,
    votes: Annotated[
        int, Field(ge=10, le=1_000_000, description="Votes that are counted.")
    ] = 5000,
    least: Annotated[float, Field(ge=0, lt=1, description="Least share that varies.")] = 0.05,
) -> Measure:
    r"""The FactorVAE score: accuracy of telling the factor from the code that varies least.

    A vote takes a factor, an item, and a batch of items that share the item's value of the factor.
    It is for the code

    .. math:: d = \arg\min_i \; \mathrm{Var}_\text{batch}(z_i) \,/\, \mathrm{Var}(z_i).

    The factor that most votes for each code came from is learned from as many votes again. Items
    are those of the split: values are held still as often as they occur, and no new data are made.

    A collapsed code has noise alone in it: its mode varies over items by less than a share
    ``least`` of the variance of draws of ``q(z|x)``. This is a ratio, so that the score does not
    depend on the scale of any code; of points it is 1.

    References:
        | Disentangling by Factorising (Kim & Mnih, 2018)
        | https://arxiv.org/abs/1802.05983

    Args:
        batch: Items of a vote, drawn with replacement.
        votes: Votes that are counted.
        least: Share of a code's variance that its mode has; codes with less are left out.
    """
    definition = _DEFINITION.format(batch, 1 - least, CUT, votes)
    source = "Kim & Mnih, 2018, arXiv:1802.05983"
    bare = Figure(None, "share of votes", "higher", definition=definition, source=source)

    def measure(subject: Subject) -> dict[str, Figure]:
        return filled(
            {"factor_vae": bare}, lambda: {"factor_vae": _score(subject, batch, votes, least)}
        )

    return measure


def _score(subject: Subject, batch: int, votes: int, least: float) -> Fields:
    found = known(subject)
    found.need_two_factors()
    used = _in_use(subject, found.codes, least)
    if not used.any():
        msg = f"no code has {least:g} of its variance from its mode: all are collapsed"
        raise Undefined(msg)
    codes, n = standardised(found.codes)[:, used], len(found.codes)
    value = _accuracy(subject, codes, found.classes, batch, votes, 0)
    fewer, again = max(10, votes // 5), []
    for number in range(1, 1 + _RESAMPLED):
        keyed = keyed_generator("cpu", subject.seed, "factor_vae: items", number)
        rows = torch.randint(n, (n,), generator=keyed).numpy()
        again.append(_accuracy(subject, codes[rows], found.classes[rows], batch, fewer, number))
    # What resampled accuracies vary by is items, and the few votes of each.
    binomial = value * (1 - value)
    over_items = max(float(np.var(again, ddof=1)) - binomial / fewer, 0.0)
    return {"value": value, "standard_error": math.sqrt(over_items + binomial / votes)}


def _in_use(subject: Subject, modes: Array, least: float) -> Array:
    """Which codes vary over items, rather than by their own noise, ``(D,)``."""
    drawn = subject.drawn().reshape(modes.shape).double().cpu().numpy()
    used: Array = (modes.max(0) > modes.min(0)) & (least * standardised(drawn, modes).var(0) <= 1)
    return used


def _accuracy(
    subject: Subject, codes: Array, classes: Array, batch: int, votes: int, resampled: int
) -> float:
    """Share of votes whose factor is the one that most other votes for their code came from."""
    learned, counted = (
        _votes(codes, classes, batch, votes, keyed_generator("cpu", subject.seed, what, resampled))
        for what in ("factor_vae: votes to learn from", "factor_vae: votes")
    )
    table = np.zeros((codes.shape[1], classes.shape[1]), np.int64)
    np.add.at(table, learned, 1)
    # A code that no vote was seen for tells nothing.
    told = np.where(table.any(1), table.argmax(1), -1)
    return float((told[counted[0]] == counted[1]).mean())


def _votes(
    codes: Array, classes: Array, batch: int, votes: int, keyed: torch.Generator
) -> tuple[Array, Array]:
    """The code that varies least in every vote, and the factor that was held still, each ``(votes,)``."""
    held = torch.randint(classes.shape[1], (votes,), generator=keyed).numpy()
    items = torch.randint(len(codes), (votes,), generator=keyed).numpy()
    least = np.empty(votes, np.int64)
    step = max(1, _VALUES_AT_ONCE // (batch * codes.shape[1]))
    for j, column in enumerate(classes.T):
        sharing = np.argsort(column, kind="stable")
        count = np.bincount(column)
        first = np.cumsum(count) - count
        asked = np.flatnonzero(held == j)
        for start in range(0, len(asked), step):
            at = asked[start : start + step]
            value = column[items[at]]
            share = torch.rand(len(at), batch, generator=keyed, dtype=torch.float64).numpy()
            rows = sharing[first[value][:, None] + (share * count[value][:, None]).astype(int)]
            least[at] = codes[rows].var(1).argmin(1)
    return least, held
