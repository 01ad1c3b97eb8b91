"""Opening a run: its model, and the data it was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from sfumato.artifact import load
from sfumato.data import Splits
from sfumato.datasets import load_splits
from sfumato.errors import DataError
from sfumato.model import Model
from sfumato.options import path_options
from sfumato.registry import registry
from sfumato.resolve import load_spec
from sfumato.run import check_one_run, read_run
from sfumato.spec import Spec


def open_run(
    run: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    device: str | torch.device | None = None,
    *,
    force: bool = False,
) -> tuple[Model, Splits]:
    """The model of a run, and its data, which must keep to the contract that the model was trained on.

    Args:
        run: The run folder.
        overrides: Changes of the spec, such as ``data.path=…`` where the data have moved.
        device: As :func:`sfumato.load` takes it; ``auto`` by default.
        force: Load although a plugin is here in another major version than the model's.

    Raises:
        ArtifactError: Not a run folder, or damaged.
        DataError: The data are missing, damaged or of another kind than the model's.
    """
    model = load(run, device or "auto", force=force)
    spec = read_run(run)[0]
    check_one_run(run, model)
    if overrides:
        spec = from_here(spec, load_spec(spec, overrides))
    splits = load_splits(spec)
    if splits.contract != model.contract:
        msg = "the data differ in kind from those that the model was trained on"
        raise DataError(msg, hint="shape, support, scaling and binarization must be the same")
    return model, splits


def from_here(before: Spec, after: Spec) -> Spec:
    """A spec whose changed data paths are those of the current folder, not of where it stood."""
    if after.data is None or before.data is None:
        return after
    changed = {}
    for name in path_options(registry.get("data", after.data.type)):
        value = getattr(after.data, name)
        if isinstance(value, Path) and value != getattr(before.data, name, None):
            changed[name] = Path.cwd() / value
    return after.model_copy(update={"data": after.data.model_copy(update=changed)})
