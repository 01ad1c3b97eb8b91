"""The columns of a comparison: what came of candidates with every seed, in their order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from sfumato.candidates import Candidate
from sfumato.figures import Json
from sfumato.hooks import Hooks
from sfumato.jobs import Job, Outcome, Source
from sfumato.registry import Registry
from sfumato.resolve import load_spec
from sfumato.results import Variant, View
from sfumato.spec import Spec
from sfumato.workbench import Workbench

_LONGEST = 60

Runner = Callable[[Iterator[Job]], Generator[tuple[Job, Outcome]]]
"""Makes runs, and gives what came of them in any order."""


class Columns:
    """What is asked for of the candidates of a comparison, and what came of it.

    The columns are the same in whatever order runs get ready.

    Args:
        found: The candidates.
        seeds: Seeds of those that are trained here.
        folder: Where runs are kept, or None.
    """

    def __init__(
        self, found: Sequence[Candidate], seeds: Sequence[int], folder: Path | None
    ) -> None:
        names = [c.name for c in found]
        self._folders = dict(zip(names, unique_names([_safe(n) for n in names]), strict=True))
        self._found, self._folder = found, folder
        self._runs = [(candidate, seed) for candidate in found for seed in candidate.seeds(seeds)]
        self._done: dict[tuple[str, int], Outcome] = {}
        self._asked: dict[tuple[str, int], tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def notes(self) -> list[str]:
        """What happened on the way, in sentences, in the order of candidates and seeds."""
        return [note for c, seed in self._runs for note in self._done[c.name, seed].notes]

    def fill(self, run: Runner) -> None:
        """Have every candidate trained with every seed, and measured."""
        # Closed whatever happens: processes must not go on.
        with closing(run(self._jobs())) as made:
            for job, outcome in made:
                at = job.name, job.seed
                self._done[at], self._asked[at] = outcome, job.shown

    def show(self, bench: Workbench) -> None:
        """Ask for what columns show of later seeds, where the first has nothing to show.

        Seldom needed: runs that go on at once were begun before the first one was known to fail.
        """
        for candidate, seed in self._runs:
            at = candidate.name, seed
            outcome, asked = self._done[at], self._asked[at]
            missing = self._missing(candidate, seed) or ()
            late = [c for c in missing if c not in asked and outcome.runs[c].error is None]
            if not late:
                continue
            job = self._job(candidate, seed, tuple(late))
            # In its folder the run is finished by now. Without one it is trained again, unheard.
            job = replace(job, finished=job.path is not None)
            again = bench.run(job, Hooks(Registry("none")), None)
            self._done[at] = replace(
                outcome, views={**outcome.views, **again.views}, notes=outcome.notes + again.notes
            )

    def variants(self, bench: Workbench) -> tuple[Variant, ...]:
        """The columns."""
        return tuple(v for candidate in self._found for v in self._variants(candidate, bench))

    def _variants(self, candidate: Candidate, bench: Workbench) -> list[Variant]:
        done = [self._done[c.name, seed] for c, seed in self._runs if c is candidate]
        spec, made = candidate.spec, [o for o in done if o.parameters is not None]
        if made:
            parameters, provenance = made[-1].parameters or 0, made[-1].provenance
        else:  # every run failed
            plan = bench.plan(spec)
            parameters = plan.parameters
            provenance = {kind: dict(origin) for kind, origin in plan.provenance.items()}
        columns: list[Variant] = []
        for name in candidate.columns:
            shown: View | None = next((o.views[name] for o in done if name in o.views), None)
            columns.append(
                Variant(
                    name,
                    spec.to_json(),
                    spec.hash,
                    parameters,
                    provenance,
                    tuple(outcome.runs[name] for outcome in done),
                    None if shown is None else shown.pictures,
                    self._sampler(candidate, name, done),
                    None if name == candidate.name else candidate.name,
                    None if shown is None else shown.codes,
                )
            )
        return columns

    # ---- what is asked for ----------------------------------------------------------------------

    def _jobs(self) -> Iterator[Job]:
        """Every run. Views are wanted of the first that has one, as far as that is known by now."""
        for candidate, seed in self._runs:
            yield self._job(candidate, seed, self._missing(candidate, seed) or ())

    def _missing(self, candidate: Candidate, seed: int) -> tuple[str, ...] | None:
        """Columns that no earlier seed shows; None if one is still to come."""
        earlier = [s for c, s in self._runs if c is candidate]
        done = [self._done.get((candidate.name, s)) for s in earlier[: earlier.index(seed)]]
        if None in done:
            return None
        shown = {name for outcome in done if outcome is not None for name in outcome.views}
        return tuple(name for name in candidate.columns if name not in shown)

    def _job(self, candidate: Candidate, seed: int, shown: tuple[str, ...]) -> Job:
        asked = {
            name: Source(sampler.config.model_dump(mode="json"), sampler.exactly)
            for name, sampler in candidate.samplers.items()
        }
        return Job(
            candidate.name,
            seed,
            candidate.spec.to_json(),
            candidate.spec.base,
            {candidate.name: None, **asked},
            self._path(candidate, seed),
            bool(candidate.finished),
            shown,
        )

    def _path(self, candidate: Candidate, seed: int) -> Path | None:
        if candidate.finished:
            return candidate.finished[seed]
        if self._folder is None:
            return None
        return self._folder / "runs" / self._folders[candidate.name] / f"seed-{seed}"

    def _sampler(self, candidate: Candidate, column: str, done: Sequence[Outcome]) -> Json | None:
        """The sampler of a column with its options: as it was used, or at least as it was asked for."""
        asked = candidate.samplers.get(column)
        if asked is None:
            return None
        written: Json = asked.config.model_dump(mode="json")
        return next((o.samplers[column] for o in done if column in o.samplers), written)


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
