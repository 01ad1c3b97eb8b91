"""Training: from a spec and data to a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.modules.batchnorm import _BatchNorm

from sfumato.assembly import assemble
from sfumato.batches import Batches, chunks
from sfumato.data import Contract, Splits, as_splits
from sfumato.datasets import check_splits, load_splits
from sfumato.devices import choose_device
from sfumato.errors import (
    Problem,
    SpecError,
    SupportError,
)
from sfumato.files import check_new_folder
from sfumato.hooks import Hooks, TrackerLike
from sfumato.model import Model
from sfumato.registry import Registry, registry
from sfumato.resolve import bind, load_spec
from sfumato.run import Run, RunFolder
from sfumato.spec import Spec
from sfumato.step import parts_of
from sfumato.trainer import Progress, Trainer

Data = Splits | Tensor | np.ndarray[Any, Any] | Mapping[str, Any]


def train(
    spec: Spec | Mapping[str, Any] | str | os.PathLike[str],
    data: Data | None = None,
    out: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    seed: int | None = None,
    *,
    force: bool = False,
    trackers: Sequence[TrackerLike] = (),
    progress: Progress | None = None,
    parts: Registry = registry,
) -> Run:
    """Train a model.

    Everything is checked before the first step, and before anything is written.

    Args:
        spec: A spec, a mapping or a path.
        data: A tensor or array ``(n, *X)`` (see :func:`sfumato.as_splits` for how it is divided),
            a mapping of ``train``, ``valid`` and ``test`` arrays, or :class:`sfumato.Splits`. The
            spec's own by default.
        out: Run folder to write; None writes nothing.
        device: Instead of the spec's.
        seed: Instead of the spec's.
        force: Write into a folder that has content.
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
        OutputError: ``out`` cannot be written, or has content.
        NonFiniteError: A loss term stopped being finite; it names the step and the term.
        OutOfMemoryError: The device has too little memory.
    """
    resolved = load_spec(spec, parts=parts)
    if device is not None:
        choose_device(device)
    given = {"device": None if device is None else str(device), "seed": seed}
    changes = [f"training.{name}={value}" for name, value in given.items() if value is not None]
    resolved = load_spec(resolved, changes, parts=parts) if changes else resolved
    folder = None if out is None else Path(out)
    if folder is not None:
        check_new_folder(folder, force=force)
    if data is None:
        splits = load_splits(resolved, parts=parts)
    else:
        splits = as_splits(data)
        check_splits(splits)
        # The spec of the run does not name data that it was not trained on.
        resolved = resolved.model_copy(update={"data": None})
    resolved = bind(resolved, splits.contract, parts)
    model = assemble(resolved, splits.contract, resolved.training.device, parts=parts)
    check_patience(resolved, splits)
    check_batches(model, splits)
    check_support(model, splits)
    return Trainer(model, splits, RunFolder(folder), Hooks(parts, trackers), progress).run()


def check_support(model: Model, splits: Splits) -> None:
    """Raise a :class:`SupportError` unless the likelihood can score every split."""
    for name, split in splits.named():
        made = chunks(split, splits.contract, model.device, model.dtype, block=splits.block)
        for first, batch in made:
            scope = batch.scope(0)
            try:
                model.check_support(scope, first)
            except SupportError as error:
                raise SupportError(f"{name} {error.message}", hint=error.hint) from None
            if _certain(model.support(scope), splits.contract):
                break


def _certain(support: Constraint | None, contract: Contract) -> bool:
    """Whether checked data that keep to their contract lie within a support, without a look at them."""
    if support is constraints.boolean and contract.support == "binary":
        # Not where 0 and 1 are made by a multiplication, which rounds.
        return contract.binarize == "dynamic" or (contract.scale, contract.shift) == (1.0, 0.0)
    return support is None or support is constraints.real


def check_batches(model: Model, splits: Splits) -> None:
    """Raise a :class:`SpecError` if batches have too few items: for their parts, or to be normalised."""
    spec = model.spec.training
    if spec.accumulate > spec.batch_size:
        message = f"a batch of {spec.batch_size} has no {spec.accumulate} parts"
        raise SpecError([Problem("K206", "/training/accumulate", message)])
    if not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return
    sizes = set(Batches.sizes_of(len(splits.train), spec.batch_size))
    parts = {
        p.stop - p.start for n in sizes for p in parts_of(n, spec.batch_size, spec.accumulate)
    }
    if min(parts) == 1:
        which = "batch_size" if spec.accumulate == 1 else "accumulate"
        message = "batch normalisation needs batches, and parts of them, of at least two items"
        raise SpecError([Problem("K206", f"/training/{which}", message)])


def check_patience(spec: Spec, splits: Splits) -> None:
    """Raise a :class:`SpecError` if training is to stop early and nothing says when."""
    if spec.training.patience and splits.valid is None:
        message = "early stopping needs a validation split, and the data have none"
        raise SpecError([Problem("K206", "/training/patience", message)])
