"""Evaluating a model on a split by metric plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sfumato.blame import broken, told
from sfumato.data import Splits
from sfumato.errors import DataError, PluginError, SfumatoError
from sfumato.figures import Figure, Json
from sfumato.interfaces import Features, Sampler
from sfumato.model import Model
from sfumato.options import Part, arguments, nested_options
from sfumato.registry import Registry, registry
from sfumato.resolve import resolve_part
from sfumato.strict_json import dumps
from sfumato.subject import Subject

MetricLike = str | Mapping[str, Any]
Measure = Callable[[Subject], Mapping[str, Figure]]
METRICS = ("reconstruction", "elbo", "nll", "kl_per_dimension", "active_units", "fd", "prdc")
"""What is measured unless something else is asked for."""
DEFAULT = "default"
"""What stands for these in a list of names."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model on one split.

    Args:
        figures: By name.
        split: The name of the split.
        items: How many items it has.
        seed: Seed of the estimates.
        sampler: The sampler that generated codes, with its options; None for the prior.
    """

    figures: Mapping[str, Figure]
    split: str
    items: int
    seed: int
    sampler: Json | None = None

    @property
    def warnings(self) -> list[str]:
        """What figures warn of, each with its name."""
        return [f"{name}: {f.warning}" for name, f in self.figures.items() if f.warning]

    def to_json(self) -> Json:
        """The evaluation as JSON data."""
        return {
            "format": 1,
            "split": self.split,
            "items": self.items,
            "seed": self.seed,
            "sampler": self.sampler,
            "figures": {name: figure.to_json() for name, figure in self.figures.items()},
            "warnings": self.warnings,
        }

    def _repr_html_(self) -> str:
        from sfumato import notebook

        return notebook.of_evaluation(self)


def default_metrics(data: str | None, parts: Registry = registry) -> tuple[str, ...]:
    """What is measured by default: :data:`METRICS`, and a metric ``fd_NAME`` made for data of that name."""
    own = f"fd_{data}"
    known = {entry.name for entry in parts.of_kind("metric")}
    return (*METRICS, own) if own in known else METRICS


class Metrics:
    """Metrics that are ready to measure: found, their options checked, and what they need at hand.

    Feature spaces with equal options are one object, so that a subject computes their features
    once.

    Args:
        metrics: Names, or objects with options: ``{"type": "nll", "samples": 500}``.
        parts: Where they are looked up.

    Raises:
        SpecError: No such metric, or its options are wrong.
        MissingExtraError: One needs a package that is not installed.
    """

    def __init__(self, metrics: Sequence[MetricLike], parts: Registry = registry) -> None:
        self._parts = parts
        self._spaces: dict[str, Features] = {}
        if isinstance(metrics, str) or not isinstance(metrics, Sequence):
            msg = f"metrics are {type(metrics).__name__}, not a list of names"
            raise DataError(msg, hint='for example ["elbo", {"type": "nll", "samples": 500}]')
        configs = [
            resolve_part("metric", metric, f"/metrics/{number}", parts)
            for number, metric in enumerate(metrics)
        ]
        self._measures = [(config.type, self._made(config)) for config in configs]

    def measure(self, subject: Subject) -> dict[str, Figure]:
        """The figures of a subject."""
        figures: dict[str, Figure] = {}
        for name, measure in self._measures:
            try:
                found = dict(measure(subject))
            except SfumatoError:
                raise
            except Exception as error:
                msg = f"metric {name} fails: {told(error)}"
                raise PluginError(msg, hint="ask its author, or leave it out") from error
            odd = [n for n, figure in found.items() if not isinstance(figure, Figure)]
            if odd:
                msg = f"metric {name} returns {type(found[odd[0]]).__name__} as {odd[0]!r}, not a Figure"
                raise PluginError(msg, hint="return {name: sfumato.Figure(value, unit, ...)}")
            figures.update(found)
        return figures

    def _made(self, config: Part) -> Measure:
        entry = self._parts.get("metric", config.type)
        options = arguments(config)
        for name, kind in nested_options(entry).items():
            if kind != "features":
                raise broken(entry, f"option {name!r} is a {kind}, which is a part of models")
            if isinstance(options[name], Part):
                options[name] = self._space(options[name])
        measure: Measure = entry.load()(**options)
        return measure

    def _space(self, config: Part) -> Features:
        written = dumps(config.model_dump(mode="json"))
        if written not in self._spaces:
            self._spaces[written] = made_features(config, self._parts)
        return self._spaces[written]


def made_features(config: Part, parts: Registry = registry) -> Features:
    """A feature space, not yet fitted.

    Raises:
        PluginError: What the plugin makes is none.
    """
    entry = parts.get("features", config.type)
    made: Any = entry.load()(**arguments(config))
    if not all(callable(getattr(made, name, None)) for name in ("fit", "forward", "state_dict")):
        msg = f"features {entry.reference!r} makes {type(made).__name__}"
        raise PluginError(msg, hint="a feature space is an nn.Module with fit(split, contract)")
    made.name = getattr(made, "name", "") or entry.name
    return cast("Features", made)


def evaluate(
    model: Model,
    splits: Splits,
    split: str = "test",
    metrics: Sequence[MetricLike] = METRICS,
    *,
    seed: int = 0,
    sampler: Sampler | None = None,
    cost: Mapping[str, float] | None = None,
    parts: Registry = registry,
) -> Evaluation:
    """Measure a model. Figures do not depend on batch sizes, nor on the seed it was trained with.

    Args:
        model: The model.
        splits: The data.
        split: Which split.
        metrics: Names, or objects with options: ``{"type": "nll", "samples": 500}``.
        seed: Seed of estimates that draw samples.
        sampler: Where codes to generate from come from; the prior by default.
        cost: What training took: ``seconds`` and ``peak_memory`` in bytes, where they are known.
        parts: Where metrics are looked up.

    Raises:
        DataError: No such split.
        SpecError: No such metric, or its options are wrong.
        MissingExtraError: A metric needs a package that is not installed.
    """
    if not isinstance(model, Model) or not isinstance(splits, Splits):
        msg = f"evaluate takes a model and splits, not {type(model).__name__} and {type(splits).__name__}"
        raise DataError(
            msg, hint="sfumato.load(run) and sfumato.load_splits(spec), or as_splits(x)"
        )
    ready = Metrics(metrics, parts)
    items = splits.seen(split, model.dtype)
    train = splits.seen("train", model.dtype)
    subject = Subject(model, items, train, seed=seed, sampler=sampler, cost=cost)
    figures = ready.measure(subject)
    about = None if sampler is None else dict(getattr(sampler, "about", {}).get("sampler", {}))
    return Evaluation(figures, split, len(items), seed, about)
