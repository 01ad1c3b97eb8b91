"""Runs of a comparison that train as one batched model, and then are measured one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any

from sfumato.hook_order import OneRunAtATime
from sfumato.hooks import Hooks
from sfumato.jobs import Job, Outcome
from sfumato.registry import Registry
from sfumato.reuse import Trained
from sfumato.run import Run
from sfumato.stacked import train_stacked
from sfumato.stacked_step import CannotStack
from sfumato.trainer import Trainer
from sfumato.workbench import Progress, Workbench, told

Begun = Trained | Trainer | Exception


class _Numbered(Hooks):
    """Hooks of one of several runs that go on at once, which hear of one after another."""

    def __init__(self, ordered: OneRunAtATime, number: int) -> None:
        super().__init__(Registry("none"))
        self._ordered, self._number = ordered, number

    def call(self, hook: str, **arguments: Any) -> None:
        self._ordered.call(self._number, hook, arguments)


def in_stacks(
    bench: Workbench,
    jobs: Iterator[Job],
    hooks: Hooks,
    progress: Progress | None,
    notes: list[str],
) -> Iterator[tuple[Job, Outcome]]:
    """Make runs, those together that differ in their numbers alone.

    Args:
        bench: Where they are made.
        jobs: The runs.
        hooks: Who wants to know of trainings.
        progress: Called with the candidate's name, the seed and each epoch's line.
        notes: What is to be known is added to them.
    """
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(bench.family(job), []).append(job)
    ordered, numbers = OneRunAtATime(hooks), count()
    try:
        for group in groups.values():
            numbered = [(next(numbers), job) for job in group]
            yield from _made(bench, numbered, ordered, progress, notes)
    finally:
        ordered.rest()


def _made(
    bench: Workbench,
    numbered: Sequence[tuple[int, Job]],
    ordered: OneRunAtATime,
    progress: Progress | None,
    notes: list[str],
) -> Iterator[tuple[Job, Outcome]]:
    told_of: list[list[str]] = [[] for _ in numbered]
    begun: list[Begun] = []
    for (number, job), more in zip(numbered, told_of, strict=True):
        line = None if progress is None else partial(progress, job.name, job.seed)
        try:
            begun.append(bench.begun(job, _Numbered(ordered, number), line, more, stacked=True))
        except Exception as error:  # noqa: BLE001 - whatever ends one run, the others go on
            begun.append(error)
    trained = iter(_trained([b for b in begun if isinstance(b, Trainer)], numbered, notes))
    for (number, job), start, more in zip(numbered, begun, told_of, strict=True):
        end = next(trained) if isinstance(start, Trainer) else start
        ordered.over(number)
        if isinstance(end, Exception):
            yield job, Outcome.lost(job, told(end), more)
        else:
            made = end if isinstance(end, Trained) else Trained.of(end)
            yield job, bench.measured(job, made, more)


def _trained(
    trainers: Sequence[Trainer], numbered: Sequence[tuple[int, Job]], notes: list[str]
) -> Sequence[Run | Exception]:
    if len(trainers) > 1:
        names = ", ".join(dict.fromkeys(job.name for _, job in numbered))
        try:
            made = train_stacked(trainers)
        except CannotStack as why:
            notes.append(f"Runs of {names} were trained one after another: {why}.")
        else:
            notes.append(
                f"{len(trainers)} runs of {names} were trained as one batched model: their training "
                "times are equal shares of its own."
            )
            return made
    return [_run(trainer) for trainer in trainers]


def _run(trainer: Trainer) -> Run | Exception:
    try:
        return trainer.run()
    except Exception as error:  # noqa: BLE001 - whatever ends one run, the others go on
        return error
