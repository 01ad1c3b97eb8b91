"""Models side by side: the same data, seeds and conditions, then the same inputs and the same noise."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sfumato import sharing, views
from sfumato.agreement import unlike_conditions
from sfumato.assembly import assemble, probe
from sfumato.candidates import (
    Candidate,
    SamplerLike,
    SpecLike,
    candidates,
    missing_extra,
    one_source_of_data,
    with_samplers,
)
from sfumato.columns import Columns, with_seed
from sfumato.data import Splits, as_splits, fingerprint
from sfumato.datasets import check_splits, load_splits
from sfumato.devices import choose_device, one_thread
from sfumato.errors import DataError
from sfumato.evaluation import MetricLike, Metrics, default_metrics
from sfumato.files import check_new_folder, make_folder, write_atomically, write_json
from sfumato.hooks import Hooks, TrackerLike
from sfumato.jobs import Conditions
from sfumato.lock import NAME as LOCK
from sfumato.lock import FolderLock, check_free
from sfumato.matching import MATCHES, Match, matched, steps_of
from sfumato.options import arguments
from sfumato.registry import Registry, registry
from sfumato.resolve import bind, resolve_part
from sfumato.results import Comparison
from sfumato.reuse import check_same_data, finished
from sfumato.run import command_line, environment, read_about
from sfumato.training import Data
from sfumato.training_checks import check_training
from sfumato.workbench import Progress, Workbench

SEEDS = (0, 1, 2)
Reporter = Callable[[Comparison], Mapping[str, bytes]]


def compare(
    models: Mapping[str, SpecLike],
    data: Data | None = None,
    seeds: Sequence[int] = SEEDS,
    out: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    metrics: Sequence[MetricLike] | None = None,
    samplers: Mapping[str, Sequence[SamplerLike]] | None = None,
    ex_post: SamplerLike | None = "gmm",
    match: Match | None = None,
    report: str | Mapping[str, Any] = "html",
    force: bool = False,
    trackers: Sequence[TrackerLike] = (),
    progress: Progress | None = None,
    workers: int | None = None,
    stack: bool | None = None,
    parts: Registry = registry,
) -> Comparison:
    """Train every model with every seed on the same data, and lay them side by side.

    They are measured on the test split, or on the training items where there is none. Everything
    is checked before the first training, and before anything is written. Each run has one CPU
    thread, so its figures do not depend on how runs are scheduled: on the CPU they go to one
    process a core, which costs a copy of the data each. A run that fails is told in its place, and
    the others go on.

    Args:
        models: Specs, mappings, paths of specs, or folders of finished runs, by name. Runs stay
            what they are; those that differ in their seeds alone are one model.
        data: As for :func:`sfumato.train`; by default the data of the specs, which must agree.
        seeds: Seeds of weights, order and noise. Parts that models share start from the same
            weights.
        out: Folder for ``comparison.json``, the report and the runs; None writes nothing. With
            ``force``, runs in it are taken as they are where training them again would make the
            same, and such runs that were stopped go on.
        device: Instead of the specs'.
        metrics: Names of metrics, or objects with their options; by default those of
            :func:`sfumato.evaluate`, and what is made for data of this name.
        samplers: Further columns: for a model, names of samplers that it generates from instead of
            its prior, or objects with their options.
        ex_post: A sampler that models without a density get a column for: their codes follow no
            prior, and a density fitted to them afterwards is what they can honestly generate from
            (Ghosh et al., 2020). None: no such column. It is left out, and that is noted, where it
            needs a package that is not installed.
        match: Make budgets equal to the first model's: ``params``, ``steps`` or ``seconds``.
        report: Name of a report, or an object with its options.
        force: Write into a folder that has content.
        trackers: Names of trackers that follow the run, or objects with their options.
        progress: Called with the model's name, the seed and each epoch's line. Lines of runs that
            go on at once arrive in turns; hooks and trackers are told of one run after another.
        workers: How many processes make runs at once, on the CPU. By default one a core, or as many
            as ``SFUMATO_WORKERS`` says; one where all runs together are too short to be worth the
            start of more, or where training times are matched, which runs at once would lengthen.
            With 1, and where a part was registered by hand, all is done in this process.
        stack: Train runs that differ in seeds, rates and other numbers alone as one batched model,
            each as it would be alone but for rounding; by default on CUDA, where small models keep
            the device busy with the launching of kernels. What does not vectorise is trained one
            after another, which is noted.
        parts: Where parts are looked up.

    Raises:
        SpecError: A spec is wrong, parts do not fit, or the specs name different data.
        DataError: The data cannot be used.
        MissingExtraError: A metric or sampler needs a package that is not installed.
        OutputError: ``out`` cannot be written, or has content.
        LockedError: Another process compares in ``out``.
    """
    _check_arguments(models, seeds, match)
    sharing.processes(workers)  # a mistake is told at once
    folder = None if out is None else Path(out)
    if folder is not None:
        check_free(folder)
        check_new_folder(folder, force=force, but=(LOCK,))
    if device is not None:
        choose_device(device)
    changes = [] if device is None else [f"training.device={device}"]
    found = with_samplers(candidates(models, changes, parts), samplers or {}, parts)
    splits, data_name = _data(found, data, parts)
    if data is not None:
        found = [replace(c, spec=c.spec.model_copy(update={"data": None})) for c in found]
    found = [replace(c, spec=bind(c.spec, splits.contract, parts)) for c in found]
    named = None if data is not None else data_name
    wanted = default_metrics(named, parts) if metrics is None else metrics
    ready = Metrics(wanted, parts)
    reporter = _reporter(report, parts)
    hooks = Hooks(parts, trackers)
    _check(found, splits, seeds, parts)
    found, notes = _with_ex_post(found, ex_post, splits, parts)
    with nullcontext() if folder is None else FolderLock(folder):
        with one_thread():
            if match is not None:
                found, more = matched(found, match, splits, parts)
                notes += more
            print_ = fingerprint(splits)
            target = _target(found, device)
            for candidate in found:
                for path in candidate.finished.values():
                    check_same_data(path, print_)
                    finished(path, target, parts)  # damage is told before anything is trained
            notes += [*_unequal(found, splits, match), *_unlike(found, target)]
            bench = Workbench(Conditions(splits, print_, target, folder), ready, parts)
            columns = Columns(found, seeds, folder)
            if match == "seconds":  # times that are matched are those of runs alone
                workers, stack = workers or 1, stack or False
            share = sharing.Share.of(
                found, len(columns), splits, wanted, target, workers, parts, stack=stack
            )
            notes += share.fill(columns, bench, hooks, progress)
            variants = columns.variants(bench)
            about = environment(target)
        if trackers and any(run.reused for v in variants for run in v.runs):
            notes.append(
                "Finished runs were taken as they are, and no tracker followed them. Another folder "
                "(--out) trains them again."
            )
        comparison = Comparison(
            variants=variants,
            data_name=data_name,
            contract=splits.contract,
            counts={name: len(items) for name, items in splits.named()},
            split=bench.split,
            seeds=tuple(dict.fromkeys(run.seed for v in variants for run in v.runs)),
            originals=views.originals(bench.items),
            command=command_line(),
            environment=about,
            path=folder,
            match=match,
            notes=(*notes, *columns.notes),
            items=bench.items,
        )
        return comparison if folder is None else write(comparison, folder, reporter)


def write(comparison: Comparison, folder: Path, reporter: Reporter) -> Comparison:
    """Write ``comparison.json`` and what a report makes of a comparison, which then names the files."""
    make_folder(folder)
    figures = folder / "comparison.json"
    # The figures first: a report that fails must not lose them.
    write_json(figures, comparison.to_json())
    made = {folder / Path(name).name: content for name, content in reporter(comparison).items()}
    for path, content in made.items():
        write_atomically(path, content)
    return replace(comparison, files=(*made, figures))


def _check_arguments(models: object, seeds: Sequence[int], match: Match | None) -> None:
    if not isinstance(models, Mapping) or isinstance(seeds, int):
        msg = "compare takes a mapping of names to models, and a sequence of seeds"
        raise DataError(msg, hint='for example compare({"ae": spec}, seeds=[0, 1])')
    if not models or not seeds or len(set(seeds)) < len(seeds):
        msg = "a comparison needs at least one model and one seed, and no seed twice"
        raise DataError(msg)
    if match is not None and match not in MATCHES:
        msg = f"match = {match!r}: it should be one of {', '.join(MATCHES)}, or None"
        raise DataError(msg)


def _reporter(report: str | Mapping[str, Any], parts: Registry) -> Reporter:
    if isinstance(report, str):  # a name that is wrong is not a fault of a spec
        parts.get("report", report).load()
    config = resolve_part("report", report, "/report", parts)
    made: Reporter = parts.get("report", config.type).load()(**arguments(config))
    return made


def _data(found: Sequence[Candidate], data: Data | None, parts: Registry) -> tuple[Splits, str]:
    if data is not None:
        splits = as_splits(data)
        check_splits(splits)
        return splits, "own data"
    spec = one_source_of_data(found, parts)
    return load_splits(spec, parts=parts), spec.data.type if spec.data else ""


def _check(
    found: Sequence[Candidate], splits: Splits, seeds: Sequence[int], parts: Registry
) -> None:
    """Raise what would stop a run before its first step."""
    for candidate in found:
        spec = candidate.spec
        if candidate.finished:
            continue
        for seed in seeds:
            with_seed(spec, seed, parts)
        model = assemble(spec, splits.contract, spec.training.device, parts=parts)
        check_training(model, splits)


def _with_ex_post(
    found: list[Candidate], sampler: SamplerLike | None, splits: Splits, parts: Registry
) -> tuple[list[Candidate], list[str]]:
    """The candidates, those without a density with a column for a sampler unless they have one."""
    bare = [
        c.name
        for c in found
        if not c.samplers and not probe(c.spec, splits.contract, parts=parts).has_density
    ]
    if sampler is None or not bare:
        return found, []
    if missing := missing_extra(sampler, parts):
        return found, [f"Columns of codes fitted afterwards are left out: {missing}."]
    return with_samplers(found, {name: [sampler] for name in bare}, parts), []


def _target(found: Sequence[Candidate], device: str | torch.device | None) -> torch.device:
    """The device that is asked for, or that the models to train here name; runs are measured there too."""
    named = [c.spec.training.device for c in found if not c.finished]
    return choose_device(device or (named[0] if named else "auto"))


def _unequal(found: Sequence[Candidate], splits: Splits, match: Match | None) -> list[str]:
    """What to know of unequal budgets, where nobody asked for equal ones."""
    steps = {c.name: steps_of(c.spec, splits) for c in found}
    if match is not None or len(set(steps.values())) == 1:
        return []
    told = ", ".join(f"{name} {n:,}" for name, n in steps.items())
    return [f"The models take different numbers of steps: {told}. --match steps makes them equal."]


def _unlike(found: Sequence[Candidate], device: torch.device) -> list[str]:
    paths = [path for candidate in found for path in candidate.finished.values()]
    told = {path: "; ".join(unlike_conditions(read_about(path), device)) for path in paths}
    return [f"{p} was trained under other conditions: {how}." for p, how in told.items() if how]
