"""What trainings were, and what they cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfumato import Comparison, Variant, VariantRun
from sfumato_report.text import duration, integer


def budget(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """What each variant costs: a cell a variant of parameters, epochs, time and, where known, memory."""
    variants = comparison.variants
    rows = [
        ("trained parameters", [integer(v.parameters) for v in variants]),
        ("epochs, mean over seeds", [_mean(v, _epochs, "{:.4g}".format) for v in variants]),
        (
            "training time, mean over seeds",
            [_mean(v, lambda r: r.seconds, duration) for v in variants],
        ),
    ]
    if any(run.peak_memory for v in variants for run in v.runs):
        memory = [_mean(v, lambda r: r.peak_memory, _mebibytes) for v in variants]
        rows.append(("peak memory, mean over seeds", memory))
    return rows


def _mean(
    variant: Variant,
    of: Callable[[VariantRun], float | None],
    said: Callable[[float], str],
) -> str:
    known = [value for run in variant.runs if run.error is None and (value := of(run)) is not None]
    return said(statistics.fmean(known)) if known else "failed" if variant.errors else "\u2013"


def _epochs(run: VariantRun) -> float | None:
    return max((int(e["epoch"]) for e in run.history), default=None)


def _mebibytes(count: float) -> str:
    return f"{integer(round(count / 2**20))} MiB"


@dataclass(frozen=True)
class Record:
    """One training.

    Args:
        variant: Index of its variant.
        seed: Its seed.
        kept: Epoch whose weights were kept.
        last: Last epoch.
        time: Training time.
        folder: Its folder, seen from the report.
    """

    variant: int
    seed: int
    kept: int
    last: int
    time: str
    folder: str


def records(comparison: Comparison) -> list[Record]:
    """Every training of the comparison."""
    out = []
    for index, variant in enumerate(comparison.variants):
        for run in variant.runs if variant.trained_as is None else ():
            last = max((int(e["epoch"]) for e in run.history), default=run.kept_epoch)
            folder = _folder(run.path, comparison.path)
            time = duration(run.seconds)
            out.append(Record(index, run.seed, run.kept_epoch, last, time, folder))
    return out


def _folder(path: Path | None, base: Path | None) -> str:
    """A run's folder as seen from the report, which is passed on and names nobody's disk."""
    if path is None:
        return ""
    if base is not None and path.is_relative_to(base):
        path = path.relative_to(base)
    return path.name if path.is_absolute() else path.as_posix()
