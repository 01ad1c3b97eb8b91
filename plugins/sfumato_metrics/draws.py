"""Codes with what a model says of them: one draw of every item's code, and draws of the prior."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from sfumato import Scope, Split, Subject, keyed_generator, keyed_global
from sfumato_metrics.figures import Undefined

_ROWS = 1024
_PURPOSE = "sfumato_metrics.draws"


@dataclass(frozen=True)
class Draws:
    """One draw of the code of each of ``n`` items.

    Args:
        z: ``(n, *Z)``.
        log_q: ``log q(z|x)``, ``(n,)``.
        log_p: ``log p(z)``, ``(n,)``.
        q: ``q(z|x)`` in runs of some items, as far as it has a closed form.
        p: ``p(z)`` for the items of each run.
    """

    z: Tensor
    log_q: Tensor
    log_p: Tensor
    q: tuple[Distribution | None, ...]
    p: tuple[Distribution, ...]


def drawn(subject: Subject, items: int | None = None) -> Draws:
    """One draw of each item's code, of so many items; of all by default.

    Raises:
        Undefined: The codes are points.
    """
    if not subject.model.plan.has_density:
        msg = "codes are points, which have no density"
        raise Undefined(msg)
    split = subject.split
    if items is not None and items < len(split):
        split = split.take(subject.rows("split", items))
    return subject.once((_PURPOSE, len(split)), lambda: _drawn(subject, split))


@torch.no_grad()
def _drawn(subject: Subject, split: Split) -> Draws:
    model, found = subject.model, []
    scope = model.scope(split.x, split.condition, split.mask)
    for first, chunk in scope.chunks(_ROWS):
        with drawing(subject, first):
            # Within the block: a pass computes its terms when they are asked for.
            pass_ = model.run(noisy(chunk, subject, first), 1)
            terms = (pass_.z[0], pass_.log_q[0], pass_.log_p[0])
            found.append((terms, pass_.q_z.dist, pass_.p_z))
    z, log_q, log_p = (torch.cat(column) for column in zip(*(f[0] for f in found), strict=True))
    return Draws(z, log_q, log_p, tuple(f[1] for f in found), tuple(f[2] for f in found))


def noisy(scope: Scope, subject: Subject, first: int) -> Scope:
    """The scope of a run of items with keyed noise for their codes."""
    device, dtype = subject.model.device, subject.model.dtype
    keyed = keyed_generator(device, subject.seed, _PURPOSE, first)

    def noise(shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=keyed, device=device, dtype=dtype)

    return replace(scope, source=noise)


@torch.no_grad()
def prior_codes(subject: Subject, rows: Tensor) -> Tensor:
    """A draw of the prior for each of these items, given its condition if it has one: ``(rows, *Z)``."""
    model, given = subject.model, subject.split.condition
    with drawing(subject, len(rows), purpose="prior"):
        scope = model.scope(None, None if given is None else given[rows], rows=len(rows))
        return model.draw_codes(len(rows), scope)


@torch.no_grad()
def prior_of(subject: Subject) -> Distribution:
    """``p(z)``, for the first item where it depends on the item."""
    model, split = subject.model, subject.split.take(slice(0, 1))
    with drawing(subject, 0):
        scope = model.scope(split.x, split.condition, split.mask)
        return model.run(noisy(scope, subject, 0), 1).p_z


@contextmanager
def drawing(subject: Subject, *steps: int, purpose: str = "items") -> Iterator[None]:
    """Evaluate under torch's global generators, keyed; what they were before comes back afterwards.

    Distributions take no generator of their own.
    """
    model = subject.model
    with (
        model.evaluating(),
        keyed_global(model.device, subject.seed, f"{_PURPOSE}.{purpose}", *steps),
    ):
        yield


def factor(dist: Distribution) -> Distribution | None:
    """The distribution of the single values of a factorised one, batch ``(*batch, *Z)``; else None."""
    while isinstance(dist, Independent):
        dist = dist.base_dist
    return None if dist.event_shape else dist
