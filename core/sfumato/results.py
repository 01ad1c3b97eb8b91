"""The results of a comparison, as data: reports read these and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import Tensor

from sfumato.code_space import CodeSpace
from sfumato.data import Contract, Split
from sfumato.figures import Difference, Figure, Json, Summary


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
        figures: Figures by name; none if it failed.
        warnings: What parts want said about their state.
        peak_memory: Most memory during training, in bytes, where it is known.
        reused: Whether it had been finished before, under the same conditions.
        error: Why there are no figures.
    """

    seed: int
    path: Path | None
    seconds: float
    history: tuple[Json, ...]
    kept_epoch: int
    figures: Mapping[str, Figure]
    warnings: tuple[str, ...] = ()
    peak_memory: int | None = None
    reused: bool = False
    error: str | None = None

    def to_json(self) -> Json:
        """All but the figures, as JSON data."""
        return {
            "seed": self.seed,
            "path": None if self.path is None else str(self.path),
            "seconds": self.seconds,
            "peak_memory": self.peak_memory,
            "kept_epoch": self.kept_epoch,
            "reused": self.reused,
            "error": self.error,
            "warnings": list(self.warnings),
            "history": list(self.history),
        }


@dataclass(frozen=True)
class Pictures:
    """What one run of a variant shows; tensors on the CPU, in the model's space.

    Args:
        reconstructions: ``(m, *X)`` of the comparison's originals.
        samples: ``(n, *X)``: means of ``p(x|z)`` at codes drawn with a shared seed.
        interpolations: ``(rows, steps, *X)`` between the same pairs of originals, linear in code
            space.
        seed: The seed of that run.
        spherical: ``(rows, steps, *X)``: the same pairs along the great circle.
        traversals: ``(units, steps, *X)``: the first original's code with one unit at a time walked
            from the 1st to the 99th percentile of the values that it takes over items.
        traversed: Which units these are, from 0.
    """

    reconstructions: Tensor
    samples: Tensor
    interpolations: Tensor
    seed: int = 0
    spherical: Tensor | None = None
    traversals: Tensor | None = None
    traversed: tuple[int, ...] = ()


@dataclass(frozen=True)
class View:
    """What one run shows.

    Args:
        pictures: Pictures of what it makes.
        codes: Its code space.
    """

    pictures: Pictures
    codes: CodeSpace


@dataclass(frozen=True)
class Variant:
    """One column of a comparison: a model, and where it generates from.

    Args:
        name: Its name.
        spec: Its resolved spec, as JSON data.
        spec_hash: SHA-256 of that.
        parameters: Number of trained parameters.
        provenance: For each part, its distribution, version and target.
        runs: One a seed.
        pictures: What the first run that did not fail shows; None if all did.
        sampler: Where codes to generate from come from, with its options; None for the prior.
        trained_as: The variant whose trainings these are too, if it is another.
        codes: Where that run puts the items; None if all failed.
    """

    name: str
    spec: Json
    spec_hash: str
    parameters: int
    provenance: Json
    runs: tuple[VariantRun, ...]
    pictures: Pictures | None
    sampler: Json | None = None
    trained_as: str | None = None
    codes: CodeSpace | None = None

    @property
    def figures(self) -> dict[str, Summary]:
        """Every figure over the seeds."""
        names = dict.fromkeys(name for run in self.runs for name in run.figures)
        return {n: Summary(tuple(run.figures.get(n) for run in self.runs)) for n in names}

    @property
    def errors(self) -> dict[int, str]:
        """Why runs failed, by seed."""
        return {run.seed: run.error for run in self.runs if run.error is not None}

    @property
    def cautions(self) -> dict[str, tuple[str, list[int]]]:
        """What figures warn of, in the words of the first seed that does, with the seeds that do."""
        found: dict[str, tuple[str, list[int]]] = {}
        for run in self.runs:
            for name, figure in run.figures.items():
                if figure.warning:
                    found.setdefault(name, (figure.warning, []))[1].append(run.seed)
        return found

    def values(self, name: str) -> dict[int, float]:
        """The defined values of a figure, by seed."""
        found = {run.seed: run.figures.get(name) for run in self.runs}
        return {s: f.value for s, f in found.items() if f is not None and f.value is not None}

    def to_json(self) -> Json:
        """All but the pictures, as JSON data."""
        return {
            "spec": self.spec,
            "spec_hash": self.spec_hash,
            "sampler": self.sampler,
            "trained_as": self.trained_as,
            "parameters": self.parameters,
            "provenance": self.provenance,
            "figures": {name: summary.to_json() for name, summary in self.figures.items()},
            "runs": [run.to_json() for run in self.runs],
        }


@dataclass(frozen=True)
class Comparison:
    """Several models side by side: same data and seeds.

    Args:
        variants: The models.
        data_name: What the data are called.
        contract: What they keep to.
        counts: Items in each split.
        split: The split that the figures and pictures are of.
        seeds: The seeds of all runs, in order.
        originals: ``(m, *X)``, the first test items, in the model's space.
        command: The command that makes this comparison again.
        environment: Versions, platform, device and threads.
        path: Folder it was written to, or None.
        match: The budget that was made equal: ``params``, ``steps`` or ``seconds``; or None.
        notes: What limits the comparison, in sentences: unequal budgets or conditions.
        items: The items that codes are shown of, in the model's space; the originals come first.
        files: What was written: the report's files, and ``comparison.json``.
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
    match: str | None = None
    notes: tuple[str, ...] = ()
    items: Split | None = field(default=None, compare=False)
    files: tuple[Path, ...] = field(default=(), compare=False)

    def differences(self) -> dict[str, dict[str, Any]]:
        """JSON pointers where the resolved specs differ, with each variant's value (None: absent)."""
        flat = {v.name: dict(_leaves(v.spec)) for v in self.variants}
        pointers = dict.fromkeys(p for leaves in flat.values() for p in leaves)
        rows = {p: {name: leaves.get(p) for name, leaves in flat.items()} for p in pointers}
        return {p: row for p, row in rows.items() if len({repr(v) for v in row.values()}) > 1}

    def difference(self, name: str, one: Variant, other: Variant) -> Difference | None:
        """A figure of one variant less that of another, over the seeds that define it in both."""
        first, second = one.values(name), other.values(name)
        seeds = [seed for seed in first if seed in second]
        return Difference.of([first[s] for s in seeds], [second[s] for s in seeds])

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
            "match": self.match,
            "notes": list(self.notes),
            "command": self.command,
            "environment": self.environment,
            "differences": self.differences(),
            "variants": {v.name: v.to_json() for v in self.variants},
            "paired_differences": [
                {"of": one.name, "less": other.name, "figures": found}
                for other, one in combinations(self.variants, 2)
                if (found := self._paired(one, other))
            ],
        }

    def _repr_html_(self) -> str:
        from sfumato import notebook

        return notebook.of_comparison(self)

    def _paired(self, one: Variant, other: Variant) -> Json:
        made = {name: self.difference(name, one, other) for name in one.figures}
        return {name: found.to_json() for name, found in made.items() if found is not None}


def _leaves(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{pointer}/{name}")
    else:
        yield pointer, value
