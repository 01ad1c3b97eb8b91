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
from collections.abc import Iterator, Mapping, Sequence
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
from sfumato.files import make_folder, remove
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
    step: int,
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
        step: Steps taken.
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
        manifest.write(folder / f"{_STEP}-{step:08d}", _files(model, best, state, metrics))
    elif not (folder / f"{_STEP}-{step:08d}").is_dir():
        manifest.write(folder / f"{_WEIGHTS}-{step:08d}", _models(model, best))
    for kind in (_STEP, _WEIGHTS):
        later, others = _later(_numbered(folder, kind), step)
        # What is later is of a past that did not come to be: the run went on from an earlier place.
        for old in (*later, *others[keep:]):
            with suppress(OSError):  # it is in nobody's way
                remove(old)


def newest(run: Path, model: Model) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and what is wrong with those that are newer.

    Args:
        run: The run folder.
        model: One of the same parts.

    Raises:
        ArtifactError: There are checkpoints, and none is whole.
    """
    wrong: list[str] = []
    there = folders(run)
    for folder in there:
        try:
            found, extra = _read(folder, run, model)
        except SfumatoError as error:
            wrong.append(f"{error.message}; an older checkpoint is taken")
            continue
        if extra:
            wrong.append(
                f"{folder} holds what is none of its own, and is not read: {', '.join(extra)}"
            )
        return found, wrong
    if there:
        last = wrong[-1].rpartition(";")[0]
        msg = f"no checkpoint of {run} is whole: {last}"
        raise ArtifactError(msg, hint="train again: --force")
    return None, wrong


def folders(run: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of a run that can be gone on from, the newest first. None is opened."""
    return _numbered(Path(run) / FOLDER, _STEP)


def _later(found: Sequence[Path], step: int) -> tuple[list[Path], list[Path]]:
    """Those of later steps, and the others."""
    later = [path for path in found if int(path.name.rpartition("-")[2]) > step]
    return later, [path for path in found if path not in later]


def _numbered(folder: Path, kind: str) -> list[Path]:
    """Checkpoints of a kind, the newest first."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    name = re.compile(rf"{kind}-(\d{{8,}})", re.ASCII)
    found = [(m, entry) for entry in folder.iterdir() if (m := name.fullmatch(entry.name))]
    return [path for _, path in sorted(found, key=lambda pair: int(pair[0][1]), reverse=True)]


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


def _read(folder: Path, run: Path, model: Model) -> tuple[Checkpoint, list[str]]:
    sealed = manifest.Sealed(folder, run)
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values()) + MAX_HEADER
    try:
        weights = load_tensors(sealed.read(WEIGHTS, size))
        best = load_tensors(sealed.read(BEST, size)) if BEST in sealed else None
        tensors = load_tensors(sealed.read(_TENSORS, _OF_WEIGHTS * size + _MUCH))
        said = migrated("checkpoint", json.loads(sealed.read(_STATE, _MUCH)), FORMAT)
        lines = sealed.read(METRICS, _MUCH).decode().splitlines()
        state = unpacked(said["state"], tensors)
        found = Checkpoint(folder, weights, best, state, tuple(map(json.loads, lines)))
    except (SafetensorError, ValueError, LookupError, RecursionError) as error:
        if isinstance(error, ArtifactError):
            raise
        msg = f"{folder} cannot be read: {error}"
        raise ArtifactError(msg) from error
    return found, sealed.extra()
