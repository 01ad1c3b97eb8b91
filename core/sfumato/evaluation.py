"""Evaluating a model on a split by metric plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.data import Splits
from sfumato.model import Model
from sfumato.options import Part, arguments
from sfumato.registry import Registry, registry
from sfumato.resolve import resolve_part
from sfumato.results import Figure, Json

MetricLike = str | Mapping[str, Any]
METRICS = ("reconstruction", "elbo", "nll")


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model on one split.

    Args:
        figures: By name.
        split: The name of the split.
        items: How many items it has.
        seed: Seed of the estimates.
    """

    figures: Mapping[str, Figure]
    split: str
    items: int
    seed: int

    def to_json(self) -> Json:
        """The evaluation as JSON data."""
        return {
            "format": 1,
            "split": self.split,
            "items": self.items,
            "seed": self.seed,
            "figures": {name: figure.to_json() for name, figure in self.figures.items()},
        }


def check_metrics(metrics: Sequence[MetricLike], parts: Registry = registry) -> list[Part]:
    """The metrics with their options, or a :class:`SpecError` if one is unknown or wrong."""
    return [
        resolve_part("metric", metric, f"/metrics/{number}", parts)
        for number, metric in enumerate(metrics)
    ]


def evaluate(
    model: Model,
    splits: Splits,
    split: str = "test",
    metrics: Sequence[MetricLike] = METRICS,
    *,
    seed: int = 0,
    parts: Registry = registry,
) -> Evaluation:
    """Measure a model. Figures do not depend on batch sizes, nor on the seed it was trained with.

    Args:
        model: The model.
        splits: The data.
        split: Which split.
        metrics: Names, or objects with options: ``{"type": "nll", "samples": 500}``.
        seed: Seed of estimates that draw samples.
        parts: Where metrics are looked up.

    Raises:
        DataError: No such split.
        SpecError: No such metric, or its options are wrong.
    """
    chosen = check_metrics(metrics, parts)
    items = splits.seen(split, model.dtype)
    figures: dict[str, Figure] = {}
    for config in chosen:
        metric = parts.get("metric", config.type).load()(**arguments(config))
        figures.update(metric(model, items, seed))
    return Evaluation(figures, split, len(items), seed)
