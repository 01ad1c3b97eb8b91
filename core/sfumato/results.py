"""Figures, and the results of a comparison, as data: reports read these and nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from sfumato.data import Contract

Json = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One number of an evaluation.

    Args:
        value: The number; None where it is not defined.
        unit: Its unit, such as ``nats per item``.
        better: Which direction is better, or None.
        standard_error: Standard error of the mean over items, where the number is one.
        undefined: Why there is no value.
        definition: What the number is, in a sentence.
    """

    value: float | None
    unit: str
    better: Literal["lower", "higher"] | None = None
    standard_error: float | None = None
    undefined: str | None = None
    definition: str = ""

    @classmethod
    def of_items(
        cls, values: Tensor, unit: str, better: Literal["lower", "higher"] | None, definition: str
    ) -> Figure:
        """The mean of one value an item ``(n,)``, with its standard error."""
        n, values = len(values), values.double().cpu()
        bad = n - int(values.isfinite().sum())
        if bad:
            why = f"not finite for {bad} of {n} items"
            return cls(None, unit, better, undefined=why, definition=definition)
        error = float(values.std()) / math.sqrt(n) if n > 1 else None
        return cls(float(values.mean()), unit, better, error, None, definition)

    def to_json(self) -> Json:
        """The figure as JSON data."""
        return dict(vars(self))


@dataclass(frozen=True)
class Summary:
    """One figure over the seeds of a variant.

    Args:
        per_seed: A figure a run, in the order of the seeds.
    """

    per_seed: tuple[Figure, ...]

    @property
    def values(self) -> list[float]:
        """The values that are defined."""
        return [f.value for f in self.per_seed if f.value is not None]

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None if no run defines it."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds (one value less than seeds); None below two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def example(self) -> Figure:
        """The first run's figure: unit, direction, definition and, if undefined, why."""
        return self.per_seed[0]

    def to_json(self) -> Json:
        """Unit, mean, deviation and the values per seed as JSON data."""
        figure = self.example
        return {
            "unit": figure.unit,
            "better": figure.better,
            "definition": figure.definition,
            "mean": self.mean,
            "deviation_over_seeds": self.deviation,
            "undefined": figure.undefined,
            "per_seed": [
                {"value": f.value, "standard_error": f.standard_error} for f in self.per_seed
            ],
        }


@dataclass(frozen=True)
class VariantRun:
    """One training of one variant.

    Args:
        seed: Its seed.
        path: Its run folder, or None.
        seconds: Training time.
        history: One mapping an epoch, as in ``metrics.jsonl``: ``epoch``, ``step``, ``seconds``,
            ``train`` and ``valid`` (each ``{term: nats per item}``) and ``parts`` (what parts
            report).
        kept_epoch: The epoch whose weights were kept.
        figures: Test figures by name.
        warnings: What parts want said about their state.
    """

    seed: int
    path: Path | None
    seconds: float
    history: tuple[Json, ...]
    kept_epoch: int
    figures: Mapping[str, Figure]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """What the first run of a variant shows; tensors on the CPU, in the model's space.

    Args:
        reconstructions: ``(m, *X)`` of the comparison's originals.
        samples: ``(n, *X)``: means of ``p(x|z)`` at codes drawn from the prior with a shared seed.
        interpolations: ``(rows, steps, *X)`` between the same pairs of originals, linear in code
            space.
    """

    reconstructions: Tensor
    samples: Tensor
    interpolations: Tensor


@dataclass(frozen=True)
class Variant:
    """One model of a comparison.

    Args:
        name: Its name.
        spec: Its resolved spec, as JSON data.
        spec_hash: SHA-256 of that.
        parameters: Number of trained parameters.
        provenance: For each part, its distribution, version and target.
        runs: One a seed.
        pictures: What the first run shows.
    """

    name: str
    spec: Json
    spec_hash: str
    parameters: int
    provenance: Json
    runs: tuple[VariantRun, ...]
    pictures: Pictures

    @property
    def figures(self) -> dict[str, Summary]:
        """Every figure over the seeds."""
        names = self.runs[0].figures
        return {name: Summary(tuple(run.figures[name] for run in self.runs)) for name in names}

    def to_json(self) -> Json:
        """All but the pictures, as JSON data."""
        return {
            "spec": self.spec,
            "spec_hash": self.spec_hash,
            "parameters": self.parameters,
            "provenance": self.provenance,
            "figures": {name: summary.to_json() for name, summary in self.figures.items()},
            "runs": [
                {
                    "seed": run.seed,
                    "path": str(run.path) if run.path else None,
                    "seconds": run.seconds,
                    "kept_epoch": run.kept_epoch,
                    "warnings": list(run.warnings),
                    "history": list(run.history),
                }
                for run in self.runs
            ],
        }


@dataclass(frozen=True)
class Comparison:
    """Several models side by side: same data, budget and seeds.

    Args:
        variants: The models.
        data_name: What the data are called.
        contract: What they keep to.
        counts: Items in each split.
        split: The split that the figures and pictures are of.
        seeds: The seeds every variant was trained with.
        originals: ``(m, *X)``, the first test items, in the model's space.
        command: The command that makes this comparison again.
        environment: Versions, platform, device and threads.
        path: Folder it was written to, or None.
    """

    variants: tuple[Variant, ...]
    data_name: str
    contract: Contract
    counts: Mapping[str, int]
    split: str
    seeds: tuple[int, ...]
    originals: Tensor
    command: str
    environment: Json
    path: Path | None = field(default=None, compare=False)

    def differences(self) -> dict[str, dict[str, Any]]:
        """JSON pointers where the resolved specs differ, with each variant's value (None: absent)."""
        flat = {v.name: dict(_leaves(v.spec)) for v in self.variants}
        pointers = dict.fromkeys(p for leaves in flat.values() for p in leaves)
        rows = {p: {name: leaves.get(p) for name, leaves in flat.items()} for p in pointers}
        return {p: row for p, row in rows.items() if len({repr(v) for v in row.values()}) > 1}

    def to_json(self) -> Json:
        """All but the pictures, as JSON data: the content of ``comparison.json``."""
        return {
            "format": 1,
            "data": {
                "name": self.data_name,
                "contract": self.contract.model_dump(mode="json"),
                "counts": dict(self.counts),
                "split": self.split,
            },
            "seeds": list(self.seeds),
            "command": self.command,
            "environment": self.environment,
            "differences": self.differences(),
            "variants": {v.name: v.to_json() for v in self.variants},
        }


def _leaves(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{pointer}/{name}")
    else:
        yield pointer, value
