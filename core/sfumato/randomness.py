"""Where every random number comes from.

A random choice has a key ``(seed, purpose, step)``; its stream is a function of the key alone. So
a run depends neither on what was drawn before nor on how its work is scheduled, and to resume it
needs no saved generator state. Streams differ between kinds of device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from sfumato.errors import Incompatible

_ROUNDS = 6


def key(seed: int, purpose: str, *steps: int) -> int:
    """A 63-bit number that stands for ``(seed, purpose, *steps)``."""
    text = "/".join([str(seed), purpose, *map(str, steps)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def fresh_seed() -> int:
    """A seed from torch's global generator, so that ``torch.manual_seed`` governs what has no seed."""
    return int(torch.randint(2**62, ()).item())


def keyed_generator(
    device: torch.device | str, seed: int, purpose: str, *steps: int
) -> torch.Generator:
    """A generator at the start of the stream of its key."""
    return torch.Generator(device=device).manual_seed(key(seed, purpose, *steps))


@contextmanager
def keyed_global(device: torch.device, seed: int, purpose: str, *steps: int) -> Iterator[None]:
    """Run a block under torch's global generators, keyed; what they were before comes back afterwards.

    For what cannot take its noise from outside: initial weights, dropout, ``Distribution.sample``.
    """
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerators):
        seed_global(device, seed, purpose, *steps)
        yield


def permuted(positions: Tensor, count: int, order_key: int) -> Tensor:
    r"""Where a keyed permutation of ``range(count)`` sends ``positions``, without a table.

    A Feistel network over the next even power of two, walked until it falls below ``count``
    (cycle walking; Black and Rogaway, 2002).

    Args:
        positions: ``(B,)`` int64, each in ``[0, count)``.
        count: How many items are permuted.
        order_key: A key from :func:`key`.

    Returns:
        ``(B,)`` int64, on the device of ``positions``.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    round_keys = [key(order_key, "round", r) & 0xFFFFFFFF for r in range(_ROUNDS)]

    def network(values: Tensor) -> Tensor:
        left, right = values >> half, values & mask
        for round_key in round_keys:
            left, right = right, left ^ (_mix(right, round_key) & mask)
        return (left << half) | right

    values = network(positions)
    while len(outside := (values >= count).nonzero()):
        values[outside] = network(values[outside])
    return values


def _mix(values: Tensor, round_key: int) -> Tensor:
    """A 32-bit integer hash (the finaliser of MurmurHash3) of ``values ^ round_key``."""
    h = (values ^ round_key) & 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return h ^ (h >> 16)


class Noise(Protocol):
    """A source of standard normal noise for one pass through a model."""

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Draw noise of ``shape`` ``(K, B, ...)``: samples first, then the rows of the batch."""
        ...


class BatchNoise:
    """Noise of one training step: drawn for the whole logical batch, then cut to the rows at hand.

    Args:
        device: Where the noise is drawn.
        dtype: Its floating type.
        seed: Seed of the run.
        purpose: What it is for.
        step: Step of the run.
        rows: The rows of the logical batch that this pass holds; all of them by default.
        total: How many rows the logical batch has; what is asked for by default.
        generator: One of the device to use, whatever its state; a new one by default.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
        purpose: str,
        step: int,
        *,
        rows: slice = slice(None),
        total: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        made = torch.Generator(device) if generator is None else generator
        self._generator = made.manual_seed(key(seed, purpose, step))
        self._dtype, self._rows, self._total = dtype, rows, total

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Draw noise of ``shape`` ``(K, B, ...)``."""
        k, b, *event = shape
        part = None if self._total is None else len(range(*self._rows.indices(self._total)))
        divided = part is not None and part != self._total
        if divided and b != part:
            msg = f"noise is asked for {b} rows in a part of {part} rows of a batch"
            raise Incompatible(
                msg, hint="ask for noise of the rows at hand, or leave accumulate out"
            )
        drawn = torch.randn(
            (k, self._total if divided and self._total else b, *event),
            generator=self._generator,
            device=self._generator.device,
            dtype=self._dtype,
        )
        return drawn[:, self._rows] if divided else drawn


class ItemNoise:
    """Noise of an evaluation: each item has its own stream, so figures do not depend on the batch size.

    Args:
        device: Where the noise is drawn.
        dtype: Its floating type.
        seed: Seed of the evaluation.
        purpose: What it is for.
        first: Index of the first item at hand.
        block: Which block of samples of these items is drawn.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
        purpose: str,
        first: int,
        *,
        block: int = 0,
    ) -> None:
        self._generator = torch.Generator(device=device)
        self._dtype, self._first, self._seed, self._purpose = dtype, first, seed, purpose
        self.begin(block)

    def begin(self, block: int) -> None:
        """Go to the start of a block of samples."""
        self._key, self._draws = key(self._seed, self._purpose, block), 0

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Draw noise of ``shape`` ``(K, B, ...)``."""
        k, b, *event = shape
        rows = []
        for item in range(self._first, self._first + b):
            self._generator.manual_seed(key(self._key, "item", item, self._draws))
            rows.append(
                torch.randn(
                    (k, *event),
                    generator=self._generator,
                    device=self._generator.device,
                    dtype=self._dtype,
                )
            )
        self._draws += 1
        return torch.stack(rows, 1)


def seed_global(device: torch.device, seed: int, purpose: str, *steps: int) -> None:
    """Key torch's global generators of the CPU and ``device``, for a loop inside :func:`keyed_global`."""
    number = key(seed, purpose, *steps)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.default_generators[device.index or 0].manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)
