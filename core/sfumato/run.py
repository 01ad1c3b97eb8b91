"""A run, and the folder it is kept in.

::

    run/  spec.json          the resolved spec
          run.json           status, versions, command, timings, device
          metrics.jsonl      one line an epoch
          model.safetensors  the weights that were kept, with a header that suffices to load them
          checkpoints/       all that the run can be gone on from
          samplers/          samplers that were fitted to the weights
          .lock              who writes at the moment
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sfumato import checkpoints, kernels
from sfumato.errors import ArtifactError, SfumatoError, SpecError
from sfumato.files import (
    write_json,
)
from sfumato.migrations import migrated
from sfumato.model import Model
from sfumato.provenance import refuse_missing
from sfumato.registry import Registry, own_version, registry
from sfumato.regular_files import read_regular
from sfumato.resolve import load_spec
from sfumato.spec import Spec
from sfumato.strict_json import dumps, loads
from sfumato.tensor_files import MAX_HEADER

Json = dict[str, Any]

SPEC, RUN, SAMPLERS = "spec.json", "run.json", "samplers"
FORMAT = 1
_LONGEST = 1 << 28
"""Bytes of ``metrics.jsonl`` that are read."""


@dataclass(frozen=True, repr=False)
class Run:
    """A finished training.

    Args:
        model: The weights that were kept, in evaluation mode.
        metrics: One mapping an epoch: ``epoch``, ``step``, ``seconds``, ``lr``, ``train`` and
            ``valid`` (``{term: nats per item}``) and ``parts`` (what parts report).
        path: The run folder, or None.
        kept_epoch: The epoch whose weights were kept.
        seconds: Training time, validation included.
        warnings: What parts want said about their state.
        peak_memory: Most memory during training, in bytes; None where the platform does not tell.
    """

    model: Model
    metrics: tuple[Json, ...]
    path: Path | None
    kept_epoch: int
    seconds: float
    warnings: tuple[str, ...] = ()
    peak_memory: int | None = None

    def __repr__(self) -> str:
        where = "" if self.path is None else f"{self.path}: "
        return f"Run({where}{len(self.metrics)} epochs, kept epoch {self.kept_epoch})"

    def _repr_html_(self) -> str:
        from sfumato import notebook

        return notebook.of_run(self)


def mark_failed(path: Path, why: str) -> None:
    """Say in a run folder that a run which was going on failed, where the run itself cannot any more."""
    with suppress(SfumatoError):
        about = read_about(path)
        if about.get("status") == "running":
            write_json(path / RUN, {**about, "status": "failed", "error": why})


def identity(spec: Spec, data: str) -> str:
    """What tells runs apart, as ``HOW/WHAT``: how it is trained, and what tells its best epoch.

    Args:
        spec: The spec; where its data lie and its device do not count.
        data: Fingerprint of the data.
    """
    said = {**spec.to_json(), "data": data}
    training = {**said["training"], "device": None}
    measured = {name: training[name] for name in ("monitor", "monitor_mode", "precision")}
    return f"{_sha256({**said, 'training': training})}/{_sha256([said['model'], data, measured])}"


def _sha256(value: Any) -> str:
    return hashlib.sha256(dumps(value).encode()).hexdigest()


def environment(device: torch.device) -> Json:
    """Versions, platform, device, threads and products: what a figure may depend on besides its spec."""
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "sfumato": own_version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": named,
        "matmul": torch.get_float32_matmul_precision(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "linear": kernels.chosen() if device.type == "cpu" else kernels.TORCH,
    }


def command_line() -> str:
    """The command that this process was started with, ready to paste."""
    name = Path(sys.argv[0]).name if sys.argv else "python"
    return shlex.join(["sfumato", *sys.argv[1:]]) if name == "sfumato" else "python"


def read_run(
    path: str | os.PathLike[str], *, parts: Registry = registry
) -> tuple[Spec, Mapping[str, Any]]:
    """The resolved spec of a run folder, with data paths where they were, and its ``run.json``.

    Raises:
        ArtifactError: Not a run folder, or damaged.
        MissingPluginError: A part or the data come from a plugin that is not installed here.
    """
    about = read_about(path)
    folder = run_folder(path)
    try:
        base = Path(about["data"]["base"])
        spec = load_spec(read_json(folder, SPEC), parts=parts)
    except (SpecError, KeyError, TypeError) as error:
        if isinstance(error, SpecError):
            refuse_missing(error, about.get("provenance", {}))
        msg = f"the run folder {folder} is damaged: {error}"
        raise ArtifactError(msg) from error
    return spec.model_copy(update={"base": base}), about


def read_metrics(path: str | os.PathLike[str]) -> list[Json]:
    """The lines of ``metrics.jsonl`` of a run folder, one an epoch.

    Raises:
        ArtifactError: Missing or damaged.
    """
    folder = run_folder(path)
    file = folder / checkpoints.METRICS
    try:
        lines = read_regular(file, _LONGEST, within=folder).decode().splitlines()
        return [loads(line, str(file), max_bytes=MAX_HEADER)[0] for line in lines]
    except (SpecError, UnicodeDecodeError) as error:
        msg = f"{file} is damaged: {error}"
        raise ArtifactError(msg) from error


def check_one_run(path: str | os.PathLike[str], model: Model) -> None:
    """Raise an :class:`ArtifactError` if the model of a run folder is not that of its ``run.json``."""
    known = read_about(path).get("spec_hash")
    if known is not None and known != model.spec.hash:
        msg = (
            f"the model file of {path} is of another spec than its run.json: they are of two runs"
        )
        raise ArtifactError(msg, hint="put the files of one training back together")


def read_cost(path: str | os.PathLike[str]) -> dict[str, float]:
    """What the training of a run took, as far as it is known: ``seconds``, ``peak_memory`` in bytes."""
    about = read_about(path)
    known = {name: about.get(name) for name in ("seconds", "peak_memory")}
    return {name: float(v) for name, v in known.items() if isinstance(v, int | float)}


def read_about(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The ``run.json`` of a run folder. Needs none of the run's plugins.

    Raises:
        ArtifactError: Not a run folder, or damaged.
    """
    folder = run_folder(path)
    about = read_json(folder, RUN)
    return migrated("run", about, FORMAT, source=str(folder / RUN))


def read_json(folder: Path, name: str) -> Any:
    """What a file of JSON in a run folder says.

    Raises:
        ArtifactError: Missing or damaged.
    """
    file = folder / name
    try:
        text = read_regular(file, MAX_HEADER, within=folder).decode()
        return loads(text, str(file), max_bytes=MAX_HEADER)[0]
    except (SpecError, UnicodeDecodeError) as error:
        msg = f"{file} is damaged: {error}"
        raise ArtifactError(msg) from error


def run_folder(path: str | os.PathLike[str]) -> Path:
    """The run folder that a path names: itself, or that of a model file or a checkpoint in it."""
    folder = Path(path)
    if folder.is_file() or folder.absolute().parent.name == checkpoints.FOLDER:
        above = folder.absolute().parents[:3]
        folder = next((f for f in above if (f / RUN).is_file()), folder)
    lacking = [name for name in (SPEC, RUN) if not (folder / name).is_file()]
    if not lacking:
        return folder
    hint = "make one with: sfumato train SPEC --out RUN"
    if kept := checkpoints.folders(folder):
        hint = f"put it back; its checkpoints are there, and each is a model of its own: {kept[0]}"
    elif folder.is_file():
        hint = "a model file knows no data and no metrics: name the folder of its run"
    msg = f"{folder} is not a run folder: it lacks {' and '.join(lacking)}"
    raise ArtifactError(msg, hint=hint)
