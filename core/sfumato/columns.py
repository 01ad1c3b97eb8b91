"""The columns of a comparison: candidates trained with every seed, measured and pictured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sfumato import views
from sfumato.assembly import assemble
from sfumato.candidates import Asked, Candidate
from sfumato.data import Splits
from sfumato.errors import ArtifactError, SfumatoError
from sfumato.evaluation import Metrics
from sfumato.figures import Json
from sfumato.hooks import Hooks
from sfumato.interfaces import Sampler
from sfumato.plan import Plan
from sfumato.registry import LOCAL, Registry
from sfumato.resolve import load_spec
from sfumato.results import Variant, VariantRun, View
from sfumato.reuse import Trained, finished, same_run
from sfumato.run import RunFolder
from sfumato.sampler_files import save_sampler, saved_sampler
from sfumato.samplers import fit_sampler
from sfumato.spec import Spec
from sfumato.subject import Subject
from sfumato.trainer import Trainer

_LONGEST = 60

Progress = Callable[[str, int, Json], None]


class Columns:
    """Where the candidates of a comparison are trained and measured, under the same conditions.

    Args:
        found: The candidates.
        splits: The data.
        data: Their fingerprint.
        seeds: Seeds of those that are trained here.
        folder: Where runs are kept, or None.
        metrics: What is measured.
        hooks: Who wants to know of trainings.
        progress: Called with the candidate's name, the seed and each epoch's line.
        parts: Where parts are looked up.
        target: Where finished runs are measured.

    Attributes:
        notes: What happened on the way, in sentences.
        split: The split that is measured.
        items: Its first items, as the models see them.
    """

    def __init__(
        self,
        found: Sequence[Candidate],
        splits: Splits,
        data: str,
        seeds: Sequence[int],
        folder: Path | None,
        metrics: Metrics,
        hooks: Hooks,
        progress: Progress | None,
        parts: Registry,
        target: torch.device,
    ) -> None:
        names = [c.name for c in found]
        self._folders = dict(zip(names, unique_names([_safe(n) for n in names]), strict=True))
        self._splits, self._data, self._seeds, self._folder = splits, data, seeds, folder
        self._metrics, self._hooks, self._progress = metrics, hooks, progress
        self._parts, self._target = parts, target
        self._used: dict[str, Json] = {}
        self.notes: list[str] = []
        self.split = "test" if splits.test is not None else "train"
        self.items = splits.seen(self.split).take(slice(0, views.SHOWN))

    def variants(self, candidate: Candidate) -> list[Variant]:
        """Train a candidate with every seed, and make its columns."""
        runs: dict[str, list[VariantRun]] = {name: [] for name in candidate.columns}
        shown: dict[str, View] = {}
        plan: Plan | None = None
        for seed in candidate.seeds(self._seeds):
            try:
                trained = self._trained(candidate, seed)
            except Exception as error:  # noqa: BLE001 - whatever ends one run, the others go on
                failed = _failed(seed, error)
                for made in runs.values():
                    made.append(failed)
                continue
            plan = trained.model.plan
            for name, run in self._measured(candidate, seed, trained, shown).items():
                runs[name].append(run)
        spec = candidate.spec
        if plan is None:  # every run failed
            plan = assemble(spec, self._splits.contract, "cpu", parts=self._parts).plan
        provenance = {kind: dict(origin) for kind, origin in plan.provenance.items()}
        return [
            Variant(
                name,
                spec.to_json(),
                spec.hash,
                plan.parameters,
                provenance,
                tuple(runs[name]),
                shown[name].pictures if name in shown else None,
                self._sampler_of(candidate, name),
                None if name == candidate.name else candidate.name,
                shown[name].codes if name in shown else None,
            )
            for name in candidate.columns
        ]

    # ---- training -------------------------------------------------------------------------------

    def _trained(self, candidate: Candidate, seed: int) -> Trained:
        spec, parts = candidate.spec, self._parts
        if candidate.finished:
            return finished(candidate.finished[seed], self._target, parts)
        spec, path = with_seed(spec, seed, parts), self._path(candidate, seed)
        model = assemble(spec, self._splits.contract, spec.training.device, parts=parts)
        if path is not None:
            kept = same_run(path, spec, model.plan, self._data, model.device, parts)
            if isinstance(kept, Trained):
                return kept
            if kept:
                self.notes.append(f"{path} was trained again: {kept}.")
        progress, name = self._progress, candidate.name
        told = None if progress is None else (lambda line: progress(name, seed, line))
        run = Trainer(model, self._splits, RunFolder(path), self._hooks, told).run()
        return Trained(
            run.model, run.metrics, run.kept_epoch, run.seconds, run.peak_memory, run.warnings
        )

    def _path(self, candidate: Candidate, seed: int) -> Path | None:
        if candidate.finished:
            return candidate.finished[seed]
        if self._folder is None:
            return None
        return self._folder / "runs" / self._folders[candidate.name] / f"seed-{seed}"

    # ---- measuring ------------------------------------------------------------------------------

    def _measured(
        self, candidate: Candidate, seed: int, trained: Trained, shown: dict[str, View]
    ) -> dict[str, VariantRun]:
        """A run for each column of a candidate; the first that does not fail is the one shown."""
        model, splits = trained.model, self._splits
        cost = {"seconds": trained.seconds, "peak_memory": trained.peak_memory}
        subject = Subject(
            model,
            splits.seen(self.split, model.dtype),
            splits.seen("train", model.dtype),
            cost={name: value for name, value in cost.items() if value is not None},
        )
        path = self._path(candidate, seed)
        made: dict[str, VariantRun] = {}
        for column in candidate.columns:
            try:
                asked = candidate.samplers.get(column)
                sampler = None if asked is None else self._sampler(candidate, path, asked, subject)
                if sampler is not None:
                    self._used.setdefault(column, dict(sampler.about["sampler"]))
                figures = self._metrics.measure(subject.sampled_by(sampler))
            except Exception as error:  # noqa: BLE001 - whatever ends one column, the others go on
                made[column] = _failed(seed, error, trained, self._told(path))
                continue
            if column not in shown:
                self._show(shown, column, subject, seed, sampler)
            made[column] = VariantRun(
                seed=seed,
                path=self._told(path),
                seconds=trained.seconds,
                history=trained.history,
                kept_epoch=trained.kept_epoch,
                figures=figures,
                warnings=trained.warnings,
                peak_memory=trained.peak_memory,
                reused=trained.reused,
            )
        return made

    def _show(
        self,
        shown: dict[str, View],
        column: str,
        subject: Subject,
        seed: int,
        sampler: Sampler | None,
    ) -> None:
        """Keep what a run shows. What was measured stands, even if nothing can be shown of it."""
        try:
            shown[column] = views.view(subject, self.items, seed, sampler)
        except Exception as error:  # noqa: BLE001 - a stranger's part may raise anything
            why = f"{type(error).__name__}: {error}"
            self.notes.append(f"{column}, seed {seed}, shows no pictures and no codes: {why}.")

    def _sampler(
        self, candidate: Candidate, path: Path | None, asked: Asked, subject: Subject
    ) -> Sampler:
        """The sampler that a run keeps, if it will do; else one fitted now, and kept if the run is ours."""
        model, config, parts = subject.model, asked.config, self._parts
        ours = not candidate.finished
        # What was registered by hand may have changed without a trace.
        lasting = parts.get("sampler", config.type).distribution != LOCAL
        if path is not None and lasting:
            wanted = config if asked.exactly or ours else None
            try:
                kept = saved_sampler(path, config.type, model, asked=wanted, parts=parts)
            except ArtifactError:
                if not ours:
                    raise
            else:
                if kept is not None:
                    return kept
        given = config.model_dump(mode="json")
        fitted = fit_sampler(model, subject.items("train"), given, parts=parts)
        if path is not None and lasting and ours:
            save_sampler(fitted, path, parts=parts)
        return fitted

    def _sampler_of(self, candidate: Candidate, column: str) -> Json | None:
        """The sampler of a column with its options: as it was used, or at least as it was asked for."""
        asked = candidate.samplers.get(column)
        if asked is None:
            return None
        written: Json = asked.config.model_dump(mode="json")
        return self._used.get(column, written)

    def _told(self, path: Path | None) -> Path | None:
        """A run's folder as seen from the comparison's."""
        if path is None or self._folder is None or not path.is_relative_to(self._folder):
            return path
        return path.relative_to(self._folder)


def _failed(
    seed: int, error: Exception, trained: Trained | None = None, path: Path | None = None
) -> VariantRun:
    ours = isinstance(error, SfumatoError)
    why = str(error) if ours else f"{type(error).__name__}: {error}"
    if trained is None:
        return VariantRun(seed, path, 0.0, (), 0, {}, error=why)
    return VariantRun(
        seed, path, trained.seconds, trained.history, trained.kept_epoch, {}, trained.warnings,
        trained.peak_memory, trained.reused, why,
    )  # fmt: skip


def with_seed(spec: Spec, seed: int, parts: Registry) -> Spec:
    """The spec with another seed, or a :class:`SpecError`."""
    return load_spec(spec, [f"training.seed={seed}"], parts=parts)


def _safe(name: str) -> str:
    """A folder name for a model: what is not a letter, digit, dot, dash or underscore becomes a dash."""
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
