"""Estimates of densities under a model: the terms of the ELBO, and importance weights.

Every item has its own keyed noise, so an estimate does not depend on how items are grouped. Parts
that draw from torch's global generator instead depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from sfumato.passes import Pass
from sfumato.randomness import ItemNoise, keyed_global

if TYPE_CHECKING:
    from sfumato.interfaces import Code, Scope
    from sfumato.model import Model


class Scopes(Protocol):
    """Items in runs of some: a :class:`Scope` of them all, or what makes scopes of items in files."""

    def chunks(self, rows: int) -> Iterator[tuple[int, Scope]]:
        """Scopes of so many items, each with the index of its first."""
        ...


ROWS = 1024
BLOCK = 50
"""Samples of an item that are drawn together: part of its keyed stream, so never a matter of memory."""


def terms(model: Model, scope: Scopes, samples: int, seed: int) -> dict[str, Tensor]:
    """``reconstruction`` and, where they are defined, ``kl`` and ``elbo``, each ``(B,)`` nats."""
    found: list[dict[str, Tensor]] = []
    for first, chunk in scope.chunks(max(1, ROWS // samples)):
        with keyed_global(model.device, seed, "elbo", first):
            pass_ = _pass(model, chunk, samples, seed, "elbo", first)
            made = {"reconstruction": -pass_.log_px.mean(0)}
            if pass_.has_density:
                made["kl"] = pass_.kl()
                made["elbo"] = -made["reconstruction"] - made["kl"]
        found.append(made)
    return {name: torch.cat([made[name] for made in found]) for name in found[0]}


def importance(
    model: Model, scope: Scopes, samples: int, rows: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Importance-weighted estimates of the log-evidence, ``(B,)`` nats, ``rows`` decoded at once.

    With them the effective sample size of each item's weights, ``(B,)``, from 1 to ``samples``.
    """
    block = min(samples, BLOCK)
    chunks = scope.chunks(max(1, rows // block))
    found = [_weighed(model, chunk, samples, block, seed, first) for first, chunk in chunks]
    log_px, effective = (torch.cat(column) for column in zip(*found, strict=True))
    return log_px, effective


def _weighed(
    model: Model, scope: Scope, samples: int, block: int, seed: int, first: int
) -> tuple[Tensor, Tensor]:
    """Streaming sums of weights and of their squares over blocks of samples, each with keyed noise.

    Codes are inferred once, and the data repeated once; a block draws from them and decodes.
    """
    # Exponents of large data have few digits to spare; MPS has no double precision.
    dtype = model.dtype if model.device.type == "mps" else torch.float64
    total = squares = torch.full((), -math.inf, device=model.device, dtype=dtype)
    # Inferring has a block of its own: what it draws is not drawn again for the codes.
    noise = ItemNoise(model.device, model.dtype, seed, "log_prob", first, block=-1)
    scope = model.inferring(replace(scope, source=noise))
    with keyed_global(model.device, seed, "log_prob", first, 0):
        q_z = model.infer(scope)
    rows: Scope | None = None
    for number, start in enumerate(range(0, samples, block)):
        k = min(block, samples - start)
        noise.begin(number)
        rows = scope.repeat(k) if rows is None or k < block else rows
        with keyed_global(model.device, seed, "log_prob", first, number):
            pass_ = model.passed(q_z, scope, k, rows)
            log_weights = (pass_.log_px + pass_.log_p - pass_.log_q).to(dtype)
        total = torch.logaddexp(total, log_weights.logsumexp(0))
        squares = torch.logaddexp(squares, (2 * log_weights).logsumexp(0))
    log_px = (total - math.log(samples)).to(model.dtype)
    return log_px, (2 * total - squares).exp().clamp(1, samples)


def codes(model: Model, scope: Scopes, seed: int) -> list[Code]:
    """``q(z|x)`` of every item, in runs of :data:`ROWS`; draws have keyed noise of each item's own."""
    found = []
    for first, chunk in scope.chunks(ROWS):
        noise = ItemNoise(model.device, model.dtype, seed, "codes", first)
        found.append(model.infer(replace(chunk, source=noise)))
    return found


def _pass(
    model: Model,
    scope: Scope,
    samples: int,
    seed: int,
    purpose: str,
    first: int,
) -> Pass:
    noise = ItemNoise(model.device, model.dtype, seed, purpose, first)
    return model.run(replace(scope, source=noise), samples)
