"""A run, and the folder it is kept in.

::

    run/  spec.json          the resolved spec
          run.json           status, versions, command, timings, device
          metrics.jsonl      one line an epoch
          model.safetensors  the weights that were kept, with a header that suffices to load them
          checkpoints/       last and best
          samplers/          samplers that were fitted to the weights
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sfumato import kernels
from sfumato.artifact import MAX_HEADER, WEIGHTS, refuse_missing
from sfumato.artifact import save as save_model
from sfumato.data import Splits, fingerprint
from sfumato.errors import ArtifactError, SfumatoError, SpecError
from sfumato.files import append_line, make_folder, write_json
from sfumato.model import Model
from sfumato.registry import own_version
from sfumato.resolve import load_spec
from sfumato.spec import Spec
from sfumato.strict_json import loads

Json = dict[str, Any]


@dataclass(frozen=True)
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

    def _repr_html_(self) -> str:
        from sfumato import notebook

        return notebook.of_run(self)


class RunFolder:
    """Writes a run folder, file by file, each whole or not at all.

    Args:
        path: The folder; None writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._about: Json = {}
        self._saved = time.monotonic()

    def start(self, spec: Spec, model: Model, splits: Splits) -> None:
        """Make the folder and say what is about to run."""
        if self.path is None:
            return
        make_folder(self.path / "checkpoints")
        old = [f for name in ("checkpoints", "samplers") for f in (self.path / name).glob("*.*")]
        for stale in (self.path / "metrics.jsonl", self.path / WEIGHTS, *old):
            stale.unlink(missing_ok=True)
        write_json(self.path / "spec.json", spec.to_json())
        self._about = {
            "format": 1,
            "status": "running",
            "spec_hash": spec.hash,
            "parameters": model.plan.parameters,
            "provenance": {k: dict(v) for k, v in model.plan.provenance.items()},
            "data": {
                "contract": splits.contract.model_dump(mode="json"),
                "counts": {name: len(split) for name, split in splits.named()},
                "sha256": fingerprint(splits),
                "base": os.fspath(spec.base.resolve()),
            },
            "command": command_line(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "environment": environment(model.device),
        }
        self._write()

    def epoch(self, line: Json) -> None:
        """Add a line to ``metrics.jsonl``."""
        if self.path is not None:
            append_line(self.path / "metrics.jsonl", line)

    def due(self, every: float = 30.0) -> bool:
        """Whether checkpoints were last written longer ago than so many seconds."""
        return self.path is not None and time.monotonic() - self._saved > every

    def checkpoint(self, name: str, model: Model) -> None:
        """Write ``checkpoints/NAME.safetensors``."""
        if self.path is not None:
            save_model(model, self.path / "checkpoints" / f"{name}.safetensors")
            self._saved = time.monotonic()

    def finish(self, status: str, **facts: Any) -> None:
        """Say how the run ended."""
        if self.path is not None and self._about:
            self._about |= {"status": status, **facts}
            self._write()

    def result(self, model: Model) -> None:
        """Write the weights that were kept."""
        if self.path is not None:
            save_model(model, self.path / WEIGHTS)

    def _write(self) -> None:
        if self.path is not None:
            write_json(self.path / "run.json", self._about)


def mark_failed(path: Path, why: str) -> None:
    """Say in a run folder that a run which was going on failed, where the run itself cannot any more."""
    with suppress(SfumatoError):
        about = read_about(path)
        if about.get("status") == "running":
            write_json(path / "run.json", {**about, "status": "failed", "error": why})


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
        "threads": torch.get_num_threads(),
        "linear": kernels.chosen() if device.type == "cpu" else kernels.TORCH,
    }


def command_line() -> str:
    """The command that this process was started with, ready to paste."""
    name = Path(sys.argv[0]).name if sys.argv else "python"
    return shlex.join(["sfumato", *sys.argv[1:]]) if name == "sfumato" else "python"


def read_run(path: str | os.PathLike[str]) -> tuple[Spec, Mapping[str, Any]]:
    """The resolved spec of a run folder, with data paths where they were, and its ``run.json``.

    Raises:
        ArtifactError: Not a run folder, or damaged.
        MissingPluginError: A part or the data come from a plugin that is not installed here.
    """
    about = read_about(path)
    folder = run_folder(path)
    try:
        base = Path(about["data"]["base"])
        spec = load_spec(folder / "spec.json")
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
    file = run_folder(path) / "metrics.jsonl"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        return [loads(line, str(file), max_bytes=MAX_HEADER)[0] for line in lines]
    except (OSError, SpecError, UnicodeDecodeError) as error:
        msg = f"{file} is missing or damaged: {error}"
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
    file = run_folder(path) / "run.json"
    try:
        about = loads(file.read_text(encoding="utf-8"), str(file), max_bytes=MAX_HEADER)[0]
    except (SpecError, UnicodeDecodeError) as error:
        msg = f"{file} is damaged: {error}"
        raise ArtifactError(msg) from error
    if not isinstance(about, dict):
        msg = f"{file} is damaged: it holds no object"
        raise ArtifactError(msg)
    return about


def run_folder(path: str | os.PathLike[str]) -> Path:
    """The run folder that a path names: itself, or that of a model file in it."""
    folder = Path(path)
    if folder.is_file():  # a model file in a run folder, such as a checkpoint
        folder = next((f for f in folder.parents[:2] if (f / "run.json").is_file()), folder)
    if not (folder / "spec.json").is_file() or not (folder / "run.json").is_file():
        msg = f"{folder} is not a run folder: it lacks spec.json or run.json"
        raise ArtifactError(msg, hint="make one with: sfumato train SPEC --out RUN")
    return folder
