"""One run of a comparison: trained, measured and pictured, under the conditions that all runs share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sfumato import views
from sfumato.alike import family
from sfumato.assembly import assemble
from sfumato.data import Splits
from sfumato.errors import ArtifactError, SfumatoError
from sfumato.evaluation import Metrics
from sfumato.figures import Json
from sfumato.hooks import Hooks
from sfumato.interfaces import Sampler
from sfumato.jobs import Conditions, Job, Outcome, Source
from sfumato.plan import Plan
from sfumato.registry import LOCAL, Registry, registry
from sfumato.resolve import load_spec, resolve_part
from sfumato.results import VariantRun, View
from sfumato.reuse import Trained, finished, same_run, unfinished
from sfumato.run_folder import RunFolder
from sfumato.sampler_files import save_sampler, saved_sampler
from sfumato.samplers import fit_sampler
from sfumato.spec import Spec
from sfumato.stored import Stored
from sfumato.subject import Subject
from sfumato.trainer import Again, Trainer

Progress = Callable[[str, int, Json], None]


class Workbench:
    """Where runs of a comparison are made, in one process.

    Args:
        conditions: What they share.
        metrics: What is measured.
        parts: Where parts are looked up.

    Attributes:
        conditions: What they share.
        split: The split that is measured.
        items: Its first items, as the models see them.
    """

    def __init__(
        self, conditions: Conditions, metrics: Metrics, parts: Registry = registry
    ) -> None:
        self.conditions, self._metrics, self._parts = conditions, metrics, parts
        self._splits = splits = conditions.splits
        self._resident: dict[torch.device, Splits] = {}
        self.split = "test" if splits.test is not None else "train"
        self.items = splits.seen(self.split).take(slice(0, views.SHOWN))

    def run(self, job: Job, hooks: Hooks, progress: Callable[[Json], None] | None) -> Outcome:
        """Train and measure. Whatever ends a run or a column stands in its place in the outcome."""
        notes: list[str] = []
        try:
            begun = self.begun(job, hooks, progress, notes)
            trained = begun if isinstance(begun, Trained) else Trained.of(begun.run())
        except Exception as error:  # noqa: BLE001 - whatever ends one run, the others go on
            return Outcome.lost(job, told(error), notes)
        return self.measured(job, trained, notes)

    def family(self, job: Job) -> str:
        """What runs have in common that could be trained as one; of a finished run, nothing."""
        if job.finished:
            return f"{job.path}"
        return family(load_spec(job.spec, parts=self._parts))

    def plan(self, spec: Spec) -> Plan:
        """What assembly finds out about a candidate that no run came of."""
        return assemble(spec, self._splits.contract, "cpu", parts=self._parts).plan

    # ---- training -------------------------------------------------------------------------------

    def begun(
        self,
        job: Job,
        hooks: Hooks,
        progress: Callable[[Json], None] | None,
        notes: list[str],
        *,
        stacked: bool = False,
    ) -> Trained | Trainer:
        """The run that is in its folder already, or what trains it; perhaps as one of a stack."""
        parts, path = self._parts, job.path
        if path is not None and job.finished:
            return finished(path, self.conditions.target, parts)
        spec = load_spec(job.spec, [f"training.seed={job.seed}"], parts=parts)
        spec = spec.model_copy(update={"base": job.base})
        model = assemble(spec, self._splits.contract, spec.training.device, parts=parts)
        again: Again | None = None
        if path is not None:
            kept = same_run(
                path, spec, model.plan, self.conditions.data, model.device, parts, stacked=stacked
            )
            if isinstance(kept, Trained):
                return kept
            about = None if stacked else unfinished(path, model, self.conditions.data)
            if about is not None:
                notes.append(f"{path} went on where it was stopped.")
                again = Again(about)
            elif kept:
                notes.append(f"{path} was trained again: {kept}.")
        folder = RunFolder(path, force=True)
        return Trainer(model, self._on(model.device), folder, hooks, progress, again=again)

    def _on(self, device: torch.device) -> Splits:
        """The data, with the items to learn from on a device that is not the CPU: once, for all runs."""
        if device.type == "cpu" or isinstance(self._splits.train.x, Stored):
            return self._splits
        if device not in self._resident:
            there = self._splits.train.to(device)
            self._resident[device] = replace(self._splits, train=there)
        return self._resident[device]

    # ---- measuring ------------------------------------------------------------------------------

    def measured(self, job: Job, trained: Trained, notes: list[str]) -> Outcome:
        """A run for each column of a candidate."""
        subject = self._subject(trained)
        runs: dict[str, VariantRun] = {}
        shown: dict[str, View] = {}
        used: dict[str, Json] = {}
        run = VariantRun(
            seed=job.seed,
            path=self._relative(job.path),
            seconds=trained.seconds,
            history=trained.history,
            kept_epoch=trained.kept_epoch,
            figures={},
            warnings=trained.warnings,
            peak_memory=trained.peak_memory,
            reused=trained.reused,
        )
        for column, source in job.columns.items():
            try:
                sampler = None if source is None else self._sampler(job, source, subject)
                if sampler is not None:
                    used[column] = dict(sampler.about["sampler"])
                figures = self._metrics.measure(subject.sampled_by(sampler))
            except Exception as error:  # noqa: BLE001 - whatever ends one column, the others go on
                runs[column] = replace(run, error=told(error))
                continue
            runs[column] = replace(run, figures=figures)
            if column in job.shown:
                self._show(shown, column, job.seed, subject, sampler, notes)
        plan = trained.model.plan
        provenance = {kind: dict(origin) for kind, origin in plan.provenance.items()}
        return Outcome(runs, shown, used, tuple(notes), plan.parameters, provenance)

    def _subject(self, trained: Trained) -> Subject:
        cost = {"seconds": trained.seconds, "peak_memory": trained.peak_memory}
        dtype = trained.model.dtype
        return Subject(
            trained.model,
            self._splits.seen(self.split, dtype),
            self._splits.seen("train", dtype),
            cost={name: value for name, value in cost.items() if value is not None},
        )

    def _show(
        self,
        shown: dict[str, View],
        column: str,
        seed: int,
        subject: Subject,
        sampler: Sampler | None,
        notes: list[str],
    ) -> None:
        """Keep what a run shows. What was measured stands, even if nothing can be shown of it."""
        try:
            shown[column] = views.view(subject, self.items, seed, sampler)
        except Exception as error:  # noqa: BLE001 - a stranger's part may raise anything
            why = f"{type(error).__name__}: {error}"
            notes.append(f"{column}, seed {seed}, shows no pictures and no codes: {why}.")

    def _sampler(self, job: Job, source: Source, subject: Subject) -> Sampler:
        """The sampler that a run keeps, if it will do; else one fitted now, and kept if the run is ours."""
        model, path, parts = subject.model, job.path, self._parts
        config = resolve_part("sampler", source.config, "/sampler", parts)
        ours = not job.finished
        # What was registered by hand may have changed without a trace.
        lasting = parts.get("sampler", config.type).distribution != LOCAL
        if path is not None and lasting:
            wanted = config if source.exactly or ours else None
            try:
                kept = saved_sampler(path, config.type, model, asked=wanted, parts=parts)
            except ArtifactError:
                if not ours:
                    raise
            else:
                if kept is not None:
                    return kept
        fitted = fit_sampler(model, subject.items("train"), source.config, parts=parts)
        if path is not None and lasting and ours:
            save_sampler(fitted, path, parts=parts)
        return fitted

    def _relative(self, path: Path | None) -> Path | None:
        """A run's folder as seen from the comparison's."""
        folder = self.conditions.folder
        if path is None or folder is None or not path.is_relative_to(folder):
            return path
        return path.relative_to(folder)


def one_by_one(
    bench: Workbench, jobs: Iterator[Job], hooks: Hooks, progress: Progress | None
) -> Iterator[tuple[Job, Outcome]]:
    """Make runs in this process, one after another."""
    for job in jobs:
        line = None if progress is None else partial(progress, job.name, job.seed)
        yield job, bench.run(job, hooks, line)


def told(error: Exception) -> str:
    """What ended a run, in words."""
    return str(error) if isinstance(error, SfumatoError) else f"{type(error).__name__}: {error}"
