"""Training: from a spec and data to a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.agreement import differences
from sfumato.artifact import WEIGHTS
from sfumato.assembly import assemble
from sfumato.cautions import cautions
from sfumato.checkpoints import anew
from sfumato.data import Splits, as_splits, fingerprint
from sfumato.datasets import check_splits, load_splits
from sfumato.devices import choose_device
from sfumato.errors import ArtifactError, DataError, Problem, ResumeError, SpecError
from sfumato.hooks import Hooks, TrackerLike
from sfumato.lock import check_free
from sfumato.model import Model
from sfumato.opening import from_here
from sfumato.registry import Registry, registry
from sfumato.resolve import bind, load_spec
from sfumato.reuse import finished
from sfumato.run import Run, read_run, run_folder
from sfumato.run_folder import RunFolder
from sfumato.spec import Spec
from sfumato.standing import STACKED
from sfumato.trainer import Again, Progress, Trainer
from sfumato.training_checks import check_training

Data = Splits | Tensor | np.ndarray[Any, Any] | Mapping[str, Any]


def train(
    spec: Spec | Mapping[str, Any] | str | os.PathLike[str],
    data: Data | None = None,
    out: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    seed: int | None = None,
    *,
    force: bool = False,
    resume: bool = False,
    drift: bool = False,
    checkpoint_every: str | None = None,
    keep_checkpoints: int | None = None,
    trackers: Sequence[TrackerLike] = (),
    progress: Progress | None = None,
    parts: Registry = registry,
) -> Run:
    """Train a model.

    Everything is checked before the first step, and before anything is written.

    A run that was killed goes on with ``resume``, and comes out as if it had not been, to the bit:
    weights, states of optimisers, metrics. That is refused where it would come out otherwise, because
    its spec, its data, a plugin, the build of torch, the device or the number of threads is another.

    Args:
        spec: A spec, a mapping or a path.
        data: A tensor or array ``(n, *X)`` (see :func:`sfumato.as_splits` for how it is divided),
            a mapping of ``train``, ``valid`` and ``test`` arrays, or :class:`sfumato.Splits`. The
            spec's own by default.
        out: Run folder to write; None writes nothing.
        device: Instead of the spec's.
        seed: Instead of the spec's.
        force: Write into a folder that has content.
        resume: Go on with the run in ``out``; begin it if there is none; leave it if it is finished.
        drift: Go on although it will be another run, and record in what.
        checkpoint_every: How often to write what it can be gone on from: ``500 steps``, ``2 epochs``,
            ``0.5 minutes``; by default as before, or the last of these.
        keep_checkpoints: How many of these to keep; by default as before, or 2.
        trackers: Names of trackers that follow the run, or objects with their options.
        progress: Called with each epoch's line of ``metrics.jsonl``.
        parts: Where parts are looked up.

    Returns:
        The run: ``.model``, ``.metrics``, ``.path``.

    Raises:
        SpecError: The spec is wrong, or its parts do not fit the data.
        DataError: The data cannot be used; :class:`SupportError` if the likelihood cannot score
            them.
        DeviceError: No such device.
        OutputError: ``out`` cannot be written, or has content; :class:`DiskFullError` if there is no
            room.
        LockedError: Another process trains in ``out``.
        ResumeError: The run in ``out`` would become another one.
        NonFiniteError: A loss term or a gradient stopped being finite; it names the step and the term.
        OutOfMemoryError: The device has too little memory.
    """
    resolved = load_spec(spec, parts=parts)
    if device is not None:
        choose_device(device)
    given = {"device": None if device is None else str(device), "seed": seed}
    changes = [f"training.{name}={value}" for name, value in given.items() if value is not None]
    resolved = load_spec(resolved, changes, parts=parts) if changes else resolved
    path = None if out is None else Path(out)
    if resume and (path is None or force):
        what = "it needs one: out" if path is None else "force would write over it"
        msg = f"resume = True goes on with a run folder, and {what}"
        raise DataError(msg)
    folder = RunFolder(
        path, force=force, resume=resume, every=checkpoint_every, keep=keep_checkpoints
    )
    begun = resume and folder.has_begun()
    if path is not None:
        check_free(path)
    if not begun:
        folder.check()
    if data is None:
        splits = load_splits(resolved, parts=parts)
    else:
        splits = as_splits(data)
        check_splits(splits)
        # The spec of the run does not name data that it was not trained on.
        resolved = resolved.model_copy(update={"data": None})
    resolved = bind(resolved, splits.contract, parts)
    model = assemble(resolved, splits.contract, resolved.training.device, parts=parts)
    again = None
    if begun and path is not None:
        again = _again(path, model, splits, parts, drift=drift)
        if again is None:
            folder.tidy()
            return finished(path, model.device, parts).run(path)
    check_training(model, splits)
    told = cautions(splits)
    hooks = Hooks(parts, trackers)
    return Trainer(model, splits, folder, hooks, progress, again=again, cautions=told).run()


def resume(
    run: Run | str | os.PathLike[str],
    data: Data | None = None,
    overrides: Sequence[str] = (),
    *,
    drift: bool = False,
    checkpoint_every: str | None = None,
    keep_checkpoints: int | None = None,
    trackers: Sequence[TrackerLike] = (),
    progress: Progress | None = None,
    parts: Registry = registry,
) -> Run:
    """Go on with a run that did not finish: :func:`train` with ``resume``, of the spec in its folder.

    Args:
        run: The run folder, or a run that has one.
        data: What it was trained on, if its spec does not name it.
        overrides: Changes of the spec, such as ``training.epochs=200``; all but where the data are
            need ``drift``.
        drift: Go on although it will be another run, and record in what.
        checkpoint_every: As of :func:`train`.
        keep_checkpoints: As of :func:`train`.
        trackers: As of :func:`train`.
        progress: As of :func:`train`.
        parts: Where parts are looked up.

    Raises:
        ArtifactError: Not a run folder, or damaged; or of its checkpoints none is whole.
        SfumatoError: As of :func:`train`.

    Example:
        >>> from tempfile import mkdtemp
        >>> spec, out = {"data": "digits", "model": {"family": "ae"}}, f"{mkdtemp()}/run"
        >>> made = train(load_spec(spec, ["training.epochs=1"]), out=out)
        >>> more = resume(out, overrides=["training.epochs=2"], drift=True)
        >>> len(more.metrics)
        2
    """
    path = run.path if isinstance(run, Run) else Path(run)
    if path is None:
        msg = "the run has no folder to go on from"
        raise ResumeError(msg, hint="train with out=FOLDER")
    folder = run_folder(path)
    if folder.absolute() != path.absolute():
        msg = f"{path} is a part of the run {folder}"
        raise ResumeError(msg, hint=f"go on from its newest checkpoint: sfumato resume {folder}")
    spec = read_run(folder, parts=parts)[0]
    if any(change.startswith("model.family") for change in overrides):
        message = "the spec of a run names every part, so that a family changes nothing"
        hint = "name the parts that are to be others"
        raise SpecError([Problem("K206", "/model/family", message, hint)])
    if overrides:
        spec = from_here(spec, load_spec(spec, overrides, parts=parts))
    if data is None and spec.data is None:
        msg = f"{folder} was given its data in Python, and does not know where they are"
        raise ResumeError(msg, hint="give them again: sfumato.resume(run, data)")
    return train(
        spec, data, folder, resume=True, drift=drift, checkpoint_every=checkpoint_every,
        keep_checkpoints=keep_checkpoints, trackers=trackers, progress=progress, parts=parts,
    )  # fmt: skip


def _again(
    path: Path, model: Model, splits: Splits, parts: Registry, *, drift: bool
) -> Again | None:
    """How a run that has begun is taken up; None if it is finished, and nothing is to be done.

    Raises:
        ResumeError: It would come out otherwise than it would have, unless that is wanted.
    """
    (before, about), spec = read_run(path, parts=parts), model.spec
    if "spec_hash" not in about:
        msg = f"{path}/run.json is damaged: it does not say which spec it is of"
        raise ArtifactError(msg, hint=anew(path))
    if spec.hash == about["spec_hash"]:
        before = spec
    elif before.hash != about["spec_hash"]:
        msg = f"{path}/spec.json is not the spec that the run began with"
        hint = "put it back, or name it: sfumato train SPEC --out RUN --resume"
        raise ResumeError(msg, hint=hint)
    found = differences(about, before, spec, model.plan, fingerprint(splits), model.device)
    if found and not drift:
        msg = f"{path} would become another run:\n" + "\n".join(f"   {text}" for text in found)
        raise ResumeError(msg, hint=_hint(about, found))
    if not found and about.get("status") == "finished" and (path / WEIGHTS).is_file():
        return None
    if about.get("stepping") == STACKED:
        msg = f"{path} was trained as one of several models at once, and cannot go on alone"
        raise ResumeError(msg, hint="train it anew: --force, or another folder")
    earlier = [text for once in about.get("resumed", ()) for text in once.get("drift", ())]
    model.plan = replace(model.plan, drift=(*earlier, *found))
    return Again(about, tuple(found))


def _hint(about: Mapping[str, Any], found: Sequence[str]) -> str:
    threads = about.get("environment", {}).get("threads")
    if len(found) == 1 and found[0].startswith("threads: "):
        return f"set OMP_NUM_THREADS={threads}, or go on all the same: --drift (drift=True)"
    return "make it as it was, or go on all the same: --drift (drift=True)"
