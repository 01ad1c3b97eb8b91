"""Models side by side: the same data, budget and seeds, then the same inputs and the same noise."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.assembly import assemble
from sfumato.data import Splits, as_splits
from sfumato.datasets import check_splits, data_options, load_splits
from sfumato.devices import choose_device, one_thread
from sfumato.errors import DataError, Problem, SfumatoError, SpecError
from sfumato.evaluation import METRICS, MetricLike, check_metrics, evaluate
from sfumato.files import check_new_folder, make_folder, write_atomically, write_json
from sfumato.hooks import Hooks, TrackerLike
from sfumato.model import Model
from sfumato.options import arguments
from sfumato.registry import Registry, registry
from sfumato.resolve import bind, load_spec, resolve_part
from sfumato.results import Comparison, Json, Pictures, Variant, VariantRun
from sfumato.run import RunFolder, command_line, environment
from sfumato.spec import Spec
from sfumato.trainer import Trainer
from sfumato.training import Data, check_batches, check_patience, check_support

SEEDS = (0, 1, 2)
_LONGEST = 60
_ORIGINALS, _SAMPLES, _PAIRS, _STEPS = 10, 40, 3, 10

SpecLike = Spec | Mapping[str, Any] | str | os.PathLike[str]
Progress = Callable[[str, int, Json], None]


def compare(
    specs: Mapping[str, SpecLike],
    data: Data | None = None,
    seeds: Sequence[int] = SEEDS,
    out: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    metrics: Sequence[MetricLike] = METRICS,
    report: str | Mapping[str, Any] = "html",
    force: bool = False,
    trackers: Sequence[TrackerLike] = (),
    progress: Progress | None = None,
    parts: Registry = registry,
) -> Comparison:
    """Train every spec with every seed on the same data, and lay them side by side.

    They are measured on the test split, or on the training items where there is none.

    Everything is checked before the first training, and before anything is written. Each run has
    one CPU thread, so its figures do not depend on how runs are scheduled.

    Args:
        specs: Specs, mappings or paths by name.
        data: As for :func:`sfumato.train`; by default the data of the specs, which must agree.
        seeds: Seeds of weights, order and noise. Parts that models share start from the same
            weights.
        out: Folder for ``comparison.json``, the report and the runs; None writes nothing.
        device: Instead of the specs'.
        metrics: Names of metrics, or objects with their options.
        report: Name of a report, or an object with its options.
        force: Write into a folder that has content.
        trackers: Names of trackers that follow the run, or objects with their options.
        progress: Called with the variant's name, the seed and each epoch's line.
        parts: Where parts are looked up.

    Raises:
        SpecError: A spec is wrong, parts do not fit, or the specs name different data.
        DataError: The data cannot be used.
        OutputError: ``out`` cannot be written, or has content.
        NonFiniteError: A run failed.
    """
    if not isinstance(specs, Mapping) or isinstance(seeds, int):
        msg = "compare takes a mapping of names to specs, and a sequence of seeds"
        raise DataError(msg, hint='for example compare({"ae": spec}, seeds=[0, 1])')
    if not specs or not seeds or len(set(seeds)) < len(seeds):
        msg = "a comparison needs at least one spec and one seed, and no seed twice"
        raise DataError(msg)
    folder = None if out is None else Path(out)
    if folder is not None:
        check_new_folder(folder, force=force)
    resolved = {name: load_spec(spec, parts=parts) for name, spec in specs.items()}
    if device is not None:
        choose_device(device)
        change = [f"training.device={device}"]
        resolved = {n: load_spec(spec, change, parts=parts) for n, spec in resolved.items()}
    splits, data_name = _data(resolved, data, parts)
    if data is not None:
        resolved = {n: spec.model_copy(update={"data": None}) for n, spec in resolved.items()}
    resolved = {name: bind(spec, splits.contract, parts) for name, spec in resolved.items()}
    check_metrics(metrics, parts)
    for spec in resolved.values():
        check_patience(spec, splits)
        for seed in seeds:
            _with_seed(spec, seed, parts)
        model = assemble(spec, splits.contract, spec.training.device, parts=parts)
        check_batches(model, splits)
        check_support(model, splits)
    reporter = _reporter(report, parts)

    split = "test" if splits.test is not None else "train"
    hooks = Hooks(parts, trackers)
    side = _Side(list(specs), splits, split, seeds, folder, metrics, hooks, progress, parts)
    first = next(iter(resolved.values()))
    with one_thread():
        variants = tuple(side.variant(name, spec) for name, spec in resolved.items())
        about = environment(choose_device(first.training.device))
    comparison = Comparison(
        variants=variants,
        data_name=data_name,
        contract=splits.contract,
        counts={name: len(items) for name, items in splits.named()},
        split=split,
        seeds=tuple(seeds),
        originals=side.originals,
        command=command_line(),
        environment=about,
        path=folder,
    )
    if folder is not None:
        write(comparison, folder, reporter)
    return comparison


def write(
    comparison: Comparison, folder: Path, reporter: Callable[[Comparison], Mapping[str, bytes]]
) -> None:
    """Write ``comparison.json`` and what a report makes of a comparison."""
    make_folder(folder)
    # The figures first: a report that fails must not lose them.
    write_json(folder / "comparison.json", comparison.to_json())
    for name, content in reporter(comparison).items():
        write_atomically(folder / Path(name).name, content)


def _reporter(
    report: str | Mapping[str, Any], parts: Registry
) -> Callable[[Comparison], Mapping[str, bytes]]:
    if isinstance(report, str):  # a name that is wrong is not a fault of a spec
        parts.get("report", report).load()
    config = resolve_part("report", report, "/report", parts)
    made: Callable[[Comparison], Mapping[str, bytes]]
    made = parts.get("report", config.type).load()(**arguments(config))
    return made


def _data(specs: Mapping[str, Spec], data: Data | None, parts: Registry) -> tuple[Splits, str]:
    if data is not None:
        splits = as_splits(data)
        check_splits(splits)
        return splits, "own data"
    first, *others = specs.values()
    for name, spec in zip(list(specs)[1:], others, strict=True):
        if _data_identity(spec, parts) != _data_identity(first, parts):
            message = f"{name} names other data than {next(iter(specs))}: they cannot be compared"
            hint = "give all of them the same data, for example --data digits"
            raise SpecError([Problem("K206", "/data", message, hint)])
    splits = load_splits(first, parts=parts)
    return splits, first.data.type if first.data else ""


def _data_identity(spec: Spec, parts: Registry) -> tuple[str | None, Json]:
    options = data_options(spec, parts)
    paths = {n: v.resolve() for n, v in options.items() if isinstance(v, Path)}
    options = {**options, **paths}
    return (None if spec.data is None else spec.data.type), options


def _with_seed(spec: Spec, seed: int, parts: Registry) -> Spec:
    return load_spec(spec, [f"training.seed={seed}"], parts=parts)


class _Side:
    """What all variants of a comparison share."""

    def __init__(
        self,
        names: Sequence[str],
        splits: Splits,
        split: str,
        seeds: Sequence[int],
        folder: Path | None,
        metrics: Sequence[MetricLike],
        hooks: Hooks,
        progress: Progress | None,
        parts: Registry,
    ) -> None:
        folders = unique_names([_safe(name) for name in names])
        self._folders = dict(zip(names, folders, strict=True))
        self._splits, self._split, self._seeds = splits, split, seeds
        self._folder, self._metrics, self._hooks = folder, metrics, hooks
        self._progress, self._parts = progress, parts
        self._shown = splits.seen(split).take(slice(0, max(_ORIGINALS, 2 * _PAIRS)))

    @property
    def originals(self) -> Tensor:
        """The first items of the split, as the models see them."""
        return self._shown.x[:_ORIGINALS]

    def variant(self, name: str, spec: Spec) -> Variant:
        """Train, measure and picture one variant."""
        runs, pictures, model = [], None, None
        for seed in self._seeds:
            model, run = self._run(name, spec, seed)
            runs.append(run)
            pictures = pictures or self._pictures(model)
        if model is None or pictures is None:
            msg = "a comparison needs at least one seed"
            raise DataError(msg)
        provenance = {kind: dict(origin) for kind, origin in model.plan.provenance.items()}
        return Variant(
            name,
            spec.to_json(),
            spec.hash,
            model.plan.parameters,
            provenance,
            tuple(runs),
            pictures,
        )

    def _run(self, name: str, spec: Spec, seed: int) -> tuple[Model, VariantRun]:
        spec = _with_seed(spec, seed, self._parts)
        path = None
        if self._folder is not None:
            path = self._folder / "runs" / self._folders[name] / f"seed-{seed}"
        model = assemble(spec, self._splits.contract, spec.training.device, parts=self._parts)
        progress = self._progress
        told = None if progress is None else (lambda line: progress(name, seed, line))
        try:
            run = Trainer(model, self._splits, RunFolder(path), self._hooks, told).run()
        except SfumatoError as error:
            error.message = f"{name}, seed {seed}: {error.message}"
            raise
        measured = evaluate(run.model, self._splits, self._split, self._metrics, parts=self._parts)
        return run.model, VariantRun(
            seed=seed,
            path=None if path is None or self._folder is None else path.relative_to(self._folder),
            seconds=run.seconds,
            history=run.metrics,
            kept_epoch=run.kept_epoch,
            figures=measured.figures,
            warnings=run.warnings,
        )

    def _pictures(self, model: Model) -> Pictures:
        x = self._shown.x
        condition = self._shown.condition
        # Samples take the conditions of the first items in turn; a walk keeps that of its start.
        at = torch.arange(_SAMPLES) % len(x)
        pairs = [
            model.interpolate(
                x[i],
                x[i + 1],
                steps=_STEPS,
                condition=None if condition is None else condition[i : i + 1],
            )
            for i in range(0, 2 * min(_PAIRS, len(x) // 2), 2)
        ]
        shape = (0, _STEPS, *self._splits.contract.shape)
        return Pictures(
            reconstructions=model.reconstruct(self.originals, condition=condition).cpu(),
            samples=model.sample(
                _SAMPLES, seed=0, condition=None if condition is None else condition[at]
            ).cpu(),
            interpolations=torch.stack(pairs).cpu() if pairs else torch.zeros(shape),
        )


def _safe(name: str) -> str:
    """A folder name for a variant: what is not a letter, digit, dot, dash or underscore becomes a dash."""
    cleaned = "".join(c if c.isalnum() or c in "._-" else "-" for c in name[:_LONGEST])
    return cleaned.lstrip(".") or "model"


def unique_names(names: Sequence[str]) -> list[str]:
    """The same names, later duplicates numbered."""
    made: list[str] = []
    for name in names:
        number, unique = 1, name
        while unique in made:
            number += 1
            unique = f"{name}-{number}"
        made.append(unique)
    return made
