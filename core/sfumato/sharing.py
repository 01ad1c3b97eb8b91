"""Among how many processes the runs of a comparison are shared out."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sfumato.candidates import Candidate
from sfumato.columns import Columns
from sfumato.data import Splits
from sfumato.devices import choose_device
from sfumato.errors import DataError
from sfumato.evaluation import MetricLike
from sfumato.figures import Json
from sfumato.hooks import Hooks
from sfumato.jobs import Job, Outcome
from sfumato.matching import steps_of
from sfumato.plugin_files import file_of
from sfumato.registry import LOCAL, Entry, Registry, registry
from sfumato.resolve import resolve_part
from sfumato.stacks import in_stacks
from sfumato.surroundings import Surroundings
from sfumato.workbench import Progress, Workbench, one_by_one
from sfumato.workers import Workers

VARIABLE = "SFUMATO_WORKERS"
_WORTH = 5000
"""Optimiser steps in all, even of small models, that take longer than the start of processes."""


@dataclass(frozen=True)
class Share:
    """How the runs of a comparison are shared out.

    Args:
        processes: Among how many processes; with 1 all is done in this one.
        metrics: What is measured, with all options, as JSON data.
        files: Files that registered parts in use.
        note: What to know of it.
        stacked: Whether runs that differ in their numbers alone train as one batched model.
    """

    processes: int
    metrics: Sequence[Json] = ()
    files: tuple[Path, ...] = ()
    note: str | None = None
    stacked: bool = False

    @classmethod
    def of(
        cls,
        found: Sequence[Candidate],
        runs: int,
        splits: Splits,
        metrics: Sequence[MetricLike],
        target: torch.device,
        workers: int | None,
        parts: Registry,
        *,
        stack: bool | None = None,
    ) -> Share:
        """How many processes are asked for, if that is possible and worth it.

        Args:
            found: The candidates.
            runs: How many runs there are.
            splits: The data.
            metrics: What is measured.
            target: Where finished runs are measured.
            workers: How many processes are asked for.
            parts: Where parts are looked up.
            stack: Whether runs are to be stacked; by default on CUDA.
        """
        if stack or (stack is None and target.type == "cuda"):
            several = workers is not None and workers > 1
            told = "Runs in a stack are made in one process, whatever workers says."
            return cls(1, note=told if several else None, stacked=True)
        count = min(processes(workers), runs)
        if count == 1 or (workers is None and _steps(found, splits, runs) < _WORTH):
            return cls(1)
        configs = [resolve_part("metric", m, "/metrics", parts) for m in metrics]
        samplers = [asked.config for c in found for asked in c.samplers.values()]
        measured = [config.model_dump(mode="json") for config in configs]
        by_hand = _by_hand(
            [
                *(c.spec.to_json() for c in found),
                *(s.model_dump(mode="json") for s in samplers),
                *measured,
            ]
        )
        why = _obstacle(found, by_hand, target, parts)
        if why is not None:
            told = f"Runs were made in one process, one after another: {why}."
            return cls(1, note=told if workers is not None else None)
        made = [file_of(entry) for entry in by_hand]
        return cls(count, measured, tuple(dict.fromkeys(f for f in made if f is not None)))

    def fill(
        self, columns: Columns, bench: Workbench, hooks: Hooks, progress: Progress | None
    ) -> list[str]:
        """Have all runs made, here or elsewhere, and say what is to be known of that."""
        notes = [] if self.note is None else [self.note]

        def run(jobs: Iterator[Job]) -> Generator[tuple[Job, Outcome]]:
            if self.processes > 1:
                here = Surroundings.here(self.files)
                with Workers(
                    self.processes, here, bench.conditions, self.metrics, hooks, progress
                ) as workers:
                    yield from workers.run(jobs, len(columns))
                if workers.unable is not None:
                    notes.append(f"A process could not start: {workers.unable}.")
            if self.stacked:
                yield from in_stacks(bench, jobs, hooks, progress, notes)
            # All of them, or those that no process could be started for.
            yield from one_by_one(bench, jobs, hooks, progress)

        columns.fill(run)
        columns.show(bench)
        return notes


def processes(workers: int | None) -> int:
    """How many processes there may be: as many as are asked for, else one a core of this process.

    ``SFUMATO_WORKERS`` names another number for where none is asked for.

    Raises:
        DataError: That is no number of processes.
    """
    told = os.environ.get(VARIABLE, "") if workers is None else workers
    if told == "":
        return _cores()
    number = str(told).strip()
    if isinstance(told, bool) or not number.isdecimal() or int(number) < 1:
        name = VARIABLE if workers is None else "workers"
        msg = f"{name} = {told!r}: it should be a number of processes, 1 or more"
        raise DataError(msg, hint="leave it out for one a core")
    return int(number)


def _cores() -> int:
    # Those that this process may use: in a container or under a scheduler not all that there are.
    usable = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if usable is None else len(usable(0))


def _steps(found: Sequence[Candidate], splits: Splits, runs: int) -> int:
    """About how many optimiser steps are to be taken in all."""
    seeds = runs / len(found)
    return round(sum(steps_of(c.spec, splits) * seeds for c in found if not c.finished))


def _obstacle(
    found: Sequence[Candidate], by_hand: Sequence[Entry], target: torch.device, parts: Registry
) -> str | None:
    """Why runs cannot go to other processes, as half a sentence; None if they can."""
    devices = {target, *(choose_device(c.spec.training.device) for c in found if not c.finished)}
    if other := next((d for d in devices if d.type != "cpu"), None):
        return f"they are made on {other}"
    if parts is not registry:
        return "their parts are of a registry of their own"
    if entry := next((e for e in by_hand if file_of(e) is None), None):
        return f"{entry.kind} {entry.name} was registered by hand, in this one"
    return None


def _by_hand(written: Sequence[Any]) -> list[Entry]:
    """The parts in JSON data that were registered by hand, in the order in which they were."""
    used = {name for value in written for name in _types(value)}
    return [e for e in registry if e.distribution == LOCAL and e.reference in used]


def _types(value: Any) -> Iterator[str]:
    """The names of all parts in JSON data."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value["type"]
        for inner in value.values():
            yield from _types(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _types(inner)
