"""Checkpoints of a run: all that it depends on from here on, in folders that verify themselves.

::

    run/checkpoints/step-00001200/  model.safetensors     the weights, a model file like the result
                                    best.safetensors      those of the best epoch so far, if others
                                    training.safetensors  tensors of optimisers and sums
                                    training.json         where the run stands
                                    metrics.jsonl         the epochs so far
                                    manifest.json         SHA-256 of each, and of itself
    run/checkpoints/weights-…/      weights alone, which cannot be gone on from

Of random numbers there is nothing to keep: they have keys.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from sfumato import manifest
from sfumato.artifact import WEIGHTS, content
from sfumato.errors import ArtifactError, SfumatoError
from sfumato.files import make_folder, remove_at_once
from sfumato.migrations import migrated
from sfumato.model import Model
from sfumato.plain_state import packed, unpacked
from sfumato.tensor_files import MAX_HEADER

FOLDER = "checkpoints"
BEST = "best.safetensors"
METRICS = "metrics.jsonl"
FORMAT = 1
_TENSORS, _STATE = "training.safetensors", "training.json"
_STEP, _WEIGHTS = "step", "weights"
_STAGES = ("ended", "fitted", "")
"""Of as many steps: before the likelihood was fitted, before it was validated, before the next epoch."""
_MUCH = 1 << 28
"""Bytes of a text, and of what state may hold besides what belongs to weights."""
_OF_WEIGHTS = 16
"""Bytes of state that an optimiser may have for each byte of weights."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from.

    Args:
        folder: Where it was.
        weights: Of the model.
        best: Those of the best epoch, where they are others.
        state: Where the run stands, and what else it depends on.
        metrics: Lines of the epochs that have ended.
    """

    folder: Path
    weights: Mapping[str, Tensor]
    best: Mapping[str, Tensor] | None
    state: Mapping[str, Any]
    metrics: tuple[Json, ...]


def write(
    run: Path,
    name: str,
    model: Model,
    best: Mapping[str, Tensor] | None,
    state: Mapping[str, Any] | None,
    metrics: Sequence[Json],
    *,
    keep: int,
) -> None:
    """Write a checkpoint, then remove all but the newest ones.

    Args:
        run: The run folder.
        name: Steps taken, in eight digits at least, and what tells places apart that have as many.
        model: With its weights.
        best: Weights of the best epoch, if others.
        state: From which to go on; without it, weights alone are written, if there is no checkpoint
            of this step yet.
        metrics: Lines of the epochs that have ended.
        keep: How many checkpoints to keep.

    Raises:
        OutputError: It cannot be written. Those that were there are whole.
    """
    folder = run / FOLDER
    make_folder(folder)
    if state is not None:
        manifest.write(folder / f"{_STEP}-{name}", _files(model, best, state, metrics))
    elif not (folder / f"{_STEP}-{name}").is_dir():
        manifest.write(folder / f"{_WEIGHTS}-{name}", _models(model, best))
    for kind in (_STEP, _WEIGHTS):
        # What is later was passed over, for it is damaged; the run comes to that place again.
        found = [
            old
            for old in _numbered(folder, kind)
            if _order(old) <= _order(folder / f"{kind}-{name}")
        ]
        for old in found[keep:]:
            with suppress(OSError):  # it is in nobody's way
                remove_at_once(old)


def newest(
    run: Path, model: Model, known: Collection[str] | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and what is wrong with those that are newer.

    Args:
        run: The run folder.
        model: One of the same parts.
        known: What checkpoints of this run say that they are of; None takes any.

    Raises:
        ArtifactError: There are checkpoints, and none is whole.
    """
    wrong: list[str] = []
    there = folders(run)
    for folder in there:
        try:
            found, extra = _read(folder, run, model, known)
        except SfumatoError as error:
            wrong.append(f"{error.message}; an older checkpoint is taken")
            continue
        if extra:
            wrong.append(
                f"{folder} holds what is none of its own, and is not read: {', '.join(extra)}"
            )
        return found, wrong
    if there:
        msg = f"no checkpoint of {run} is whole: {wrong[0].rpartition(';')[0]}"
        raise ArtifactError(msg, hint=anew(run))
    return None, wrong


def anew(run: Path | None) -> str:
    """How to begin a run from its first step."""
    return (
        f"train it anew: sfumato train {run}/spec.json --out {run} --force; or in another folder"
    )


def _check_origin(folder: Path, state: Mapping[str, Any], known: Collection[str] | None) -> None:
    """Raise a :class:`ValueError` unless a checkpoint is where it was written."""
    if _order(folder)[0] != state["step"]:
        msg = f"it is of step {state['step']}"
        raise ValueError(msg)
    if known is not None and state["of"] not in known:
        msg = "it is of another run"
        raise ValueError(msg)


def folders(run: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of a run that can be gone on from, the newest first. None is opened."""
    return _numbered(Path(run) / FOLDER, _STEP)


def _order(folder: Path) -> tuple[int, int]:
    """Where a checkpoint comes in a run."""
    _, step, stage = (*folder.name.split("-"), "")[:3]
    return int(step), _STAGES.index(stage)


def _numbered(folder: Path, kind: str) -> list[Path]:
    """Checkpoints of a kind, the newest first."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    name = re.compile(rf"{kind}-\d{{8,18}}(-ended|-fitted)?", re.ASCII)
    found = [entry for entry in folder.iterdir() if name.fullmatch(entry.name)]
    return sorted(found, key=_order, reverse=True)


# ---- writing --------------------------------------------------------------------------------------


def _models(
    model: Model, best: Mapping[str, Tensor] | None
) -> Iterator[tuple[str, manifest.Content]]:
    yield WEIGHTS, partial(content, model)
    if best is not None:
        yield BEST, partial(content, model, best)


def _files(
    model: Model,
    best: Mapping[str, Tensor] | None,
    state: Mapping[str, Any],
    metrics: Sequence[Json],
) -> Iterator[tuple[str, manifest.Content]]:
    yield from _models(model, best)
    said, tensors = packed(state)
    there = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    yield _TENSORS, lambda: save_tensors(there)
    yield _STATE, lambda: json.dumps({"format": FORMAT, "state": said}, allow_nan=False).encode()
    lines = "".join(json.dumps(line, allow_nan=False) + "\n" for line in metrics)
    yield METRICS, lines.encode


# ---- reading --------------------------------------------------------------------------------------


def _read(
    folder: Path, run: Path, model: Model, known: Collection[str] | None
) -> tuple[Checkpoint, list[str]]:
    sealed = manifest.Sealed(folder, run)
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values()) + MAX_HEADER
    try:
        weights = load_tensors(sealed.read(WEIGHTS, size))
        best = load_tensors(sealed.read(BEST, size)) if BEST in sealed else None
        tensors = load_tensors(sealed.read(_TENSORS, _OF_WEIGHTS * size + _MUCH))
        said = migrated("checkpoint", json.loads(sealed.read(_STATE, _MUCH)), FORMAT)
        lines = sealed.read(METRICS, _MUCH).decode().splitlines()
        state = unpacked(said["state"], tensors)
        _check_origin(folder, state, known)
        found = Checkpoint(folder, weights, best, state, tuple(map(json.loads, lines)))
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        if isinstance(error, ArtifactError):
            raise
        msg = f"{folder} cannot be gone on from: {error}"
        raise ArtifactError(msg) from error
    return found, sealed.extra()
