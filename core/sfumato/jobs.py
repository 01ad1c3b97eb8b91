"""What is asked for of a run of a comparison, and what comes of it.

These are plain data, so that it makes no difference in which process a run is made, nor which one
is ready first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from sfumato.data import Splits
from sfumato.figures import Json
from sfumato.results import VariantRun, View


@dataclass(frozen=True)
class Source:
    """Where a column generates from, besides the prior.

    Args:
        config: A sampler with all its options, as JSON data.
        exactly: Whether one that was fitted with other options will not do.
    """

    config: Json
    exactly: bool


@dataclass(frozen=True)
class Job:
    """A run that is asked for.

    Args:
        name: The candidate's name.
        seed: Its seed.
        spec: The candidate's resolved spec, as JSON data.
        base: Folder that its relative paths are relative to.
        columns: The candidate's columns, and where each generates from; None: from the prior.
        path: The run folder, or None.
        finished: Whether the run in it stands for a training as it is.
        shown: Columns that pictures and codes are wanted of.
    """

    name: str
    seed: int
    spec: Json
    base: Path
    columns: Mapping[str, Source | None]
    path: Path | None = None
    finished: bool = False
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Args:
        runs: Its figures and how its training went, by column.
        views: What it shows, by column, as far as that was asked for.
        samplers: Samplers with their options as they were used, by column.
        notes: What happened on the way, in sentences.
        parameters: Number of trained parameters; None if there was no training.
        provenance: For each part, its distribution, version and target.
    """

    runs: Mapping[str, VariantRun]
    views: Mapping[str, View] = field(default_factory=dict)
    samplers: Mapping[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parameters: int | None = None
    provenance: Json = field(default_factory=dict)

    @classmethod
    def lost(cls, job: Job, why: str, notes: Sequence[str] = ()) -> Outcome:
        """That of a run that no training came of."""
        failed = VariantRun(job.seed, None, 0.0, (), 0, {}, error=why)
        return cls(dict.fromkeys(job.columns, failed), notes=tuple(notes))


@dataclass(frozen=True)
class Conditions:
    """What all runs of a comparison share, as plain data.

    Args:
        splits: The data.
        data: Their fingerprint.
        target: Where finished runs are measured.
        folder: The comparison's folder, or None.
    """

    splits: Splits
    data: str
    target: torch.device
    folder: Path | None
