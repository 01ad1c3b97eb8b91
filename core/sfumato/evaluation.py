"""Evaluating a model on a split by metric plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sfumato.data import Split, Splits, evaluated
from sfumato.model import Model
from sfumato.options import config_model
from sfumato.registry import Entry, Registry, registry
from sfumato.results import Figure, Json

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


def check_metrics(metrics: Sequence[str], parts: Registry = registry) -> list[Entry]:
    """The metrics of these names, or an error if one is unknown or broken."""
    entries = [parts.get("metric", name) for name in metrics]
    for entry in entries:
        config_model(entry)
    return entries


def evaluate(
    model: Model,
    splits: Splits,
    split: str = "test",
    metrics: Sequence[str] = METRICS,
    *,
    seed: int = 0,
    parts: Registry = registry,
) -> Evaluation:
    """Measure a model. Figures do not depend on batch sizes, nor on the seed it was trained with.

    Args:
        model: The model.
        splits: The data.
        split: Which split.
        metrics: Names of metrics.
        seed: Seed of estimates that draw samples.
        parts: Where metrics are looked up.

    Raises:
        DataError: No such split.
        UnknownPartError: No such metric.
    """
    entries = check_metrics(metrics, parts)
    items: Split = evaluated(splits.get(split), splits.contract, model.dtype)
    figures: dict[str, Figure] = {}
    for entry in entries:
        figures.update(entry.load()()(model, items, seed))
    return Evaluation(figures, split, len(items), seed)
