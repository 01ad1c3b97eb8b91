"""Finished runs as results: those that are compared as they are, and those that need no training again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sfumato.agreement import CONDITIONS, WORDS
from sfumato.artifact import load
from sfumato.checkpoints import newest
from sfumato.errors import ArtifactError, DataError, SfumatoError
from sfumato.model import Model
from sfumato.plan import Plan
from sfumato.registry import LOCAL, Registry, registry
from sfumato.run import Json, Run, check_one_run, environment, read_about, read_metrics
from sfumato.spec import Spec
from sfumato.standing import STACKED

_UNFINISHED = {"running": "it was not finished"}


@dataclass(frozen=True)
class Trained:
    """A model and how its training went.

    Args:
        model: The model.
        history: Its epochs.
        kept_epoch: The epoch whose weights were kept.
        seconds: Training time.
        peak_memory: In bytes, where it is known.
        warnings: What parts said.
        reused: Whether it was finished before.
    """

    model: Model
    history: tuple[Json, ...]
    kept_epoch: int
    seconds: float
    peak_memory: int | None
    warnings: tuple[str, ...]
    reused: bool = False

    @classmethod
    def of(cls, run: Run) -> Trained:
        """A run that was trained now."""
        return cls(
            run.model, run.metrics, run.kept_epoch, run.seconds, run.peak_memory, run.warnings
        )

    def run(self, path: Path) -> Run:
        """The same as a run of its folder."""
        return Run(
            self.model,
            self.history,
            path,
            self.kept_epoch,
            self.seconds,
            self.warnings,
            self.peak_memory,
        )


def finished(path: Path, device: str | torch.device, parts: Registry = registry) -> Trained:
    """A finished run, as it is.

    Raises:
        ArtifactError: Damaged.
    """
    about = read_about(path)
    model = load(path, device, parts=parts)
    check_one_run(path, model)
    try:
        return Trained(
            model,
            tuple(read_metrics(path)),
            int(about["kept_epoch"]),
            float(about["seconds"]),
            about.get("peak_memory"),
            tuple(about.get("warnings", ())),
            reused=True,
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, SfumatoError):
            raise
        msg = f"{path}/run.json is damaged: {type(error).__name__}: {error}"
        raise ArtifactError(msg) from error


def same_run(
    path: Path,
    spec: Spec,
    plan: Plan,
    data: str,
    device: torch.device,
    parts: Registry = registry,
    *,
    stacked: bool = False,
) -> Trained | str:
    """The run in a folder, if training the spec here and now would make the very same again; else why not.

    It would if the run finished and its spec, the content of its data, the plugins of its parts,
    the build of torch, the device and the number of threads are the same. Parts that were
    registered by hand have no version that could tell.

    Args:
        path: The folder.
        spec: The spec.
        plan: Of its model.
        data: Fingerprint of the data.
        device: Where it would be trained.
        parts: Where parts are looked up.
        stacked: Whether it may be one of a stack, which differs from one alone by rounding.
    """
    if not (path / "run.json").is_file():
        return ""
    try:
        about = read_about(path)
        why = _differs(about, spec, plan, data, device)
        if not why and about.get("stepping") == STACKED and not stacked:
            why = "it was trained as one of a stack"
        if why:
            return why
        return finished(path, device, parts)
    except SfumatoError as error:
        return error.message


def unfinished(path: Path, model: Model, data: str) -> Mapping[str, Any] | None:
    """The ``run.json`` of a run that was stopped, and that going on with would make what training it does."""
    try:
        about = read_about(path)
        if about.get("status") == "finished":
            return None
        if _other(about, model.spec, model.plan, data, model.device):
            return None
        return about if newest(path, model, about.get("of"))[0] else None
    except SfumatoError:
        return None


def _differs(
    about: Mapping[str, Any], spec: Spec, plan: Plan, data: str, device: torch.device
) -> str:
    """Why a run is not what training would make now; empty if it is."""
    status = str(about.get("status"))
    if status != "finished":
        return _UNFINISHED.get(status, f"it is {status}")
    return _other(about, spec, plan, data, device)


def _other(
    about: Mapping[str, Any], spec: Spec, plan: Plan, data: str, device: torch.device
) -> str:
    """Why a run is another one than training would make, finished or not; empty if it is that one."""
    here, there = environment(device), about.get("environment", {})
    other = [WORDS.get(n, n) for n in CONDITIONS if there.get(n) != here[n]]
    provenance = {kind: dict(origin) for kind, origin in plan.provenance.items()}
    reasons = (
        (about.get("spec_hash") != spec.hash, "its spec is another"),
        (about.get("data", {}).get("sha256") != data, "its data were others"),
        (about.get("provenance") != provenance, "its plugins were others"),
        (any(again.get("drift") for again in about.get("resumed", ())), "it has drifted"),
        (
            any(origin["distribution"] == LOCAL for origin in provenance.values()),
            "a part was registered by hand, which may have changed",
        ),
        (bool(other), f"it was trained under another {', '.join(other)}"),
    )
    return next((why for differs, why in reasons if differs), "")


def check_same_data(path: Path, data: str) -> None:
    """Raise a :class:`DataError` if a finished run was trained on other data than those at hand."""
    known = read_about(path).get("data", {}).get("sha256")
    if known is not None and known != data:
        msg = f"the run {path} was trained on other data than those of this comparison"
        raise DataError(msg, hint="compare its spec instead, which trains it on these data")
