"""Which variant is best in a figure, and whether the seeds at hand can tell.

A figure has one value a seed, and variants are paired by seed. The order of the best two counts as
*settled* only if the 95 % interval of their paired difference excludes 0 and there are five seeds
or more: fewer have an interval, and no verdict.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Literal

from sfumato import Comparison, Difference, Figure, Variant
from sfumato_report.text import finite

Verdict = Literal["alone", "one seed", "tie", "settled", "few", "open"]


@dataclass(frozen=True)
class Spread:
    """The finite values of one figure of one variant.

    Args:
        values: One a seed that has one.
        runs: Number of seeds.
    """

    values: tuple[float, ...]
    runs: int

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds (one value less than seeds); None below two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)

    @property
    def range(self) -> float:
        """Largest less smallest value."""
        return self.high - self.low

    @property
    def complete(self) -> bool:
        """Whether every seed has a value."""
        return len(self.values) == self.runs


def figure(variant: Variant, name: str) -> Figure | None:
    """The first run's figure of that name: unit, direction and definition."""
    return next((run.figures[name] for run in variant.runs if name in run.figures), None)


def spread(variant: Variant, name: str) -> Spread | None:
    """The figure over the seeds; None if no seed has a finite value."""
    found = [run.figures[name].value for run in variant.runs if name in run.figures]
    values = tuple(v for v in map(finite, found) if v is not None)
    return Spread(values, len(variant.runs)) if values else None


def past(variant: Variant, name: str) -> Literal["", "level with", "beyond"]:
    """Whether the mean is past what real data reach, and if it is, by all of its interval or not."""
    found, example = variant.figures.get(name), figure(variant, name)
    if found is None or example is None or found.floor is None or found.mean is None:
        return ""
    half = 0.0 if found.interval is None else found.interval.half
    by = {"higher": 1, "lower": -1}.get(example.better or "", 0) * (found.mean - found.floor)
    return "beyond" if by > half else "level with" if by > 0 else ""


def part(variant: Variant, kind: str) -> dict[str, object]:
    """The resolved spec of one part of the model; empty if the spec has none."""
    model = variant.spec.get("model")
    found = model.get(kind) if isinstance(model, dict) else None
    if isinstance(found, str):
        return {"type": found}
    return found if isinstance(found, dict) else {}


def likelihoods(comparison: Comparison) -> list[str]:
    """The likelihoods that occur; nats are on one scale if there is only one."""
    return list(dict.fromkeys(str(part(v, "likelihood").get("type")) for v in comparison.variants))


def on_one_scale(comparison: Comparison, of: Figure) -> bool:
    """Whether the figure may be compared between the variants.

    The nats of a probability mass and of a density are not on one scale, and a report cannot know
    which of two differently named likelihoods is which.
    """
    in_nats = of.unit.startswith(("nat", "bit"))
    return not in_nats or len(likelihoods(comparison)) == 1


@dataclass(frozen=True)
class Ranking:
    """The variants that define a figure in every seed, best mean first.

    Args:
        figure: Unit, direction and definition.
        order: Index of a variant, and its values.
        difference: Of the best two, the better one first, paired by seed.
    """

    figure: Figure
    order: tuple[tuple[int, Spread], ...]
    difference: Difference | None = None

    @property
    def gap(self) -> float:
        """Distance between the best two means."""
        return abs(self.order[0][1].mean - self.order[1][1].mean)

    @property
    def verdict(self) -> Verdict:
        """What the seeds say about the best two."""
        if len(self.order) == 1:
            return "alone"
        first, second = self.order[0][1], self.order[1][1]
        if self.gap <= 1e-9 * max(abs(first.mean), abs(second.mean)):
            return "tie"
        if self.difference is None or self.difference.interval is None:
            return "one seed"
        if self.difference.marked:
            return "settled"
        return "few" if self.difference.few else "open"


def ranking(comparison: Comparison, name: str) -> Ranking | None:
    """Creates the ranking by one figure; None if it has no direction or no variant defines it."""
    figures = [figure(v, name) for v in comparison.variants]
    known = [f for f in figures if f is not None]
    if not known or len({(f.unit, f.better) for f in known}) > 1 or known[0].better is None:
        return None
    sign = 1 if known[0].better == "lower" else -1
    spreads = enumerate(spread(v, name) for v in comparison.variants)
    scored = [
        (i, s)
        for i, s in spreads
        if s is not None and s.complete and not _repeats(comparison, i, name)
    ]
    scored.sort(key=lambda entry: sign * entry[1].mean)
    if not scored:
        return None
    best = [comparison.variants[i] for i, _ in scored[:2]]
    difference = comparison.difference(name, *best) if len(best) > 1 else None
    return Ranking(known[0], tuple(scored), difference)


def _repeats(comparison: Comparison, index: int, name: str) -> bool:
    """Whether a column has the very figure of the one whose trainings it shares, or only replays items."""
    variant = comparison.variants[index]
    if variant.sampler is not None and variant.sampler.get("type") == "aggregate_posterior":
        return True  # it is near the data because it is made of them
    named = {v.name: v for v in comparison.variants}
    owner = named.get(variant.trained_as or "")
    return owner is not None and owner.values(name) == variant.values(name)
