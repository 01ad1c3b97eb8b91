"""Figures: single numbers, and the same number over several trainings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from sfumato.intervals import Interval

Json = dict[str, Any]
Better = Literal["lower", "higher"] | None


@dataclass(frozen=True)
class Figure:
    """One number of an evaluation.

    Args:
        value: The number; None where it is not defined.
        unit: Its unit, such as ``nats per item``.
        better: Which direction is better, or None.
        standard_error: How far the number may be from that of endlessly many items: the standard
            error over items, or as the definition says.
        undefined: Why there is no value.
        definition: What the number is, in a sentence.
        source: Where it is defined: a paper or a book.
        floor: What real data reach where generated ones are measured: as many training items in
            their place.
        each: The numbers that it is made of, such as one a latent dimension.
        warning: What it warns of, with advice.
    """

    value: float | None
    unit: str
    better: Better = None
    standard_error: float | None = None
    undefined: str | None = None
    definition: str = ""
    source: str = ""
    floor: float | None = None
    each: tuple[float, ...] = ()
    warning: str | None = None

    @classmethod
    def of_items(
        cls, values: Tensor, unit: str, better: Better, definition: str, **more: Any
    ) -> Figure:
        """The mean of one value an item ``(n,)``, with its standard error.

        Args:
            values: ``(n,)``.
            unit: Their unit.
            better: Which direction is better.
            definition: What a value is, in a sentence.
            **more: Further fields.
        """
        n, values = len(values), values.double().cpu()
        bad = n - int(values.isfinite().sum())
        if bad:
            why = f"not finite for {bad} of {n} items"
            return cls(None, unit, better, undefined=why, definition=definition, **more)
        error = float(values.std()) / math.sqrt(n) if n > 1 else None
        return cls(float(values.mean()), unit, better, error, None, definition, **more)

    def undefined_because(self, why: str) -> Figure:
        """The same figure without a value."""
        bare = {"value": None, "standard_error": None, "floor": None, "each": (), "warning": None}
        return replace(self, **bare, undefined=why)  # type: ignore[arg-type]  # fields by name

    def to_json(self) -> Json:
        """The figure as JSON data."""
        return dict(vars(self))


@dataclass(frozen=True)
class Summary:
    """One figure over the seeds of a variant.

    Args:
        per_seed: A figure a seed, in the order of the seeds; None where that run has none.
    """

    per_seed: tuple[Figure | None, ...]

    @property
    def values(self) -> list[float]:
        """The values that are defined."""
        return [f.value for f in self.per_seed if f is not None and f.value is not None]

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None if no run defines it."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds (one value less than seeds); None below two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the mean over seeds, by Student's t; None below two."""
        return Interval.of(self.values)

    @property
    def example(self) -> Figure:
        """The first figure there is: unit, direction, definition and, if undefined, why."""
        return next(f for f in self.per_seed if f is not None)

    @property
    def floor(self) -> float | None:
        """Mean over seeds of what real data reach."""
        known = [f.floor for f in self.per_seed if f is not None and f.floor is not None]
        return statistics.fmean(known) if known else None

    def to_json(self) -> Json:
        """Unit, mean, interval and the values per seed as JSON data."""
        figure = self.example
        return {
            "unit": figure.unit,
            "better": figure.better,
            "definition": figure.definition,
            "source": figure.source,
            "mean": self.mean,
            "seeds": len(self.values),
            "deviation_over_seeds": self.deviation,
            "interval_95": None if self.interval is None else self.interval.to_json(),
            "floor": self.floor,
            "undefined": None if self.values else figure.undefined,
            "per_seed": [None if f is None else _of_a_seed(f) for f in self.per_seed],
        }


def _of_a_seed(figure: Figure) -> Json:
    fields = ("value", "standard_error", "floor", "each", "warning", "undefined")
    return {name: getattr(figure, name) for name in fields}


@dataclass(frozen=True)
class Difference:
    """A figure of one variant less that of another, paired by seed.

    Two trainings with one seed share data, order and noise, and the weights of what the models
    have in common, so much of what differs between seeds cancels.

    Args:
        mean: Mean difference over the seeds that both have.
        interval: Its 95 % interval, by Student's t; None with one seed.
        seeds: How many seeds.
    """

    mean: float
    interval: Interval | None
    seeds: int

    @classmethod
    def of(cls, one: Sequence[float], other: Sequence[float]) -> Difference | None:
        """The difference of paired values; None without any."""
        gaps = [a - b for a, b in zip(one, other, strict=True)]
        return cls(statistics.fmean(gaps), Interval.of(gaps), len(gaps)) if gaps else None

    @property
    def few(self) -> bool:
        """Whether the seeds are fewer than five, which have an interval and no verdict."""
        return self.seeds < MARKED_FROM

    @property
    def marked(self) -> bool:
        """Whether the interval excludes 0, and five seeds or more say so: fewer estimate no spread."""
        return (
            not self.few
            and self.interval is not None
            and not self.interval.low <= 0 <= self.interval.high
        )

    def to_json(self) -> Json:
        """The difference as JSON data."""
        return {
            "mean": self.mean,
            "interval_95": None if self.interval is None else self.interval.to_json(),
            "seeds": self.seeds,
        }


MARKED_FROM = 5
"""Seeds below which a difference has an interval and no mark."""
